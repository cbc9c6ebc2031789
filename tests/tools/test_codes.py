"""tools/judge_codes.py and judge_texts.py: on right answers, on wrong ones, on untrained networks."""

from common import UserError, checkpoint
from common.data import captions
from common.networks import EMA

import math

import jittor as jt
import numpy as np
import pytest

import infogan
import text2img
from tools import evaluate, judge_codes, judge_texts
from tools.explore import slant


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def saved(script, folder, parts, args):
    folder.mkdir()
    meta = {"script": script.__name__, "args": args.stored, "step": 0, "epoch": 0, "losses": {}}
    checkpoint.save(folder / checkpoint.FILE_NAME, parts, meta)
    return str(folder)


def untrained_infogan(folder, *flags):
    args = infogan.parse_args(["--width", "2", "--img_size", "16", "--latent_dim", "6", *flags])
    return saved(
        infogan, folder, dict(zip(("generator", "discriminator"), infogan.build(args))), args
    )


def untrained_text2img(folder, *flags):
    args = text2img.parse_args(
        ["--width_G", "4", "--width_D", "4", "--img_size", "32", "--text_dim", "8", *flags]
    )
    parts = dict(
        zip(("generator", "discriminator", "text_encoder", "image_encoder"), text2img.build(args))
    )
    return saved(text2img, folder, parts | {"ema": EMA(parts["generator"], args.ema_decay)}, args)


# ---- codes ----


def test_meanings_by_hand():
    """Category 0 holds three 7s and a 1, category 2 two 5s; category 1 nothing."""
    found = judge_codes.meanings(np.array([0, 0, 0, 0, 2, 2]), np.array([7, 1, 7, 7, 5, 5]), 3)
    assert found.tolist() == [7, -1, 5]


def test_rank_correlation_by_hand():
    """Up, down, and 2 1 3: 1 - 6 * (1 + 1) / (3 * 8) = 0.5."""
    values = np.float32([[0.1, 5, 6], [3, 2, -1], [2, 1, 3]])
    assert np.allclose(judge_codes.rank_correlation(values), [1, -1, 0.5])


def leaning(code, size=24):
    """(N, 1, S, S): bars that lean as much as their code says."""
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    inside = (np.abs(columns + 0.2 * code[:, None, None] * rows) < 2) & (np.abs(rows) < 8)
    return (2.0 * inside - 1)[:, None].astype(np.float32)


def test_a_code_that_leans_the_digit(monkeypatch):
    """Four walks along the second code, from one end of the slant to the other; the first code keeps its value."""
    latents = (
        np.zeros((4, 3)),
        np.zeros(4, int),
        np.random.default_rng(0).uniform(-1, 1, (4, 2)).astype(np.float32),
    )
    seen = []

    def in_chunks(network, z, categories, continuous):
        seen.append(continuous)
        return leaning(continuous[:, 1])

    monkeypatch.setattr(judge_codes, "in_chunks", in_chunks)
    images = judge_codes.walks(None, latents, 1)
    assert np.array_equal(seen[0][:, 0].reshape(4, 9), np.tile(latents[2][:, :1], 9))
    deviations = {"thickness": 0.1, "slant": 0.2, "brightness": 0.1}
    rows = {name: (value, of) for name, value, of in judge_codes.walk_rows(1, images, deviations)}
    value, of = rows["code 2: slant"]
    assert value > 0.99
    ends = [slant(leaning(np.float32([code])))[0] for code in (-2, 2)]
    assert f"mean from {ends[0]:.3f} to {ends[1]:.3f}, always up; deviation of samples 0.200" in of


def test_judge_of_infogan(tmp_path, monkeypatch):
    run = untrained_infogan(tmp_path / "run")
    poor = evaluate.main(["infogan", run])
    assert poor["error"] > 0.5
    assert -0.5 < poor["information of the category"] < 0.2
    assert {
        f"code {i}: {name}" for i in (1, 2) for name in ("thickness", "slant", "brightness")
    } < set(poor)
    digits = judge_codes.image_sets.digits

    def known(discriminator, images):
        """Each digit in a category of its own: the digits run through the classes in turn."""
        return (digits("train", None, 16).labels[: len(images)] + 3) % 10

    monkeypatch.setattr(judge_codes, "best_categories", known)
    assert evaluate.main(["infogan", run])["error"] == 0
    assert poor["information of the category"] < math.log(10)


