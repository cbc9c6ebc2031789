"""The moving average of weights, against its formula and through a checkpoint."""

from common import EMA, UserError, checkpoint

import jittor as jt
import numpy as np
import pytest

from jittor_fast import nn

META = {
    "script": "x",
    "args": {},
    "step": 1,
    "epoch": 0,
    "n_images": 2,
    "phase": "",
    "losses": {},
    "rng": {},
    "order": {},
}


def linear(*weights):
    network = nn.Linear(len(weights), 1, bias=False)
    set_weights(network, *weights)
    return network


def set_weights(network, *weights):
    network.weight.update(jt.array(np.float32([weights])))


def weights(network):
    return network.weight.numpy().ravel()


def test_the_average_follows_its_formula():
    network = linear(1, 2)
    averaged = EMA(network, decay=0.5)
    set_weights(network, 3, 2)
    averaged.update()  # the first decay is min(0.5, 1 / 10): 0.1 * 1 + 0.9 * 3
    assert np.allclose(weights(averaged.module), [2.8, 2])
    for _ in range(9):
        averaged.update()
    set_weights(network, 0, 2)
    before = weights(averaged.module)
    averaged.update()  # the eleventh is min(0.5, 11 / 20)
    assert np.allclose(weights(averaged.module), before * 0.5 + np.float32([0, 1]))
    assert np.allclose(weights(network), [0, 2])


def test_with_decay_0_nothing_is_averaged():
    network = linear(1, 2)
    averaged = EMA(network, decay=0)
    averaged.update()
    assert averaged.module is network
    assert averaged.state_dict() == {"n_updates": 0}


def test_statistics_are_averaged_and_the_copy_is_in_eval_mode():
    network = nn.Sequential(nn.BatchNorm(3))
    network.train()
    averaged = EMA(network, decay=0.5)
    x = np.random.default_rng(0).standard_normal((4, 3, 2, 2)).astype(np.float32) + 5
    network(jt.array(x)).sync()
    averaged.update()
    expected = 0.9 * network[0].running_mean.numpy()
    assert np.allclose(averaged.module[0].running_mean.numpy(), expected)
    assert not averaged.module.is_training()
    assert network.is_training()


def test_the_copy_does_not_freeze_the_trained_network():
    network = linear(1, 2)
    averaged = EMA(network, decay=0.9)
    averaged.module.eval()
    assert not network.weight.is_stop_grad()
    assert averaged.module.weight is not network.weight


def test_restart_begins_with_the_present_weights():
    network = linear(1, 2)
    averaged = EMA(network, decay=0.5)
    set_weights(network, 3, 2)
    averaged.update()
    averaged.restart()
    assert averaged.n_updates == 0
    assert weights(averaged.module).tolist() == [3, 2]
    set_weights(network, 13, 2)
    averaged.update()
    assert np.allclose(weights(averaged.module), [0.1 * 3 + 0.9 * 13, 2])


def test_the_state_goes_through_a_checkpoint(tmp_path):
    one = EMA(linear(1, 2), decay=0.5)
    set_weights(one.source, 5, 6)
    one.update()
    checkpoint.save(tmp_path / "x.npz", {"averaged": one}, META)
    other = EMA(linear(7, 8), decay=0.5)
    checkpoint.Reader(tmp_path / "x.npz").load({"averaged": other})
    assert other.n_updates == 1
    assert np.array_equal(weights(other.module), weights(one.module))


def test_a_negative_number_of_updates_is_damage(tmp_path):
    """Its decay would divide by 0."""
    one = EMA(linear(1, 2), decay=0.5)
    one.n_updates = -10
    checkpoint.save(tmp_path / "x.npz", {"averaged": one}, META)
    with pytest.raises(UserError, match="averaged/n_updates is -10"):
        checkpoint.Reader(tmp_path / "x.npz").load({"averaged": one})


def parts_of(*values):
    network = linear(*values)
    return {
        "network": network,
        "optimizer": nn.Adam(network.parameters(), lr=0.1),
        "averaged": EMA(network, decay=0.5),
    }


def test_fine_tuning_takes_the_weights_alone(tmp_path):
    """The average starts again from them, and the optimizer from nothing."""
    old = parts_of(1, 2)
    old["optimizer"].step((old["network"].weight ** 2).sum())
    old["averaged"].update()
    checkpoint.save(tmp_path / "x.npz", old, META)
    new = parts_of(7, 8)
    checkpoint.Reader(tmp_path / "x.npz").load_weights(new)
    expected = weights(old["network"])
    assert not np.array_equal(weights(old["averaged"].module), expected)
    assert np.array_equal(weights(new["network"]), expected)
    assert np.array_equal(weights(new["averaged"].module), expected)
    assert new["averaged"].n_updates == 0
    assert new["optimizer"].n_step == 0
    assert not np.any(checkpoint.get_state(new["optimizer"])["m/0.0"])
