"""What --arch and --upsample of the translators put in the place of their papers' layers."""

from jittor import nn

from common import fast


class Nearest(nn.Module):
    """(B, C, H, W) to (B, C, 2 H, 2 W): each pixel becomes four."""

    def execute(self, x):
        b, c, h, w = x.shape
        return x.reshape(b, c, h, 1, w, 1).broadcast([b, c, h, 2, w, 2]).reshape(b, c, 2 * h, 2 * w)


def doubled(upsample, c_in, c_out, size, bias=True):
    """Layers from (B, c_in, H, W) to (B, c_out, 2 H, 2 W).

    Args:
        upsample: "transpose" is a transposed convolution. Its kernels overlap unevenly, or with uneven weights, which
            can be seen as a checkerboard. "resize", nearest pixels and a convolution of 3 x 3, has none of it (Odena
            2016, https://distill.pub/2016/deconv-checkerboard).
        size: of the transposed convolution's kernels, 3 or 4.
    """
    if upsample == "resize":
        return [Nearest(), fast.Conv(c_in, c_out, 3, padding=1, bias=bias)]
    return [fast.ConvTranspose(c_in, c_out, size, stride=2, padding=1, output_padding=size % 2, bias=bias)]


class Residual(nn.Module):
    """x + f(x), with f two convolutions and noise between them; (B, C, H, W) both."""

    def __init__(self, channels, norm, noise, bias):
        super().__init__()
        layers = []
        for between in ([fast.ReLU(), noise()], []):
            conv = fast.Conv(channels, channels, 3, bias=bias)
            layers += [fast.ReflectionPad2d(1), conv, norm(channels), *between]
        self.layers = nn.Sequential(*layers)

    def execute(self, x):
        return x + self.layers(x)


class ResNet(nn.Module):
    """The generator of Johnson 2016 (https://arxiv.org/abs/1603.08155) and of CycleGAN, as pix2pix.py can take it.

    (B, c_in, H, W) to (B, c_out, H, W) in [-1, 1]; H and W are multiples of 4.

    Args:
        n_blocks: residual blocks; 6 up to 128 pixels and 9 above, in the authors' code.
        norm: a function of a number of channels that gives a layer.
        noise: a function that gives the layer within each block.
        upsample: of `doubled`.
        bias: whether convolutions that a norm follows have one.
    """

    def __init__(self, n_blocks, c_in, c_out, width, norm, noise, upsample, bias):
        super().__init__()
        layers, c = [fast.ReflectionPad2d(3), fast.Conv(c_in, width, 7, bias=bias), norm(width), fast.ReLU()], width
        for _ in range(2):  # (B, 2 width, H/2, W/2), then (B, 4 width, H/4, W/4)
            layers += [fast.Conv(c, 2 * c, 3, stride=2, padding=1, bias=bias), norm(2 * c), fast.ReLU()]
            c *= 2
        layers += [Residual(c, norm, noise, bias) for _ in range(n_blocks)]
        for _ in range(2):  # (B, 2 width, H/2, W/2), then (B, width, H, W)
            layers += [*doubled(upsample, c, c // 2, size=3, bias=bias), norm(c // 2), fast.ReLU()]
            c //= 2
        self.layers = nn.Sequential(*layers, fast.ReflectionPad2d(3), fast.Conv(width, c_out, 7), fast.Tanh())

    def execute(self, x):
        return self.layers(x)