def test_colour_images_have_no_digits_to_name(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        evaluate.main(["infogan", untrained_infogan(tmp_path / "run", "--channels", "3")])
    assert stopped.value.code == 2
    assert "draws colour images" in capsys.readouterr().err


# ---- texts ----


def test_judge_of_text2img(tmp_path, monkeypatch):
    """Untrained, then with a generator that paints digits of the data as they are asked for."""
    run = untrained_text2img(tmp_path / "run")
    poor = evaluate.main(["text2img", run, "--n_steps", "60"])
    assert poor["all four"] < 0.1 and poor["variety"] < 0.1 and poor["retrieval"] < 0.5
    asked, real_chunks = captions.combinations(held_out=True), judge_texts.in_chunks
    pixels, labels = captions.drawn.bundled_digits("test")

    def in_chunks(network, *arrays):
        if len(arrays) == 1 or arrays[1].dtype != np.float32:
            return real_chunks(network, *arrays)
        looks = np.repeat(asked, len(arrays[0]) // len(asked), axis=0)
        chosen = [np.flatnonzero(labels == look[0])[i % 50] for i, look in enumerate(looks)]
        return captions.paint(pixels[chosen], looks[:, 1:], 32).astype(np.float32) / 127.5 - 1

    monkeypatch.setattr(judge_texts, "in_chunks", in_chunks)
    perfect = evaluate.main(["text2img", run, "--n_steps", "60"])
    assert perfect["the asked colour"] == perfect["the asked ground"] == 1
    assert perfect["the asked digit"] > 0.8 and perfect["the asked stroke"] > 0.9
    assert 0.8 < perfect["variety"] < 1.2


def test_one_s_own_data_is_judged_by_retrieval(tmp_path):
    from registry import captioned

    captioned(tmp_path / "data")
    run = untrained_text2img(
        tmp_path / "run", "--data_dir", str(tmp_path / "data"), "--channels", "1"
    )
    assert set(evaluate.main(["text2img", run])) == {"retrieval", "median rank"}


@pytest.mark.parametrize(
    ("n", "moved", "top", "rank"), [(50, 0, 1, 1), (50, 2.7, 0, 6), (230, 0, 1, 1)]
)
def test_retrieval_by_hand(n, moved, top, rank):
    """Captions around a circle, and images `moved` places on: nearer than the right one are the five next ones."""
    texts = [f"{i:03d}" for i in range(n)]

    class Data:
        def __init__(self):
            self.captions = [[text] for text in texts]

        def __len__(self):
            return n

        def batch(self, part):
            return (np.float32(part)[:, None] + moved,)

    def on_a_circle(places):
        angles = places * (2 * math.pi / n)
        return jt.concat([jt.cos(angles), jt.sin(angles)], dim=1)

    def read(texts):
        hundreds = (texts[:, :3] - ord("0")).float32() * jt.array(np.float32([100, 10, 1]))
        return on_a_circle(hundreds.sum(dim=1, keepdims=True))

    rows = {
        name: (value, of)
        for name, value, of in judge_texts.retrieval_rows(read, on_a_circle, Data())
    }
    assert (rows["retrieval"][0], rows["median rank"][0]) == (top, rank)
    assert (
        f"{n} images, each among {min(n, 100)} captions; chance {1 / min(n, 100):.3f}"
        in rows["retrieval"][1]
    )


def test_grey_digits_cannot_be_judged(tmp_path):
    args = evaluate.parse_args(
        ["text2img", untrained_text2img(tmp_path / "run", "--channels", "1")]
    )
    with pytest.raises(UserError, match="draws grey images"):
        judge_texts.judge_texts(args)
