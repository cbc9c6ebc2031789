"""tools/twin.py: a script's run with PyTorch's steps goes the way of the script's own."""

import jittor as jt
import numpy as np
import pytest
from registry import assert_same_way, load, run, saved_arrays, weights_at_the_start

pytest.importorskip("torch", reason="the twins are in PyTorch")

from tools import twin
from tools.twins import Twin


@pytest.mark.parametrize("name", ["dcgan", "cyclegan", "spade"])
def test_a_run_of_the_twin_goes_the_way_of_the_script(name, tiny, tmp_path, monkeypatch, capsys):
    """Four steps at a rate so small that weights stay what they are for the next step's gradient."""
    script, before = load(name), weights_at_the_start(monkeypatch)
    monkeypatch.setattr(script, "train_step", script.train_step)  # the command replaces it
    flags = [*tiny.flags, "--n_epochs", 1, "--lr", 1e-5]
    run(name, *flags, "--out_dir", tmp_path / "script")
    twin.main([name, *map(str, flags), "--out_dir", str(tmp_path / "twin")])
    assert "PyTorch's steps took" in capsys.readouterr().out
    ours, theirs = (saved_arrays(tmp_path / folder) for folder in ("script", "twin"))
    assert_same_way(before, ours, theirs, tolerance=0.2 if name == "cyclegan" else 0.05)


def test_an_unknown_script_and_a_resumed_twin(fails):
    for argv in ([], ["gan_of_tomorrow"], ["dcgan", "--resume", "x"]):
        code, line = fails(twin.main, argv)
        assert code == 2
        assert "give a script of" in line and "dcgan" in line


def test_weights_are_written_back(tiny_runs):
    """After a step of the twin the script's modules hold PyTorch's weights; without `write_back` they stay."""
    script = load("dcgan")
    for write_back in (True, False):
        jt.set_global_seed(987654321)
        G, D = script.build(
            script.parse_args(["--img_size", "16", "--latent_dim", "6", "--width", "4"])
        )
        optimizers = [jt.nn.Adam(m.parameters(), lr=0.01) for m in (G, D)]
        before, twins = G.layers[0].weight.numpy().copy(), Twin("dcgan", write_back)
        z, real = jt.ones((4, 6)), jt.zeros((4, 1, 16, 16))
        twins.train_step(G, D, *optimizers, real, z, z, blur=lambda x: x)
        theirs = twins.module(G).layers[0].weight.detach().numpy()
        assert not np.array_equal(before, theirs)
        assert np.array_equal(G.layers[0].weight.numpy(), theirs if write_back else before)
