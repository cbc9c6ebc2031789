"""The warnings of a lost training, against losses and pictures made by hand."""

from common.watch import N_REAL, PATIENCE, Watch, mean_distance

import numpy as np

NOISE = np.random.default_rng(0).uniform(-1, 1, (60, 1, 4, 4)).astype(np.float32)


def test_mean_distance_by_hand():
    # The points 0, 3 and 4i have distances 3, 4 and 5.
    assert np.isclose(mean_distance(np.float32([[0, 0], [3, 0], [0, 4]])), 4)
    assert mean_distance(np.float32([[3, 4]])) == 0


# ---- the discriminator ----


def n_won(capsys):
    return capsys.readouterr().err.count("discriminator has won")


def test_a_discriminator_that_has_won_is_reported_once(capsys):
    """A loss of exactly 0, which the hinge loss can have, counts too."""
    for loss in (0.0, 1e-30, 0.0099):
        watch = Watch()
        for _ in range(PATIENCE - 1):
            watch.see_losses({"loss_D": loss})
        assert n_won(capsys) == 0
        for _ in range(3 * PATIENCE):
            watch.see_losses({"loss_D": loss})
        assert n_won(capsys) == 1


def test_a_discriminator_that_errs_now_and_then_has_not_won(capsys):
    watch = Watch()
    for i in range(3 * PATIENCE):
        watch.see_losses({"loss_D": 0.02 if i % PATIENCE == 7 else 0.0})
    assert n_won(capsys) == 0
    for _ in range(PATIENCE):
        watch.see_losses({"loss_D": 0.0})
    assert n_won(capsys) == 1


def test_each_of_two_discriminators_is_counted_on_its_own(capsys):
    watch = Watch()
    for i in range(2 * PATIENCE):
        watch.see_losses({"loss_D_A": 1.0 * (i % 2), "loss_D_B": 1.0 * (i % 2 == 0)})
    assert n_won(capsys) == 0
    for _ in range(PATIENCE):
        watch.see_losses({"loss_D_A": 1.0, "loss_D_B": 0.0})
    assert "loss_D_B was below" in capsys.readouterr().err


def test_other_losses_warn_of_nothing(capsys):
    """The estimate of a Wasserstein critic may be 0 for long."""
    watch = Watch()
    for _ in range(2 * PATIENCE):
        watch.see_losses({"loss_G": 0.0, "wasserstein": 0.0, "loss_D_cls": 0.0})
    assert n_won(capsys) == 0


# ---- the samples ----


def n_collapses(capsys):
    return capsys.readouterr().err.count("have collapsed")


def watch_of(*batches):
    watch = Watch()
    for arrays in batches:
        watch.see_real(arrays)
    return watch


def test_a_collapse_is_reported_once(capsys):
    watch = watch_of((NOISE,))
    watch.see_samples(NOISE[:10])
    watch.see_samples(0.11 * NOISE[:10])
    assert capsys.readouterr().err == ""
    for _ in range(2):
        watch.see_samples(0.09 * NOISE[:10])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: the samples have collapsed: they differ by less than a tenth")
    assert "what real images do" in line


def test_real_images_are_collected_from_several_batches(capsys):
    """The first 50; the rest may be anything. Before there are 50, nothing is said."""
    watch = watch_of(*[(NOISE[i : i + 10],) for i in range(0, N_REAL - 10, 10)])
    watch.see_samples(0 * NOISE)
    assert n_collapses(capsys) == 0
    watch.see_real((NOISE[N_REAL - 10 :],))
    watch.see_real((0 * NOISE,))
    watch.see_samples(0.11 * NOISE)
    assert n_collapses(capsys) == 0
    watch.see_samples(0.09 * NOISE)
    assert n_collapses(capsys) == 1


def test_the_last_images_of_a_batch_are_the_real_ones(capsys):
    """Of inputs and targets, the targets; texts and labels are no images."""
    labels = np.arange(60)
    watch = watch_of((0 * NOISE, NOISE, labels))
    watch.see_samples(0.09 * NOISE)
    assert n_collapses(capsys) == 1


def test_without_real_images_nothing_is_said(capsys):
    watch = watch_of((np.zeros((60, 7)), np.arange(60)))
    watch.see_samples(0 * NOISE)
    watch_of().see_samples(0 * NOISE)
    assert n_collapses(capsys) == 0


def test_images_of_another_size_are_compared_with_their_own(capsys):
    """A phase may train at twice the size, where distances are twice as large."""
    larger = NOISE.repeat(2, axis=2).repeat(2, axis=3)
    watch = watch_of((NOISE[:30],), (0.5 * larger,))
    watch.see_samples(0.06 * larger)  # 12 % of what these real images differ by
    assert n_collapses(capsys) == 0
    watch.see_samples(0.04 * larger)
    assert n_collapses(capsys) == 1


def test_rows_are_compared_with_the_first_row(capsys):
    watch = Watch()
    watch.see_rows([NOISE[:5], 0.2 * NOISE[:5], NOISE[5:10]])
    assert n_collapses(capsys) == 0
    watch.see_rows([NOISE[:5], NOISE[:5], 0.09 * NOISE[:5]])
    (line,) = capsys.readouterr().err.splitlines()
    assert "what their inputs do" in line


def test_a_single_image_has_not_collapsed(capsys):
    watch = watch_of((NOISE,))
    watch.see_samples(NOISE[:1])
    watch.see_rows([NOISE[:1], 0 * NOISE[:1]])
    assert n_collapses(capsys) == 0


def test_both_warnings_are_given(capsys):
    watch = watch_of((NOISE,))
    watch.see_samples(0 * NOISE)
    for _ in range(PATIENCE):
        watch.see_losses({"loss_D": 0.0})
    assert len(capsys.readouterr().err.splitlines()) == 2
