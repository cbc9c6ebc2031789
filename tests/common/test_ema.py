"""What is done with any network: the moving average against its formula, chunks, the description."""

import common
from common import EMA, checkpoint
from common.networks import n_parameters

import jittor as jt
import numpy as np
import pytest

from jittor_fast import nn


@pytest.fixture(autouse=True)
def seeded():
    jt.set_global_seed(987654321)


# ---- EMA ----


def linear(*weights):
    net = nn.Linear(len(weights), 1, bias=False)
    net.weight.update(jt.array(np.float32([weights])))
    return net


def test_average_follows_its_formula():
    net = linear(1, 2)
    ema = EMA(net, decay=0.5)
    net.weight.update(jt.array(np.float32([[3, 2]])))
    ema.update()  # the decay is min(0.5, 1/10): 0.1 * 1 + 0.9 * 3
    assert np.allclose(ema.module.weight.numpy(), [[2.8, 2]])
    for _ in range(9):
        ema.update()
    net.weight.update(jt.array(np.float32([[0, 2]])))
    before = ema.module.weight.numpy().copy()
    ema.update()  # the eleventh: min(0.5, 11/20)
    assert np.allclose(ema.module.weight.numpy(), before * 0.5 + np.float32([[0, 1]]))
    assert np.allclose(net.weight.numpy(), [[0, 2]])


def test_average_is_off_with_decay_zero():
    net = linear(1, 2)
    ema = EMA(net, decay=0)
    ema.update()
    assert ema.module is net
    assert ema.state_dict() == {"n_updates": 0}


def test_statistics_are_averaged_and_the_copy_samples():
    net = nn.Sequential(nn.BatchNorm(3))
    net.train()
    ema = EMA(net, decay=0.5)
    x = np.random.default_rng(0).standard_normal((4, 3, 2, 2)).astype(np.float32) + 5
    net(jt.array(x)).sync()
    ema.update()
    assert np.allclose(ema.module[0].running_mean.numpy(), 0.9 * net[0].running_mean.numpy())
    assert not ema.module.is_training() and net.is_training()


def test_sampling_from_the_average_does_not_freeze_the_module():
    net = linear(1, 2)
    ema = EMA(net, decay=0.9)
    ema.module.eval()
    assert not net.weight.is_stop_grad()
    assert ema.module.weight is not net.weight


def test_restart_begins_anew_from_the_weights():
    net = linear(1, 2)
    ema = EMA(net, decay=0.5)
    net.weight.update(jt.array(np.float32([[3, 2]])))
    ema.update()
    ema.restart()
    assert ema.n_updates == 0
    assert ema.module.weight.numpy().tolist() == [[3, 2]]
    net.weight.update(jt.array(np.float32([[13, 2]])))
    ema.update()
    assert np.allclose(ema.module.weight.numpy(), [[0.1 * 3 + 0.9 * 13, 2]])


def test_state_goes_through_a_checkpoint(tmp_path):
    one, other = (EMA(linear(*w), decay=0.5) for w in ((1, 2), (7, 8)))
    one.source.weight.update(jt.array(np.float32([[5, 6]])))
    one.update()
    text = {"script": "x", "args": {}, "step": 1, "epoch": 0, "losses": {}}
    checkpoint.save(tmp_path / "x.npz", {"ema": one}, text)
    checkpoint.Reader(tmp_path / "x.npz").load({"ema": other})
    assert other.n_updates == 1
    assert np.array_equal(other.module.weight.numpy(), one.module.weight.numpy())


def test_only_the_weights_of_modules_are_taken_for_fine_tuning(tmp_path):
    def parts(*weights):
        net = linear(*weights)
        return {
            "net": net,
            "optimizer": nn.Adam(net.parameters(), lr=0.1),
            "ema": EMA(net, decay=0.5),
        }

    old, new = parts(1, 2), parts(7, 8)
    old["optimizer"].step((old["net"].weight ** 2).sum())
    old["ema"].update()
    text = {"script": "x", "args": {}, "step": 1, "epoch": 0, "losses": {}}
    checkpoint.save(tmp_path / "x.npz", old, text)
    checkpoint.Reader(tmp_path / "x.npz").load_weights(new)
    weights = old["net"].weight.numpy()
    assert not np.array_equal(old["ema"].module.weight.numpy(), weights)
    assert np.array_equal(new["net"].weight.numpy(), weights)
    assert np.array_equal(new["ema"].module.weight.numpy(), weights)
    assert (new["ema"].n_updates, new["optimizer"].n_step) == (0, 0)
    assert not np.any(checkpoint.get_state(new["optimizer"])["m/0.0"])


# ---- in_chunks ----


class Sizes(nn.Module):
    """x + y, noting how many rows each call has."""

    def __init__(self):
        super().__init__()
        self.dropout, self.rows = nn.Dropout(0.5), []

    def execute(self, x, y):
        self.rows.append(len(x))
        return self.dropout(x + y)


def test_chunks_are_joined_and_the_module_evaluates():
    net, x = Sizes(), np.arange(7, dtype=np.float32)
    net.train()
    assert common.in_chunks(net, x, 2 * x, chunk=3).tolist() == (3 * x).tolist()
    assert net.rows == [3, 3, 1]
    assert net.is_training()
    net.eval()
    common.in_chunks(net, x, x, chunk=7)
    assert not net.is_training()
    assert net.rows == [3, 3, 1, 7]


def test_several_outputs():
    x = np.arange(5, dtype=np.float32)
    twice, squares = common.in_chunks(lambda v: (2 * v, v * v), x, chunk=2)
    assert (twice.tolist(), squares.tolist()) == ((2 * x).tolist(), (x * x).tolist())


def test_no_gradient_is_kept():
    w = jt.ones((1,))
    kept = []

    def network(x):
        kept.append(w * x)
        return kept[0]

    common.in_chunks(network, np.ones(3, np.float32))
    assert kept[0].is_stop_grad()


def test_a_seed_repeats_what_is_drawn():
    def network(x):
        return x + jt.rand(x.shape)

    x = np.zeros((6, 4), np.float32)
    one, same, other = (common.in_chunks(network, x, chunk=3, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert len(np.unique(one)) == one.size  # each chunk draws its own


# ---- describe ----


def test_description_by_hand(capsys):
    """Parameters: 3 * 2 * 9 + 2 of the convolution, 2 + 2 of the norm, 8 * 5 + 5 of the last layer."""
    net = nn.Sequential(
        nn.Conv(3, 2, 3, stride=2, padding=1),
        nn.BatchNorm(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    net.train()
    before = {key: value.numpy().copy() for key, value in net.state_dict().items()}
    common.describe("net", net, jt.zeros((1, 3, 4, 4)))
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
    assert n_parameters(net) == 105
    for key, value in net.state_dict().items():
        assert np.array_equal(value.numpy(), before[key]), key
    net.train()
    out = net(jt.zeros((2, 3, 4, 4)))  # the layers are themselves again
    assert out.shape == [2, 5]
    assert capsys.readouterr().out == ""
