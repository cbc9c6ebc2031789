"""BEGAN: boundary equilibrium generative adversarial networks.

Berthelot, Schumm and Metz 2017, https://arxiv.org/abs/1703.10717

    python began.py                             # digits, 7 minutes on two CPU cores
    python began.py --paper --data_dir PHOTOS   # the paper's setting, own images
    python began.py --resume results/began --sample_only --n_samples 100
    python tools/explore.py results/began --walk real

Method
    The discriminator D is an autoencoder, and L(v) = E|v - D(v)| is its reconstruction
    error of images v. D is trained to reconstruct real images x well and generated ones
    badly, a generator G to make images that D reconstructs well. Each is updated on
    fresh noise z, uniform in [-1, 1] (section 3.4):

        L_D = L(x) - k L(G(z_D))
        L_G = L(G(z_G))
        k  <- k + lambda_k (gamma L(x) - L(G(z_G))),  kept in [0, 1], from k = 0

    k keeps the two in balance: in equilibrium L(G(z)) = gamma L(x). With a small gamma
    D attends to the real images, and G's images are clean but similar; with a large one
    they are more varied and rougher. The progress of a training shows in the measure M,
    which falls as it converges; the learning rate is halved when M stalls (sections
    3.4.1 and 4.1):

        M = L(x) + |gamma L(x) - L(G(z_G))|

    The networks are the paper's (section 3.5): 3 x 3 convolutions with ELU, two at each
    size. The encoder's channels n, 2n, 3n, ... grow with each subsampling; the decoder
    has n everywhere and doubles the size by nearest neighbours. Fully connected layers
    lead to the code h and from it. G has the architecture of D's decoder.
    --skip_connections, an option in the paper too, gives the decoder's first tensor to
    each of its sizes.

What to expect
    G draws clean digits, but mostly ones, sevens and nines, which are the easiest to
    reconstruct. Their FID in a digit classifier's features is therefore 62.0, and 65.7
    for the same training in PyTorch (docs/scripts/began.md). losses.png shows k and M
    (measure); at the end loss_G / loss_real is near gamma.

Differences from the paper (--paper undoes all of them)
    * 32 x 32 pixels, a sixteenth of the width, a quarter of the code
    * ten times the learning rate and 50 times lambda_k, since a default run has few
      updates
    * gamma is 0.95: with 0.5, a default run draws little but ones
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data import batch_mean, load_images

import math

import jittor as jt
import numpy as np

from jittor_fast import nn  # jittor.nn on all CPU cores; `from jittor import nn` works too

# Berthelot 2017, sections 3.4 and 4.1: gamma, lambda_k, batch, learning rates of 5e-5
# to 1e-4, Adam's usual betas, codes of 64 in most experiments, n = 128 at 128 x 128.
# 20 epochs of 360,000 faces are the 400,000 to 450,000 updates that an author names
# (in a comment at github.com/artcg/BEGAN). The paper does not say after how many
# updates M has stalled; 20,000 is ours.
PAPER = {
    "n_epochs": 20,
    "batch_size": 16,
    "lr": 0.0001,
    "b1": 0.9,
    "b2": 0.999,
    "img_size": 128,
    "channels": 3,
    "width": 128,
    "latent_dim": 64,
    "gamma": 0.5,
    "lambda_k": 0.001,
    "patience": 20000,
}
SMALLEST = 8  # height and width at the encoder's end, for every size of images


def parse_args(argv=None):
    # The parser itself offers --n_epochs, --batch_size, --lr, --resume and more.
    parser = common.Parser(__file__, __doc__, PAPER)
    parser.set_defaults(n_epochs=30, batch_size=16, lr=0.001, sample_interval=1000)
    parser.add_adam(b1=0.9, b2=0.999)
    parser.add_sampling()

    # Architecture: stored with the weights; --resume takes it from the checkpoint.
    parser.add_architecture(
        "--img_size", type=int, default=32, choices=(16, 32, 64, 128), help="side of the images"
    )
    parser.add_architecture(
        "--channels", type=int, default=1, choices=(1, 3), help="1 for grey, 3 for RGB"
    )
    parser.add_architecture("--latent_dim", type=int, default=16, help="length of z and of h")
    parser.add_architecture(
        "--width", type=int, default=8, at_most=1024, help="n, the channels next to the image"
    )
    parser.add_architecture(
        "--skip_connections",
        action="store_true",
        help="give the decoders' first tensor to each of their sizes",
    )

    # Training
    parser.add_argument(
        "--gamma",
        type=float,
        default=0.95,
        above=0,
        at_most=1,
        help="L(G(z)) / L(x) in equilibrium: the variety of the images",
    )
    parser.add_argument("--lambda_k", type=float, default=0.05, help="learning rate of k")
    parser.add_argument(
        "--patience",
        type=int,
        default=1000,
        help="updates in a mean of M; when the mean rises, the learning rate is halved",
    )
    return parser.parse(argv)


# ---- networks ----


class Decoder(nn.Module):
    """h (B, latent_dim)  ->  images (B, channels, img_size, img_size).

    Nothing bounds the images to [-1, 1]. This is the generator, and D's decoder.
    """

    def __init__(self, latent_dim, img_size, channels, width, skip_connections):
        super().__init__()
        self.width = width
        self.skip_connections = skip_connections
        n_doublings = int(math.log2(img_size // SMALLEST))

        self.project = nn.Linear(latent_dim, width * SMALLEST**2)
        self.sizes = nn.ModuleList()  # two convolutions at each size
        for i in range(n_doublings + 1):
            n_inputs = 2 * width if skip_connections and i > 0 else width
            self.sizes.append(
                nn.Sequential(
                    nn.Conv(n_inputs, width, 3, padding=1),
                    nn.ELU(),
                    nn.Conv(width, width, 3, padding=1),
                    nn.ELU(),
                )
            )
        self.image = nn.Conv(width, channels, 3, padding=1)
        self.doubled = nn.Upsample(2)

    def execute(self, h):
        first = self.project(h).reshape(len(h), self.width, SMALLEST, SMALLEST)
        x = self.sizes[0](first)
        for i in range(1, len(self.sizes)):  # (B, width, H, W) -> (B, width, 2 H, 2 W)
            x = self.doubled(x)
            if self.skip_connections:
                first = self.doubled(first)
                x = jt.concat([x, first], dim=1)
            x = self.sizes[i](x)
        return self.image(x)


class AutoEncoder(nn.Module):
    """images (B, channels, img_size, img_size)  ->  their reconstructions.

    The discriminator. Its code h has the shape (B, latent_dim).
    """

    def __init__(self, latent_dim, img_size, channels, width, skip_connections):
        super().__init__()
        c = width
        layers = [  # (B, channels, img_size, img_size) -> (B, width, img_size, img_size)
            nn.Conv(channels, c, 3, padding=1),
            nn.ELU(),
        ]
        for _ in range(int(math.log2(img_size // SMALLEST))):
            layers += [  # (B, c, H, W) -> (B, c + width, H / 2, W / 2)
                nn.Conv(c, c, 3, padding=1),
                nn.ELU(),
                nn.Conv(c, c, 3, padding=1),
                nn.ELU(),
                nn.Conv(c, c + width, 3, stride=2, padding=1),
                nn.ELU(),
            ]
            c += width
        layers += [  # (B, c, 8, 8) -> (B, latent_dim)
            nn.Conv(c, c, 3, padding=1),
            nn.ELU(),
            nn.Conv(c, c, 3, padding=1),
            nn.ELU(),
            nn.Flatten(),
            nn.Linear(c * SMALLEST**2, latent_dim),
        ]
        self.encoder = nn.Sequential(*layers)
        self.decoder = Decoder(latent_dim, img_size, channels, width, skip_connections)

    def execute(self, images):
        return self.decoder(self.encoder(images))


def initialize(network):
    """Xavier's uniform weights and biases of 0; the paper does not say."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv, nn.Linear)):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.constant_(layer.bias, 0)


