"""Networks that a translator has with a flag alone: --upsample and --arch of generators."""

from jittor_fast import nn


def doubled(upsample, c_in, c_out, size, bias=True):
    """Layers from (B, c_in, H, W) to (B, c_out, 2 H, 2 W).

    Args:
        upsample: "transpose" is a transposed convolution. Its kernels overlap unevenly, or with uneven weights, which
            can be seen as a checkerboard. "resize", nearest pixels and a convolution of 3 x 3, has none of it (Odena
            2016, https://distill.pub/2016/deconv-checkerboard).
        size: of the transposed convolution's kernels, 3 or 4.
    """
    if upsample == "resize":
        return [nn.Upsample(2), nn.Conv(c_in, c_out, 3, padding=1, bias=bias)]
    return [
        nn.ConvTranspose(c_in, c_out, size, stride=2, padding=1, output_padding=size % 2, bias=bias)
    ]


class Residual(nn.Module):
    """x + f(x), with f two convolutions and noise between them; (B, C, H, W) both."""

    def __init__(self, channels, norm, noise):
        super().__init__()
        layers = []
        for between in ([nn.ReLU(), noise()], []):
            conv = nn.Conv(channels, channels, 3, bias=False)
            layers += [nn.ReflectionPad2d(1), conv, norm(channels), *between]
        self.layers = nn.Sequential(*layers)

    def execute(self, x):
        return x + self.layers(x)


class ResNet(nn.Module):
    """The generator of Johnson 2016 (https://arxiv.org/abs/1603.08155) and of CycleGAN, as pix2pix.py can take it.

    (B, c_in, H, W) to (B, c_out, H, W) in [-1, 1]; H and W are multiples of 4.

    Args:
        n_blocks: residual blocks; 6 up to 128 pixels and 9 above, in the authors' code.
        norm: a function of a number of channels that gives a layer with a shift, so that the convolution before it
            has no bias.
        noise: a function that gives the layer within each block.
        upsample: of `doubled`.
    """

    def __init__(self, n_blocks, c_in, c_out, width, norm, noise, upsample):
        super().__init__()
        layers, c = (
            [nn.ReflectionPad2d(3), nn.Conv(c_in, width, 7, bias=False), norm(width), nn.ReLU()],
            width,
        )
        for _ in range(2):  # (B, 2 width, H/2, W/2), then (B, 4 width, H/4, W/4)
            layers += [
                nn.Conv(c, 2 * c, 3, stride=2, padding=1, bias=False),
                norm(2 * c),
                nn.ReLU(),
            ]
            c *= 2
        layers += [Residual(c, norm, noise) for _ in range(n_blocks)]
        for _ in range(2):  # (B, 2 width, H/2, W/2), then (B, width, H, W)
            layers += [*doubled(upsample, c, c // 2, size=3, bias=False), norm(c // 2), nn.ReLU()]
            c //= 2
        self.layers = nn.Sequential(
            *layers, nn.ReflectionPad2d(3), nn.Conv(width, c_out, 7), nn.Tanh()
        )

    def execute(self, x):
        return self.layers(x)
