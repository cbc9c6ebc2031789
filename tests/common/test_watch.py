"""The warnings of a lost training, against losses and pictures made by hand."""

from common.watch import PATIENCE, Watch, mean_distance

import numpy as np
import pytest

NOISE = np.random.default_rng(0).uniform(-1, 1, (30, 1, 4, 4)).astype(np.float32)


def test_mean_distance_by_hand():
    # Points 0, 3 and 4i: distances 3, 4 and 5.
    assert np.isclose(mean_distance(np.float32([[0, 0], [3, 0], [0, 4]])), 4)
    assert mean_distance(np.float32([[3, 4]])) == 0  # a single image, of which a watch says nothing


def won(capsys):
    return capsys.readouterr().err.count("discriminator has won")


@pytest.mark.parametrize("loss", [0.0, 1e-30, 0.0099])
def test_a_discriminator_that_has_won_is_told_once(capsys, loss):
    """A loss of exactly 0, which the hinge loss has, too."""
    watch = Watch(NOISE, loss="loss_D")
    for _ in range(PATIENCE - 1):
        watch.see_losses({"loss_D": loss})
    assert won(capsys) == 0
    for _ in range(3 * PATIENCE):
        watch.see_losses({"loss_D": loss})
    assert won(capsys) == 1


def test_a_discriminator_that_is_fooled_once_has_not_won(capsys):
    watch = Watch(NOISE, loss="loss_D")
    for i in range(3 * PATIENCE):
        watch.see_losses({"loss_D": 0.02 if i % PATIENCE == 7 else 0.0})
    assert won(capsys) == 0
    for _ in range(PATIENCE):
        watch.see_losses({"loss_D": 0.0})
    assert won(capsys) == 1


def test_other_losses_say_nothing(capsys):
    watch, critic = Watch(NOISE, loss="loss_D"), Watch(NOISE)
    for _ in range(2 * PATIENCE):
        watch.see_losses({"loss_G": 0.0})
        critic.see_losses({"wasserstein": 0.0})
    assert won(capsys) == 0


def test_a_collapse_is_told_once_and_names_what_collapsed(capsys):
    watch = Watch(NOISE, "translations A to B")
    watch.see_samples(NOISE)
    watch.see_samples(0.11 * NOISE)
    assert capsys.readouterr().err == ""
    for _ in range(2):
        watch.see_samples(0.09 * NOISE)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: the translations A to B have collapsed")


def test_both_warnings_are_given(capsys):
    watch = Watch(NOISE, loss="loss_D")
    watch.see_samples(0 * NOISE)
    for _ in range(PATIENCE):
        watch.see_losses({"loss_D": 0.0})
    assert len(capsys.readouterr().err.splitlines()) == 2