def build(args):
    sizes = (args.latent_dim, args.img_size, args.channels, args.width, args.skip_connections)
    generator = Decoder(*sizes)
    discriminator = AutoEncoder(*sizes)
    for network in (generator, discriminator):
        initialize(network)
        network.train()
    return generator, discriminator


# ---- losses, the balance and one training step ----


def reconstruction_loss(images, reconstructions):
    """L(v) = E|v - D(v)|, the mean over images and pixels of equal shapes."""
    common.check_same_shape(images, reconstructions)
    return jt.abs(images - reconstructions).mean()


class Balance:
    """k, and how often the learning rate was halved.

    It is halved whenever the mean of M over `patience` updates is not below the
    previous mean.
    """

    def __init__(self, gamma, lambda_k, patience):
        self.gamma = gamma
        self.lambda_k = lambda_k
        self.patience = patience
        self.k = 0.0
        self.n_halvings = 0
        self.last_mean = math.inf
        self.total = 0.0  # of M since the last mean
        self.n_updates = 0

    def update(self, loss_real, loss_G):
        """Takes L(x) and L(G(z_G)) of the whole batch, floats; returns M."""
        error = self.gamma * loss_real - loss_G
        measure = loss_real + abs(error)
        self.k = min(max(self.k + self.lambda_k * error, 0.0), 1.0)

        self.total += measure
        self.n_updates += 1
        if self.n_updates >= self.patience:
            mean = self.total / self.n_updates
            if mean >= self.last_mean:
                self.n_halvings += 1
            self.last_mean = mean
            self.total = 0.0
            self.n_updates = 0
        return measure

    def state_dict(self):
        names = ("k", "n_halvings", "last_mean", "total", "n_updates")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state):
        if not 0 <= state["k"] <= 1 or state["n_halvings"] < 0:
            raise ValueError("k lies outside [0, 1], or a count is negative")
        for name in self.state_dict():
            setattr(self, name, state[name])


