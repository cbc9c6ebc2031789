"""UNIT: image translation through a common latent space, without pairs.

Liu, Breuel and Kautz 2017, https://arxiv.org/abs/1703.00848

    python unit.py                               # drawn digits, 9 minutes on two cores
    python unit.py --paper --data_dir DAY2NIGHT     # the authors' setting
    python unit.py --resume results/unit --sample_only \\
        --input my_photos --direction AtoB --out_dir painted
    python tools/explore.py results/unit --walk common

Method
    Two images that show the same thing in two domains should have the same code z. Each
    domain has a VAE: an encoder, E_A and E_B, that gives the mean of the code's
    distribution q(z|x) = N(E(x), I), and a decoder, G_A and G_B, that turns a code into
    an image. The last layers of both encoders are the same layers, and so are the first
    ones of both decoders (section 3, weight sharing). So a code of an image of A can be
    decoded into B: the translation is G_B(z) with z from q(z|a).

    Each domain has a discriminator that scores patches of images, 1 for real ones, 0
    for translations. With the domains exchanged for b, E_B, G_A and D_A, the loss of
    both VAEs, and that of D_B, are sums of

        reconstruction  lambda_rec E|G_A(z) - a| + lambda_KL KL(q(z|a) || p(z))
        adversarial     -lambda_GAN E[log D_B(G_B(z))]
        cycle           lambda_rec E|G_A(z') - a| + lambda_KL KL(q(z'|G_B(z)) || p(z))
        L_D             -lambda_GAN E[log D_B(b) + log(1 - D_B(G_B(z)))]

    where p(z) is N(0, I), and z' comes from q(z'|G_B(z)): the translation is encoded,
    and decoded back.

What to expect
    Without --data_dir, domain A holds white digits on black, domain B other digits in
    bold dark ink on light paper.

    Pictures show rows of A, its reconstruction, its translation to B, and that one's
    translation back to A; then the same for B, all of the test set and with z = E(x).
    loss_rec and loss_cycle fall together. A loss_D near 2 log 2 = 1.39 means that this
    discriminator guesses; near 0, that it has won.

Differences from the paper (--paper undoes the first two)
    * 32 x 32 pixels, half of the width, twice the learning rate, and batches of 4 for
      some epochs instead of 500,000 steps of 1
    * D has one layer more than the authors' for the same size, so that each score is
      for the whole image instead of half of it
    * always: D is updated on the translations of which G is updated next, and not on
      others with another noise.
    * always: the KL divergence is the mean of E(x)^2 over all elements of the code, as
      in the authors' code: their sum, halved, would be the divergence itself.

    The layers, weights and rates are those of the authors' branch version_02
    (github.com/mingyuliutw/UNIT, exps/unit/synthia2cityscape.yaml). Their branch master
    shares no layers; it is a later method.
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data import load_domains
from common.data.augment import augmentation

import jittor as jt
import numpy as np

from jittor_fast import nn  # jittor.nn on all CPU cores; `from jittor import nn` works too

# exps/unit/synthia2cityscape.yaml and src/trainers/ of the authors' branch version_02
PAPER = {
    "n_images": 500000,
    "batch_size": 1,
    "lr": 0.0001,
    "b1": 0.5,
    "b2": 0.999,
    "img_size": 256,
    "channels": 3,
    "width": 64,
    "n_blocks": 3,
    "n_shared": 1,
    "n_layers_D": 6,
    "lambda_GAN": 10.0,
    "lambda_rec": 100.0,
    "lambda_KL": 0.1,
}
WEIGHT_DECAY = 0.0001


def parse_args(argv=None):
    # The parser itself offers --n_epochs, --batch_size, --lr, --resume and more.
    parser = common.Parser(__file__, __doc__, PAPER)
    parser.set_defaults(n_epochs=4, batch_size=4, lr=0.0002)
    parser.set_defaults(sample_interval=200, log_interval=20, checkpoint_interval=1)
    parser.add_adam(b1=0.5, b2=0.999)
    parser.add_augmentation()
    parser.add_input()
    add_architecture(parser)

    parser.add_argument(
        "--data_dir_B", help="folder of domain B, if --data_dir holds domain A alone"
    )
    parser.add_argument(
        "--lambda_GAN", type=float, default=10.0, help="weight of the adversarial losses"
    )
    parser.add_argument(
        "--lambda_rec",
        type=float,
        default=100.0,
        help="weight of the distances of reconstructions and cycles",
    )
    parser.add_argument("--lambda_KL", type=float, default=0.1, help="weight of the KL divergences")
    parser.add_argument(
        "--direction",
        choices=("AtoB", "BtoA"),
        default="AtoB",
        stored=False,
        help="direction in which --input is translated",
    )
    args = parser.parse(argv)
    parser.shape_is_multiple_of(args, 4, at_least=32)
    parser.multiple_of(args, "tile", 4, at_least=32)
    if args.n_layers_D is None:
        args.n_layers_D = layers_for(min(args.shape))
    if min(args.shape) < 2**args.n_layers_D:
        parser.error(
            f"--n_layers_D {args.n_layers_D} halves {min(args.shape)} pixels to less than one; "
            f"at most {layers_for(min(args.shape)) + 1} fit"
        )
    return args


def layers_for(size):
    """The number of D's layers for images of this size: they leave 2 or 3 pixels."""
    return int(np.log2(size)) - 1


