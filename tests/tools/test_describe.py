"""tools/describe.py: layers, output shapes and parameter counts of every script."""

import shutil

import jittor as jt
import numpy as np
import pytest
from registry import ROOT, ROWS

from jittor_fast import nn
from tools import describe

EVERY = pytest.mark.parametrize("name", list(ROWS))


def counts(section):
    """The parameters of each layer in a section of the output, without the sum."""
    _, *layers, _ = section.strip().splitlines()
    return [int(line.split()[-1].replace(",", "")) for line in layers]


def test_a_description_by_hand(capsys):
    """Parameters: 3 * 2 * 9 + 2 of the convolution, 2 + 2 of the norm, 8 * 5 + 5."""
    net = nn.Sequential(
        nn.Conv(3, 2, 3, stride=2, padding=1),
        nn.BatchNorm(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    net.train()
    before = {key: value.numpy().copy() for key, value in net.state_dict().items()}
    describe.describe("net", net, [jt.zeros((1, 3, 4, 4))])
    rows = [line.split() for line in capsys.readouterr().out.strip().splitlines()]
    assert rows == [
        ["net:", "(1,", "3,", "4,", "4)", "->", "(1,", "5)"],
        ["0", "Conv", "(1,", "2,", "2,", "2)", "56"],
        ["1", "BatchNorm", "(1,", "2,", "2,", "2)", "4"],
        ["2", "ReLU", "(1,", "2,", "2,", "2)", "0"],
        ["3", "Flatten", "(1,", "8)", "0"],
        ["4", "Linear", "(1,", "5)", "45"],
        ["105", "parameters", "(0.000", "M)"],
    ]
    assert describe.n_parameters(net) == 105
    for key, value in net.state_dict().items():
        assert np.array_equal(value.numpy(), before[key]), key

    net.train()
    out = net(jt.zeros((2, 3, 4, 4)))  # the layers are themselves again
    assert out.shape == [2, 5]
    assert capsys.readouterr().out == ""


class Scaled(nn.Module):
    """A network with a parameter that belongs to none of its layers."""

    def __init__(self):
        super().__init__()
        self.scale = jt.ones(3)
        self.linear = nn.Linear(3, 2)

    def execute(self, x):
        return self.linear(self.scale * x), x


def test_a_network_without_inputs_and_with_parameters_of_its_own(capsys):
    """Two outputs are both shown; the three weights of `scale` are in no layer."""
    describe.describe("net", Scaled(), [jt.zeros((1, 3))])
    with_shapes = [line.split() for line in capsys.readouterr().out.strip().splitlines()]
    assert with_shapes == [
        ["net:", "(1,", "3)", "->", "(1,", "2),", "(1,", "3)"],
        ["linear", "Linear", "(1,", "2)", "8"],
        ["others", "3"],
        ["11", "parameters", "(0.000", "M)"],
    ]
    describe.describe("net", Scaled())
    without = [line.split() for line in capsys.readouterr().out.strip().splitlines()]
    assert without == [["net"], ["linear", "Linear", "8"], *with_shapes[2:]]


@EVERY
def test_every_script_has_a_row(name):
    assert name in describe.EXAMPLES


@EVERY
def test_counts_and_shapes_are_those_of_the_twins(name, tiny, tmp_path, monkeypatch, capsys):
    """The networks' twins in PyTorch have as many parameters and the same outputs."""
    torch = pytest.importorskip("torch")
    from tools.twins import Twin

    described = []
    real_describe = describe.describe

    def record_and_describe(title, network, inputs):
        described.append((title, network, inputs))
        real_describe(title, network, inputs)

    monkeypatch.setattr(describe, "describe", record_and_describe)
    monkeypatch.chdir(tmp_path)
    flags = [str(flag) for flag in [*ROWS[name].flags, "--data_dir", tiny.data]]
    describe.main([f"{name}.py", *flags])
    assert list(tmp_path.iterdir()) == []  # it writes nothing

    sections = capsys.readouterr().out.split("\n\n")[-len(described) :]
    n_compared = 0
    for (title, network, inputs), section in zip(described, sections):
        twins = Twin(name)
        if inputs is None or type(network).__name__ not in twins.source.FORWARD:
            continue  # an encoder that only text2img.py and stackgan.py train beforehand
        twin = twins.module(network).eval()
        n = sum(parameter.numel() for parameter in twin.parameters())
        head, *_, total = section.strip().splitlines()
        assert total.split() == [f"{n:,}", "parameters", f"({n / 1e6:.3f}", "M)"]
        assert sum(counts(section)) == n
        with torch.no_grad():
            outputs = twin(*(torch.tensor(x.numpy()) for x in inputs))
        shapes = [", ".join(describe.flat_shapes(values)) for values in (inputs, outputs)]
        assert head == f"{title}: {' -> '.join(shapes)}"
        n_compared += 1
    assert n_compared >= 2


@pytest.mark.parametrize("name", ["dcgan", "spade"])
def test_a_checkpoint_is_left_alone(name, tiny, tmp_path, capsys):
    out = shutil.copytree(tiny.half, tmp_path / "out")
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*")}
    describe.main([name, "--resume", str(out)])
    assert "parameters" in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in out.rglob("*")} == before


def test_a_copy_elsewhere_is_described_without_shapes(tmp_path, capsys):
    copy = shutil.copy(ROOT / "dcgan.py", tmp_path / "mine.py")
    describe.main([str(copy), "--img_size", "16", "--width", "4"])
    generator, discriminator = capsys.readouterr().out.strip().split("\n\n")
    assert generator.splitlines()[0] == "1. Generator"
    assert discriminator.splitlines()[0] == "2. Discriminator"
    # (100 * 8 + 8 * 4) * 16 + 4 * 16 weights of convolutions, 2 * (8 + 4) of norms
    assert sum(counts(generator)) == (100 * 8 + 8 * 4 + 4) * 16 + 2 * (8 + 4)
    assert "(1, " not in generator


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "give a script"),
        (["--paper"], "give a script"),
        (["gan_of_tomorrow.py"], "there is no script"),
        (["dcgan.py", "--width", "0"], "dcgan.py: error: argument --width"),
    ],
)
def test_bad_calls_end_in_one_line(fails, argv, message):
    code, line = fails(describe.main, argv)
    assert code == 2
    assert message in line