def train_step(generator, discriminator, optimizer_G, optimizer_D, real, z_D, z_G, *, k):
    """Updates D, then G.

    Args:
        real: images (B, C, H, W) in [-1, 1].
        z_D, z_G: noise (B, latent_dim) of the two updates.
        k: (1,) in [0, 1], the weight of generated images in D's loss.

    Returns:
        {"loss_real", "loss_fake", "loss_G"}: L(x), L(G(z_D)) and L(G(z_G)), as Jittor
        scalars.
    """
    # D: reconstruct real images well and generated ones badly
    with jt.no_grad():  # this update needs no gradient of G
        fake = generator(z_D)
    images = jt.concat([real, fake], dim=0)  # without batch norm, one pass equals two
    reconstructed = discriminator(images)
    loss_real = reconstruction_loss(real, reconstructed[: len(real)])
    loss_fake = reconstruction_loss(fake, reconstructed[len(real) :])
    optimizer_D.step(loss_real - k * loss_fake)  # Jittor: gradients of D, and the update

    # G: images that D reconstructs well
    fake = generator(z_G)
    loss_G = reconstruction_loss(fake, discriminator(fake))
    optimizer_G.step(loss_G)
    return {"loss_real": loss_real, "loss_fake": loss_fake, "loss_G": loss_G}


# ---- training ----


def train(run, args):
    data = load_images(args.data_dir, args.img_size, args.channels)
    generator, discriminator = build(args)
    optimizer_G = nn.Adam(generator.parameters(), lr=args.lr, betas=(args.b1, args.b2))
    optimizer_D = nn.Adam(discriminator.parameters(), lr=args.lr, betas=(args.b1, args.b2))
    balance = Balance(args.gamma, args.lambda_k, args.patience)

    run.checkpoint(  # what checkpoint_last.npz holds
        generator=generator,
        discriminator=discriminator,
        optimizer_G=optimizer_G,
        optimizer_D=optimizer_D,
        balance=balance,
    )
    run.restore()  # from --resume or --init_from, if given

    fixed_z = run.fixed_noise("uniform", 100, args.latent_dim)
    for _ in run.epochs():  # saves a checkpoint at --checkpoint_interval
        # A batch of digits also has labels (*_), which this method does not use.
        for real, *_ in run.batches(data):  # counts the steps; Ctrl-C saves and stops
            lr = args.lr / 2**balance.n_halvings
            optimizer_G.lr = lr
            optimizer_D.lr = lr
            z_D = run.noise("uniform", args.batch_size, args.latent_dim)
            z_G = run.noise("uniform", args.batch_size, args.latent_dim)
            # Not a float: Jittor would compile a k of 0 or 1 into its own kernel.
            k = jt.array(np.float32([balance.k]))
            losses = train_step(
                generator, discriminator, optimizer_G, optimizer_D, real, z_D, z_G, k=k
            )
            # Read at once: the next k and learning rate depend on these values.
            loss_real = batch_mean(losses["loss_real"]).item()
            loss_G = batch_mean(losses["loss_G"]).item()
            measure = balance.update(loss_real, loss_G)
            run.log({**losses, "k": k, "measure": jt.array(np.float32([measure]))})
            if run.every(args.sample_interval):
                run.save_grid(common.predict(generator, fixed_z))
    write_samples(run, generator, args)


# ---- samples ----


def write_samples(run, generator, args):
    """Writes result.png, and samples.npz if --n_samples asks for it."""
    fixed_z = run.fixed_noise("uniform", 100, args.latent_dim)
    run.save_grid(common.predict(generator, fixed_z), to="result.png")
    if args.n_samples:
        z = run.fixed_noise("uniform", args.n_samples, args.latent_dim)
        run.save_samples(common.predict(generator, z))


def generate(run, args):
    """Draws samples from a checkpoint."""
    generator, _ = build(args)
    run.checkpoint(generator=generator)
    run.restore()
    write_samples(run, generator, args)


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
