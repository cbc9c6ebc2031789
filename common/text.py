"""Texts as codes: an encoder of texts as bytes, trained with an encoder of images."""

from common.data.captions import N_BYTES
from common.predict import predict

import math

import jittor as jt

from jittor_fast import nn

# ---- encoders ----


class TextEncoder(nn.Module):
    """Texts (B, L) as bytes  ->  codes (B, text_dim), each with a mean square of 1.

    Two convolutions, of five bytes each, see nine bytes around each position. The code
    is computed from the largest value of each channel over all positions.

    Args:
        text_dim: length of a code.
        width: length of the vector of a byte; the convolutions have twice as many
            channels.
    """

    def __init__(self, text_dim, width=64):
        super().__init__()
        self.embedding = nn.Embedding(N_BYTES, width)
        self.layers = nn.Sequential(  # (B, width, 1, L) -> (B, 2 width, 1, L)
            nn.Conv(width, 2 * width, (1, 5), padding=(0, 2)),
            nn.ReLU(),
            nn.Conv(2 * width, 2 * width, (1, 5), padding=(0, 2)),
            nn.ReLU(),
        )
        self.output = nn.Linear(2 * width, text_dim)

    def execute(self, texts):
        vectors = self.embedding(texts).transpose(0, 2, 1)  # (B, width, L)
        h = self.layers(vectors.unsqueeze(2))
        is_text = (texts > 0).float32().unsqueeze(1).unsqueeze(1)  # (B, 1, 1, L)
        h = h * is_text  # padding counts as 0, below which nothing is after ReLU
        return unit(self.output(h.max(dim=3).reshape(len(texts), -1)))


class ImageEncoder(nn.Module):
    """images (B, channels, img_size, img_size) in [-1, 1]  ->  codes (B, text_dim).

    Args:
        img_size: 8 or more, a power of 2.
        width: channels next to the image.
    """

    def __init__(self, text_dim, img_size, channels, width):
        super().__init__()
        c = width
        layers = [  # (B, channels, img_size, img_size) -> (B, width, img_size / 2, ...)
            nn.Conv(channels, c, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
        ]
        for _ in range(int(math.log2(img_size)) - 3):  # (B, c, H, W) -> (B, 2 c, H / 2, W / 2)
            layers += [
                nn.Conv(c, 2 * c, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm(2 * c),
                nn.LeakyReLU(0.2),
            ]
            c *= 2
        layers += [  # (B, c, 4, 4) -> (B, text_dim)
            nn.Flatten(),
            nn.Linear(16 * c, text_dim),
        ]
        self.layers = nn.Sequential(*layers)

    def execute(self, images):
        return self.layers(images)


class Encoders(nn.Module):
    """A text and an image encoder: images and texts (B, L)  ->  their `matching_loss`.

    Attributes:
        text: the TextEncoder.
        image: the ImageEncoder.
    """

    def __init__(self, text_dim, img_size, channels, width=32):
        super().__init__()
        self.text = TextEncoder(text_dim)
        self.image = ImageEncoder(text_dim, img_size, channels, width)

    def execute(self, images, texts):
        return matching_loss(self.image(images), self.text(texts))


# ---- how well codes of images and of texts match ----


def unit(x):
    """Scales (B, d) to a mean square of 1: x . y / d is then the cosine of x and y."""
    return x / jt.sqrt((x**2).mean(dim=1, keepdims=True) + 1e-8)


def matching_loss(images, texts):
    """The cross entropy of finding the partner of each image and of each text.

    It is a contrastive form of the joint embedding of Reed 2016
    (https://arxiv.org/abs/1605.05395). The score of an image and a text is 10 times the
    cosine of their codes. Each image has to find its text among those of the batch, and
    each text its image; the loss is the mean of both, a scalar.

    Args:
        images: codes (B, d) of an ImageEncoder.
        texts: codes (B, d) of a TextEncoder, in the same order.
    """
    n, dim = texts.shape
    scores = 10 / dim * jt.matmul(unit(images), texts.transpose(0, 1))  # (images, texts)
    partners = jt.arange(n)
    loss_of_images = nn.cross_entropy_loss(scores, partners)
    loss_of_texts = nn.cross_entropy_loss(scores.transpose(0, 1), partners)
    return (loss_of_images + loss_of_texts) / 2


# ---- codes of a trained encoder ----


class CachedCodes:
    """The codes of known texts, computed once by an encoder that is trained no further.

    Called with some of these texts (B, L), a Jittor variable, it returns their codes
    (B, text_dim). It raises KeyError for any other text.

    Args:
        encoder: a TextEncoder.
        texts: all texts, (N, L) int32 as numpy.
    """

    def __init__(self, encoder, texts):
        self.codes = predict(encoder, texts)
        self.index = {text.tobytes(): i for i, text in enumerate(texts)}

    def __call__(self, texts):
        chosen = [self.index[text.tobytes()] for text in texts.numpy()]
        return jt.array(self.codes[chosen])
