"""common/text.py: encoders against PyTorch, the matching loss by hand, the cache."""

import common
from common.data.captions import encode
from common.text import CachedCodes, Encoders, ImageEncoder, TextEncoder, matching_loss

import jittor as jt
import numpy as np
import pytest

TEXTS = ["a thin red one on black", "一个红色的粗三", "x"]


# ---- encoders ----


def test_text_encoder_equals_pytorch():
    torch = pytest.importorskip("torch")
    from tools.twins import Twin

    encoder = TextEncoder(8)
    twin = Twin("text2img").module(encoder)
    texts = encode(TEXTS)
    weights = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)

    codes = encoder(jt.array(texts))
    expected = twin(torch.tensor(texts))
    assert np.allclose(codes.numpy(), expected.detach().numpy(), rtol=1e-4, atol=1e-5)

    parameters = dict(encoder.named_parameters())
    grads = jt.grad((codes * weights).sum(), list(parameters.values()))
    (expected * torch.tensor(weights)).sum().backward()
    of_twin = dict(twin.named_parameters())
    for name, grad in zip(parameters, grads):
        wanted = of_twin[name].grad.numpy()
        tolerance = 1e-4 * np.abs(wanted).max()
        assert np.allclose(grad.numpy(), wanted, rtol=1e-4, atol=tolerance), name


def test_codes_have_a_mean_square_of_one():
    codes = common.predict(TextEncoder(8), encode(TEXTS))
    assert np.allclose((codes**2).mean(1), 1, atol=1e-4)


def test_padding_and_capitals_do_not_change_a_code():
    encoder = TextEncoder(8)
    texts = [*TEXTS, "A thin red ONE on black", "a thin red one on black."]
    together = common.predict(encoder, encode(texts))
    for text, code in zip(texts, together):  # alone, a shorter text has fewer zeros
        assert np.allclose(common.predict(encoder, encode([text]))[0], code, atol=1e-5)
    assert np.allclose(together[0], together[3], atol=1e-5)
    assert not np.allclose(together[0], together[4], atol=1e-3)  # the last byte counts


@pytest.mark.parametrize(("img_size", "n_halvings"), [(8, 1), (16, 2), (64, 4)])
def test_image_encoder_halves_the_image_to_4_x_4(img_size, n_halvings):
    encoder = ImageEncoder(7, img_size, 3, width=2)
    convolutions = [layer for layer in encoder.modules() if isinstance(layer, jt.nn.Conv)]
    assert [layer.stride for layer in convolutions] == [(2, 2)] * n_halvings
    assert encoder(jt.zeros((2, 3, img_size, img_size))).shape == [2, 7]


# ---- the matching loss ----


def test_matching_loss_by_hand():
    """Cosines 1 of partners and 0 of others: log(1 + 2 e^-10); all equal: log 3."""
    eye = jt.array(np.eye(3, dtype=np.float32) * np.sqrt(3))
    assert np.isclose(matching_loss(eye, eye).item(), np.log1p(2 * np.exp(-10)), rtol=1e-3)
    ones = jt.ones((3, 4))
    assert np.isclose(matching_loss(ones, ones).item(), np.log(3), rtol=1e-5)
    exchanged = eye[jt.array([1, 2, 0])]
    expected = np.log(np.exp(10) + 2)
    assert np.isclose(matching_loss(eye, exchanged).item(), expected, rtol=1e-4)


def test_matching_loss_has_both_directions():
    """One image fits both texts: finding its text and finding a text's image differ."""
    images = np.float32([[1, 1], [1, -1]])
    texts = np.float32([[1, 1], [1, 1]])
    scores = 10 * images @ texts.T / 2
    of_images = np.log(np.exp(scores).sum(1)) - scores.diagonal()
    of_texts = np.log(np.exp(scores).sum(0)) - scores.diagonal()
    assert of_images.mean() != of_texts.mean()
    loss = matching_loss(jt.array(images), jt.array(texts)).item()
    assert np.isclose(loss, (of_images.mean() + of_texts.mean()) / 2, rtol=1e-5)


def test_encoders_return_their_matching_loss():
    rng = np.random.default_rng(0)
    encoders = Encoders(8, 16, 1, width=2)
    images = jt.array(rng.uniform(-1, 1, (3, 1, 16, 16)).astype(np.float32))
    texts = jt.array(encode(TEXTS))
    expected = matching_loss(encoders.image(images), encoders.text(texts))
    assert np.isclose(encoders(images, texts).item(), expected.item(), rtol=1e-5)


# ---- the cache ----


def test_cached_codes_are_the_encoders():
    encoder = TextEncoder(8)
    texts = encode(TEXTS)
    expected = encoder(jt.array(texts)).numpy()
    codes = CachedCodes(encoder, texts)
    encoder.output.weight *= 2  # the codes stay as they are
    chosen = [2, 0, 2]
    assert np.allclose(codes(jt.array(texts[chosen])).numpy(), expected[chosen], atol=1e-6)
    with pytest.raises(KeyError):
        codes(jt.array(encode(["a text that was not there"])))
