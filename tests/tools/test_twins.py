"""tools/twin.py: a run with PyTorch's steps moves the weights as the script does."""

import jittor as jt
import numpy as np
import pytest
from registry import assert_same_movement, load, run, saved_arrays, weights_at_the_start

pytest.importorskip("torch", reason="the twins are in PyTorch")

from tools import twin
from tools.twins import Twin


@pytest.mark.parametrize("name", ["dcgan", "cyclegan", "spade"])
def test_a_run_of_the_twin_moves_the_weights_alike(name, tiny, tmp_path, monkeypatch, capsys):
    """Four steps, at a rate so small that the next step's gradients hardly change."""
    script = load(name)
    before = weights_at_the_start(monkeypatch)
    monkeypatch.setattr(script, "train_step", script.train_step)  # the command replaces it
    flags = [*tiny.flags, "--n_epochs", 1, "--lr", 1e-5]
    run(name, *flags, "--out_dir", tmp_path / "script")
    twin.main([name, *map(str, flags), "--out_dir", str(tmp_path / "twin")])
    assert "PyTorch's steps took" in capsys.readouterr().out
    ours = saved_arrays(tmp_path / "script")
    theirs = saved_arrays(tmp_path / "twin")
    tolerance = 0.2 if name == "cyclegan" else 0.05
    assert_same_movement(before, ours, theirs, tolerance)


def test_the_steps_of_all_phases_are_the_twins(tiny_runs, tmp_path, monkeypatch):
    """srgan.py's first phase, four steps of `mse_step`."""
    name = "srgan"
    script = load(name)
    before = weights_at_the_start(monkeypatch)
    for step in ("mse_step", "train_step"):
        monkeypatch.setattr(script, step, getattr(script, step))
    flags = [*tiny_runs(name).flags, "--n_epochs", 1, "--mse_epochs", 1, "--lr", 1e-5]
    run(name, *flags, "--out_dir", tmp_path / "script")
    monkeypatch.setattr(script.nn.Adam, "step", None)  # no step is Jittor's any more
    twin.main([name, *map(str, flags), "--out_dir", str(tmp_path / "twin")])
    ours = saved_arrays(tmp_path / "script")
    theirs = saved_arrays(tmp_path / "twin")
    assert_same_movement(before, ours, theirs, 0.05, ("discriminator",))


@pytest.mark.parametrize("argv", [[], ["gan_of_tomorrow"], ["dcgan", "--resume", "x"]])
def test_an_unknown_script_and_a_resumed_twin_are_refused(fails, argv):
    code, line = fails(twin.main, argv)
    assert code == 2
    assert "give a script of" in line
    assert "dcgan" in line


@pytest.mark.parametrize("write_back", [True, False])
def test_weights_are_written_back_if_asked(write_back):
    """After a step of the twin, the script's modules hold PyTorch's weights."""
    script = load("dcgan")
    flags = ["--img_size", "16", "--latent_dim", "6", "--width", "4"]
    G, D = script.build(script.parse_args(flags))
    optimizers = [jt.nn.Adam(network.parameters(), lr=0.01) for network in (G, D)]
    before = G.layers[0].weight.numpy().copy()
    twins = Twin("dcgan", write_back)
    z = jt.ones((4, 6))
    real = jt.zeros((4, 1, 16, 16))
    losses = twins.train_step(G, D, *optimizers, real, z, z, blur=lambda images: images)
    assert losses.keys() == {"loss_D", "loss_G"}
    theirs = twins.module(G).layers[0].weight.detach().numpy()
    ours = G.layers[0].weight.numpy()
    assert not np.array_equal(before, theirs)
    assert np.array_equal(ours, theirs if write_back else before)


def test_containers_and_functions_become_those_of_tensors():
    """A dict, tuples and lists keep their form; a function returns what it did."""
    twins = Twin("dcgan")
    x = jt.array(np.float32([1, 2]))
    found = twins.get({"a": (x, [x, 3]), "b": lambda y: 2 * y})
    first, (second, three) = found["a"]
    assert first.numpy().tolist() == second.numpy().tolist() == [1, 2]
    assert three == 3
    assert found["b"](first).numpy().tolist() == [2, 4]
