"""Texts as codes: an encoder of bytes, and the loss by which it learns together with an encoder of images."""

from common.data.captions import N_BYTES
from common.ema import in_chunks

import jittor as jt

from jittor_fast import nn


def unit(x):
    """(B, d) scaled to a mean square of 1, so that the product of two codes over d is their cosine."""
    return x / jt.sqrt((x**2).mean(dim=1, keepdims=True) + 1e-8)


class TextEncoder(nn.Module):
    """(B, L) bytes to (B, text_dim) codes: what five bytes, and then nine, say where they say it most.

    Args:
        text_dim: length of a code, whose mean square is 1.
        width: of a byte's vector; layers have twice as many channels.
    """

    def __init__(self, text_dim, width=64):
        super().__init__()
        self.embedding = nn.Embedding(N_BYTES, width)
        layers = [nn.Conv(width, 2 * width, (1, 5), padding=(0, 2)), nn.ReLU()]
        self.layers = nn.Sequential(
            *layers, nn.Conv(2 * width, 2 * width, (1, 5), padding=(0, 2)), nn.ReLU()
        )
        self.output = nn.Linear(2 * width, text_dim)

    def execute(self, texts):
        h = self.layers(
            self.embedding(texts).transpose(0, 2, 1).unsqueeze(2)
        )  # (B, 2 * width, 1, L)
        h *= (texts > 0).float32().unsqueeze(1).unsqueeze(1)  # what fills up counts for nothing
        return unit(self.output(h.max(dim=3).reshape(texts.shape[0], -1)))


class KnownCodes:
    """The codes of texts by an encoder that learns no more, computed once: a step looks them up.

    Called with (B, L) of these texts, a variable, it gives their (B, text_dim) codes; KeyError for any other text.

    Args:
        encoder: a TextEncoder.
        texts: all texts, (N, L) int32 of numpy.
    """

    def __init__(self, encoder, texts):
        self.codes, self.rows = (
            in_chunks(encoder, texts),
            {text.tobytes(): row for row, text in enumerate(texts)},
        )

    def __call__(self, texts):
        return jt.array(self.codes[[self.rows[text.tobytes()] for text in texts.numpy()]])


def matching_loss(images, texts):
    """The cross entropy of the right pairs in both directions, a scalar.

    A contrastive form of the joint embedding of Reed 2016 (https://arxiv.org/abs/1605.05395): each image is told from
    the others of the batch by its text, and each text by its image, with 10 times the cosine of two codes as a score.

    Args:
        images: (B, d) codes of any length.
        texts: (B, d) codes of the TextEncoder, in the same order.
    """
    b, d = texts.shape
    scores, right = 10 / d * jt.matmul(unit(images), texts.transpose(0, 1)), jt.arange(b)
    return (
        nn.cross_entropy_loss(scores, right) + nn.cross_entropy_loss(scores.transpose(0, 1), right)
    ) / 2


class Encoders(nn.Module):
    """A text and an image encoder that learn together; gives the `matching_loss` of (B, C, S, S) and (B, L) bytes.

    Attributes:
        text: the TextEncoder.
        image: of images in [-1, 1], to codes of any length.
    """

    def __init__(self, text_dim, channels, img_size, width=32):
        super().__init__()
        self.text = TextEncoder(text_dim)
        layers, c = [nn.Conv(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)], width
        while c < width * img_size // 8:
            layers += [nn.Conv(c, 2 * c, 4, stride=2, padding=1, bias=False), nn.BatchNorm(2 * c)]
            layers, c = [*layers, nn.LeakyReLU(0.2)], 2 * c
        self.image = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * c, text_dim))

    def execute(self, images, texts):
        return matching_loss(self.image(images), self.text(texts))