def add_architecture(parser):
    """The flags that are stored with the weights; --resume takes them from there."""
    parser.add_images(img_size=32, channels=1)
    parser.add_architecture(
        "--width", type=int, default=32, at_most=256, help="channels of the first layers"
    )
    parser.add_architecture(
        "--n_blocks",
        type=int,
        default=3,
        at_least=0,
        at_most=50,
        help="residual blocks of each encoder and of each decoder",
    )
    parser.add_architecture(
        "--n_shared",
        type=int,
        default=1,
        at_least=0,
        at_most=50,
        help="residual blocks that both encoders share, and that both decoders share",
    )
    parser.add_architecture(
        "--n_layers_D",
        type=int,
        at_least=1,
        at_most=10,
        help="layers of a discriminator, each of which halves the size (default: 4 for 32 "
        "pixels, one more for each doubling)",
    )


# ---- networks ----


class Residual(nn.Module):
    """x (B, C, H, W)  ->  x + f(x), where f consists of two convolutions."""

    def __init__(self, channels):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv(channels, channels, 3, padding=1),
            nn.InstanceNorm2d(channels, affine=False),
            nn.ReLU(),
            nn.Conv(channels, channels, 3, padding=1),
            nn.InstanceNorm2d(channels, affine=False),
        )

    def execute(self, x):
        return x + self.layers(x)


def residual_blocks(channels, n_blocks):
    blocks = [Residual(channels) for _ in range(n_blocks)]
    return nn.Sequential(*blocks)


class Encoder(nn.Module):
    """One domain's layers: images (B, channels, H, W)  ->  (B, 4 w, H / 4, W / 4)."""

    def __init__(self, channels, width, n_blocks):
        super().__init__()
        c = width
        layers = [  # (B, channels, H, W) -> (B, width, H, W)
            nn.Conv(channels, c, 7, padding=3),
            nn.LeakyReLU(0.01),
        ]
        for _ in range(2):  # (B, c, H, W) -> (B, 2 c, H / 2, W / 2)
            layers += [
                nn.Conv(c, 2 * c, 3, stride=2, padding=1),
                nn.InstanceNorm2d(2 * c, affine=False),
                nn.ReLU(),
            ]
            c *= 2
        layers += [residual_blocks(c, n_blocks)]
        self.layers = nn.Sequential(*layers)

    def execute(self, images):
        return self.layers(images)


class Decoder(nn.Module):
    """One domain's layers: (B, 4 w, H / 4, W / 4)  ->  images (B, channels, H, W).

    The images are in [-1, 1].
    """

    def __init__(self, channels, width, n_blocks):
        super().__init__()
        c = 4 * width
        layers = [residual_blocks(c, n_blocks)]
        for _ in range(2):  # (B, c, H, W) -> (B, c / 2, 2 H, 2 W)
            layers += [
                nn.ConvTranspose(c, c // 2, 3, stride=2, padding=1, output_padding=1),
                nn.InstanceNorm2d(c // 2, affine=False),
                nn.ReLU(),
            ]
            c //= 2
        layers += [  # (B, width, H, W) -> (B, channels, H, W)
            nn.Conv(c, channels, 1),
            nn.Tanh(),
        ]
        self.layers = nn.Sequential(*layers)

    def execute(self, features):
        return self.layers(features)


class VAEs(nn.Module):
    """The VAEs of both domains, which share their innermost layers.

    Images are (B, channels, H, W), with H and W multiples of 4; codes are
    (B, 4 width, H / 4, W / 4).
    """

    def __init__(self, channels, width, n_blocks, n_shared):
        super().__init__()
        self.encoder_A = Encoder(channels, width, n_blocks)
        self.encoder_B = Encoder(channels, width, n_blocks)
        self.shared_encoder = residual_blocks(4 * width, n_shared)
        self.shared_decoder = residual_blocks(4 * width, n_shared)
        self.decoder_A = Decoder(channels, width, n_blocks)
        self.decoder_B = Decoder(channels, width, n_blocks)

    def encode_A(self, images):
        """The means of q(z|a)."""
        return self.shared_encoder(self.encoder_A(images))

    def encode_B(self, images):
        """The means of q(z|b)."""
        return self.shared_encoder(self.encoder_B(images))

    def decode_A(self, codes):
        return self.decoder_A(self.shared_decoder(codes))

    def decode_B(self, codes):
        return self.decoder_B(self.shared_decoder(codes))

    def A_to_B(self, images):
        """Translations, with z = E(a)."""
        return self.decode_B(self.encode_A(images))

    def B_to_A(self, images):
        """Translations, with z = E(b)."""
        return self.decode_A(self.encode_B(images))

    def execute(self, images):
        """Images of A, reconstructed and translated: all layers but B's encoder."""
        codes = self.encode_A(images)
        return self.decode_A(codes), self.decode_B(codes)


class Discriminator(nn.Module):
    """images (B, channels, H, W)  ->  logits (B, 1, H / 2^n, W / 2^n), one a patch."""

    def __init__(self, channels, width, n_layers):
        super().__init__()
        c = width
        layers = [  # (B, channels, H, W) -> (B, width, H / 2, W / 2)
            nn.Conv(channels, c, 3, stride=2, padding=1),
            nn.LeakyReLU(0.01),
        ]
        for _ in range(n_layers - 1):  # (B, c, H, W) -> (B, 2 c, H / 2, W / 2)
            layers += [
                nn.Conv(c, 2 * c, 3, stride=2, padding=1),
                nn.LeakyReLU(0.01),
            ]
            c *= 2
        layers += [nn.Conv(c, 1, 1)]
        self.layers = nn.Sequential(*layers)

    def execute(self, images):
        return self.layers(images)


def initialize(network):
    """Weights from N(0, 0.02^2), as in the authors' code; biases stay as they are."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv, nn.ConvTranspose)):
            nn.init.gauss_(layer.weight, mean=0, std=0.02)


def build(args):
    """Both VAEs, and the discriminators of A and of B."""
    vaes = VAEs(args.channels, args.width, args.n_blocks, args.n_shared)
    D_A = Discriminator(args.channels, args.width, args.n_layers_D)
    D_B = Discriminator(args.channels, args.width, args.n_layers_D)
    for network in (vaes, D_A, D_B):
        initialize(network)
        network.train()
    return vaes, D_A, D_B


# ---- losses and one training step ----


def discriminator_loss(real_logits, fake_logits):
    """L_D of logits (B, 1, P, Q), without lambda_GAN.

    For a logit d, -log s(d) = softplus(-d) and -log(1 - s(d)) = softplus(d).
    """
    common.check_same_shape(real_logits, fake_logits)
    return nn.softplus(-real_logits).mean() + nn.softplus(fake_logits).mean()


def generator_loss(fake_logits):
    """The adversarial term of logits (B, 1, P, Q), without its weight."""
    return nn.softplus(-fake_logits).mean()


def kl_divergences(mu):
    """KL(N(mu, I) || N(0, I)) of A and of B, added up, but for a constant factor.

    Args:
        mu: (2 B, 4 width, H / 4, W / 4), of both domains. The term of a domain is the
            mean of its mu^2.
    """
    return 2 * (mu**2).mean()


def l1_distance(images, others):
    """The mean of |image - other| over all values of two batches (B, C, H, W)."""
    common.check_same_shape(images, others)
    return (images - others).abs().mean()


def halves(joint):
    """The first and the second half of a batch, (B, ...) each, of (2 B, ...)."""
    n = len(joint) // 2
    return joint[:n], joint[n:]


def decoded_into_both(vaes, real_A, real_B, noise):
    """Images of both domains, encoded and then decoded into both.

    The shared layers take A and B as one batch, A first, which is faster. Under
    instance norm images do not depend on each other.

    Args:
        noise: (2 B, 4 width, H / 4, W / 4), which is added to the codes' means.

    Returns:
        The means (2 B, 4 width, H / 4, W / 4), then images (B, C, H, W): those of A
        decoded into A and into B, and those of B decoded into B and into A.
    """
    features = jt.concat([vaes.encoder_A(real_A), vaes.encoder_B(real_B)], dim=0)
    mu = vaes.shared_encoder(features)
    features = vaes.shared_decoder(mu + noise)
    rec_A, fake_A = halves(vaes.decoder_A(features))
    fake_B, rec_B = halves(vaes.decoder_B(features))
    return mu, rec_A, fake_B, rec_B, fake_A


def decoded_back(vaes, fake_B, fake_A, noise):
    """Translations of A and of B, encoded and then decoded into A and into B again.

    Returns:
        The means (2 B, ...) of the codes, those of A's translations first, and two
        batches of images (B, C, H, W).
    """
    features = jt.concat([vaes.encoder_B(fake_B), vaes.encoder_A(fake_A)], dim=0)
    mu = vaes.shared_encoder(features)
    features_A, features_B = halves(vaes.shared_decoder(mu + noise))
    return mu, vaes.decoder_A(features_A), vaes.decoder_B(features_B)


def train_step(
    networks, optimizers, real_A, real_B, noise, cycle_noise, *, lambda_GAN, lambda_rec, lambda_KL
):
    """Updates both discriminators, then both VAEs.

    Args:
        networks: the VAEs, D_A and D_B.
        optimizers: of the VAEs, and of the discriminators.
        real_A, real_B: images (B, C, H, W) in [-1, 1].
        noise, cycle_noise: (2 B, 4 width, H / 4, W / 4) from N(0, 1), for the codes of
            A, then for those of B.

    Returns:
        {name: loss} as Jittor scalars, without their weights.
    """
    vaes, D_A, D_B = networks
    optimizer_G, optimizer_D = optimizers

    mu, rec_A, fake_B, rec_B, fake_A = decoded_into_both(vaes, real_A, real_B, noise)

    # D_A and D_B: real images against translations
    loss_D_A = discriminator_loss(D_A(real_A), D_A(fake_A.detach()))
    loss_D_B = discriminator_loss(D_B(real_B), D_B(fake_B.detach()))
    optimizer_D.step(lambda_GAN * (loss_D_A + loss_D_B))

    # both VAEs: reconstructions, cycles, and translations that D should take for real
    cycle_mu, cycle_A, cycle_B = decoded_back(vaes, fake_B, fake_A, cycle_noise)
    losses = {
        "loss_D_A": loss_D_A,
        "loss_D_B": loss_D_B,
        "loss_G_AB": generator_loss(D_B(fake_B)),
        "loss_G_BA": generator_loss(D_A(fake_A)),
        "loss_rec_A": l1_distance(rec_A, real_A),
        "loss_rec_B": l1_distance(rec_B, real_B),
        "loss_cycle_A": l1_distance(cycle_A, real_A),
        "loss_cycle_B": l1_distance(cycle_B, real_B),
        "loss_KL": kl_divergences(mu),
        "loss_KL_cycle": kl_divergences(cycle_mu),
    }
    loss = lambda_GAN * (losses["loss_G_AB"] + losses["loss_G_BA"])
    loss += lambda_rec * (losses["loss_rec_A"] + losses["loss_rec_B"])
    loss += lambda_rec * (losses["loss_cycle_A"] + losses["loss_cycle_B"])
    loss += lambda_KL * (losses["loss_KL"] + losses["loss_KL_cycle"])
    optimizer_G.step(loss)  # Jittor: computes the gradients of the VAEs, and updates them
    return losses


# ---- training ----


def code_noise(run, args):
    """(2 B, 4 width, H / 4, W / 4) from N(0, 1): for codes of A, then of B."""
    height, width = args.shape
    shape = (args.batch_size, 4 * args.width, height // 4, width // 4)
    of_A = run.normal(*shape)
    of_B = run.normal(*shape)
    return jt.concat([of_A, of_B], dim=0)


def train(run, args):
    fixed_A, fixed_B = fixed_images(args)
    data = load(args, "train", augment=augmentation(args))
    networks = build(args)
    vaes, D_A, D_B = networks
    adam = {"lr": args.lr, "betas": (args.b1, args.b2), "weight_decay": WEIGHT_DECAY}
    optimizer_G = nn.Adam(vaes.parameters(), **adam)
    optimizer_D = nn.Adam(D_A.parameters() + D_B.parameters(), **adam)
    optimizers = (optimizer_G, optimizer_D)

    run.checkpoint(  # what checkpoint_last.npz holds
        vaes=vaes,
        D_A=D_A,
        D_B=D_B,
        optimizer_G=optimizer_G,
        optimizer_D=optimizer_D,
    )
    run.restore()  # from --resume or --init_from, if given

    weights = {
        "lambda_GAN": args.lambda_GAN,
        "lambda_rec": args.lambda_rec,
        "lambda_KL": args.lambda_KL,
    }
    for _ in run.epochs():  # saves a checkpoint at --checkpoint_interval
        for real_A, real_B in run.batches(data):  # counts the steps; Ctrl-C saves and stops
            noise = code_noise(run, args)
            cycle_noise = code_noise(run, args)
            losses = train_step(networks, optimizers, real_A, real_B, noise, cycle_noise, **weights)
            run.log(losses)
            if run.every(args.sample_interval):
                write_rows(run, vaes, fixed_A, fixed_B)
    write_rows(run, vaes, fixed_A, fixed_B, to="result.png")


# ---- translations ----


def load(args, split, **options):
    return load_domains(args.data_dir, args.data_dir_B, args.shape, args.channels, split, **options)


def fixed_images(args):
    """The first images of A and of B in the test set, up to 10 each; (n, C, H, W)."""
    data = load(args, "test")
    domain_A, domain_B = data.domains
    indices = np.arange(min(10, len(domain_A), len(domain_B)))
    fixed_A, *_ = domain_A.batch(indices)
    fixed_B, *_ = domain_B.batch(indices)
    return fixed_A, fixed_B


def write_rows(run, vaes, real_A, real_B, to=None):
    """Writes rows of A, reconstructed, translated, translated back; then of B."""
    codes_A = common.predict(vaes.encode_A, real_A)
    rec_A = common.predict(vaes.decode_A, codes_A)
    fake_B = common.predict(vaes.decode_B, codes_A)
    cycle_A = common.predict(vaes.B_to_A, fake_B)
    codes_B = common.predict(vaes.encode_B, real_B)
    rec_B = common.predict(vaes.decode_B, codes_B)
    fake_A = common.predict(vaes.decode_A, codes_B)
    cycle_B = common.predict(vaes.A_to_B, fake_A)
    run.save_rows(real_A, rec_A, fake_B, cycle_A, real_B, rec_B, fake_A, cycle_B, to=to)


def generate(run, args):
    """Translates --input with a checkpoint, or else the test images of the pictures."""
    vaes, _, _ = build(args)
    run.checkpoint(vaes=vaes)
    run.restore()

    if args.input is None:
        fixed_A, fixed_B = fixed_images(args)
        write_rows(run, vaes, fixed_A, fixed_B, to="result.png")
        return

    network = vaes.A_to_B if args.direction == "AtoB" else vaes.B_to_A

    def translate(images):
        return common.predict(network, images)

    common.translate_folder(
        run, args.input, translate, args.shape, args.channels, multiple=4, tile=args.tile
    )


def main(argv=None):
    args = parse_args(argv)
    jt.flags.use_cuda = common.choose_device(args.device)  # 1 where a GPU works, else 0
    with common.Run(args) as run:  # seeds, the output folder, errors in one line
        if args.sample_only:
            generate(run, args)
        else:
            train(run, args)


if __name__ == "__main__":
    main()
