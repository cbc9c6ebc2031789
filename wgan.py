"""WGAN: a critic with clipped weights estimates the Wasserstein distance.

Arjovsky, Chintala and Bottou 2017, https://arxiv.org/abs/1701.07875

    python wgan.py                             # digits, 10 minutes on two CPU cores
    python wgan.py --paper --data_dir PHOTOS   # the authors' setting, own images
    python wgan.py --resume results/wgan --sample_only --n_samples 100
    python tools/explore.py results/wgan --walk interpolate

Method
    A generator G turns noise z ~ N(0, 1) into an image. A critic f gives an image x a
    score f(x) without bounds, which is high for real images. If the slope of f is at
    most K everywhere, the scores give a lower bound on K times the Wasserstein distance
    W between the data and the images of G, which the best such critic attains
    (Kantorovich and Rubinstein):

        K W = max over f of  E[f(x)] - E[f(G(z))]

    Every weight of f is kept in [-c, c] (--clip), which bounds the slope by some K. The
    critic and G are trained in turn, each on fresh noise (algorithm 1):

        wasserstein = E[f(x)] - E[f(G(z))]    the critic maximizes this estimate
        loss_G = -E[f(G(z))]                  G minimizes it

    The critic should be close to its optimum when G is updated. It is therefore updated
    --n_critic times for each update of G, and --n_critic_long times for each of the
    first 25 and for every 500th, as in the authors' code
    (github.com/martinarjovsky/WassersteinGAN). From there are also DCGAN's two
    networks, with batch norm in both, weights from N(0, 0.02^2), separate batches of
    real and generated images, clipping before each update of the critic, and RMSProp.

What to expect
    A step is one update of the critic. Digits appear after about 4,000 steps. At the
    end the FID in a digit classifier's features is 12.5, and 11.6 for the same training
    in PyTorch (docs/scripts/wgan.md). `wasserstein` rises while the critic learns, then
    falls as the images improve; losses.png shows it. It is in units of the unknown K,
    so it cannot be compared between two critics; wgan_gp.py fixes K at 1.

Differences from the paper (--paper undoes all of them)
    * 32 x 32 digits, at three eighths of the authors' width
    * ten times the authors' learning rate, half of their batch, and a quarter of their
      --n_critic_long, since a default run has few updates of G
"""

import common  # before jittor: finds oneDNN, the compiler and the GPU
from common.data import load_images

import math

import jittor as jt

from jittor_fast import nn  # jittor.nn on all CPU cores; `from jittor import nn` works too

# The defaults of the authors' code, main.py.
PAPER = {
    "n_epochs": 25,
    "batch_size": 64,
    "lr": 0.00005,
    "clip": 0.01,
    "n_critic": 5,
    "n_critic_long": 100,
    "img_size": 64,
    "channels": 3,
    "width": 64,
    "latent_dim": 100,
    "ema_decay": 0.0,
}


def parse_args(argv=None):
    # The parser itself offers --n_epochs, --batch_size, --lr, --resume and more.
    parser = common.Parser(__file__, __doc__, PAPER)
    parser.set_defaults(n_epochs=150, batch_size=32, lr=0.0005)
    parser.set_defaults(sample_interval=1000, checkpoint_interval=10)
    parser.add_sampling()

    # Architecture: stored with the weights; --resume takes it from the checkpoint.
    parser.add_architecture(
        "--img_size", type=int, default=32, choices=(16, 32, 64, 128), help="side of the images"
    )
    parser.add_architecture(
        "--channels", type=int, default=1, choices=(1, 3), help="1 for grey, 3 for RGB"
    )
    parser.add_architecture("--latent_dim", type=int, default=100, help="length of z")
    parser.add_architecture(
        "--width", type=int, default=24, at_most=1024, help="channels next to the image"
    )
    parser.add_architecture(
        "--ema_decay", type=float, default=0.0, below=1, help="EMA decay of G (0 disables it)"
    )

    # Training
    parser.add_argument(
        "--clip", type=float, default=0.01, above=0, help="largest absolute weight of the critic"
    )
    parser.add_argument(
        "--n_critic", type=int, default=5, help="updates of the critic for each update of G"
    )
    parser.add_argument(
        "--n_critic_long", type=int, default=25, help="the same for the first 25 and every 500th"
    )
    return parser.parse(argv)


# ---- networks ----


class Generator(nn.Module):
    """z (B, latent_dim)  ->  images (B, channels, img_size, img_size) in [-1, 1]."""

    def __init__(self, latent_dim, img_size, channels, width):
        super().__init__()
        n_blocks = int(math.log2(img_size)) - 3  # from 4 x 4 to half of the image's size
        c = width * 2**n_blocks

        layers = [  # (B, latent_dim, 1, 1) -> (B, c, 4, 4)
            nn.ConvTranspose(latent_dim, c, 4, bias=False),
            nn.BatchNorm(c),
            nn.ReLU(),
        ]
        for _ in range(n_blocks):  # (B, c, H, W) -> (B, c / 2, 2 H, 2 W)
            layers += [
                nn.ConvTranspose(c, c // 2, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm(c // 2),
                nn.ReLU(),
            ]
            c //= 2
        layers += [  # (B, width, img_size / 2, ...) -> (B, channels, img_size, img_size)
            nn.ConvTranspose(c, channels, 4, stride=2, padding=1, bias=False),
            nn.Tanh(),
        ]
        self.layers = nn.Sequential(*layers)

    def execute(self, z):
        return self.layers(z.reshape(len(z), -1, 1, 1))


class Critic(nn.Module):
    """images (B, channels, img_size, img_size)  ->  scores (B,), high for real ones."""

    def __init__(self, img_size, channels, width):
        super().__init__()
        c = width
        layers = [  # (B, channels, img_size, img_size) -> (B, width, img_size / 2, ...)
            nn.Conv(channels, c, 4, stride=2, padding=1, bias=False),
            nn.LeakyReLU(0.2),
        ]
        for _ in range(int(math.log2(img_size)) - 3):  # (B, c, H, W) -> (B, 2 c, H / 2, W / 2)
            layers += [
                nn.Conv(c, 2 * c, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm(2 * c),
                nn.LeakyReLU(0.2),
            ]
            c *= 2
        layers += [nn.Conv(c, 1, 4, bias=False)]  # (B, c, 4, 4) -> (B, 1, 1, 1)
        self.layers = nn.Sequential(*layers)

    def execute(self, images):
        return self.layers(images).reshape(-1)


def initialize(network):
    """Convolutions from N(0, 0.02^2), batch norm from N(1, 0.02^2) (authors' code)."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv, nn.ConvTranspose)):
            nn.init.gauss_(layer.weight, mean=0, std=0.02)
        elif isinstance(layer, nn.BatchNorm):
            nn.init.gauss_(layer.weight, mean=1, std=0.02)


def build(args):
    generator = Generator(args.latent_dim, args.img_size, args.channels, args.width)
    critic = Critic(args.img_size, args.channels, args.width)
    for network in (generator, critic):
        initialize(network)
        network.train()
    return generator, critic


# ---- losses and one training step ----


def wasserstein_estimate(real_scores, fake_scores):
    """E[f(x)] - E[f(G(z))] of scores (B,)."""
    common.check_same_shape(real_scores, fake_scores)
    return real_scores.mean() - fake_scores.mean()


def generator_loss(fake_scores):
    """-E[f(G(z))] of scores (B,)."""
    return -fake_scores.mean()


def clip_weights(critic, clip):
    """Brings all trained weights into [-clip, clip], those of batch norm included."""
    for name, parameter in critic.named_parameters():
        # Jittor counts batch norm's running statistics among the parameters.
        if name.endswith(("running_mean", "running_var")):
            continue
        parameter.update(parameter.clamp(-clip, clip))
        parameter.start_grad()  # detaches the weight from its value before clipping


def updates_generator(step, n_critic, n_critic_long):
    """Whether a step, counted from 1, updates G after the critic.

    G is updated when the critic has had n_critic updates since G's last one. It is
    n_critic_long for G's first 25 updates and for every 500th (numbers 500, 1,000, ...
    counted from 0), as in the authors' code, main.py.
    """
    # G's updates 0 to 24: the critic has a long round before each.
    if step <= 25 * n_critic_long:
        return step % n_critic_long == 0
    step -= 25 * n_critic_long

    # G's updates 25 to 499: short rounds.
    if step <= 475 * n_critic:
        return step % n_critic == 0
    step -= 475 * n_critic

    # After that, a long round and 499 short ones repeat.
    step = (step - 1) % (n_critic_long + 499 * n_critic) + 1
    if step < n_critic_long:
        return False
    return (step - n_critic_long) % n_critic == 0


def train_step(generator, critic, optimizer_G, optimizer_D, real, z_D, z_G, *, clip, update_G=True):
    """Updates the critic and, with `update_G`, then the generator.

    Args:
        real: images (B, C, H, W) in [-1, 1].
        z_D, z_G: noise (B, latent_dim) of the two updates; z_G is read with `update_G`
            only.
        clip: largest absolute weight of the critic.

    Returns:
        {"wasserstein"}, estimated before the update, and "loss_G" with `update_G`, as
        Jittor scalars.
    """
    # critic: real images against generated ones, in separate batches
    clip_weights(critic, clip)
    with jt.no_grad():
        fake = generator(z_D)
    wasserstein = wasserstein_estimate(critic(real), critic(fake))
    optimizer_D.step(-wasserstein)  # Jittor: computes the critic's gradients, and updates
    losses = {"wasserstein": wasserstein}

    # G: new images, which should get higher scores
    if update_G:
        fake = generator(z_G)
        loss_G = generator_loss(critic(fake))
        optimizer_G.step(loss_G)
        losses["loss_G"] = loss_G
    return losses


# ---- training ----


def train(run, args):
    data = load_images(args.data_dir, args.img_size, args.channels)
    generator, critic = build(args)
    averaged = common.EMA(generator, args.ema_decay)
    optimizer_G = nn.RMSprop(generator.parameters(), lr=args.lr)
    optimizer_D = nn.RMSprop(critic.parameters(), lr=args.lr)

    run.checkpoint(  # what checkpoint_last.npz holds
        generator=generator,
        critic=critic,
        averaged=averaged,
        optimizer_G=optimizer_G,
        optimizer_D=optimizer_D,
    )
    run.restore()  # from --resume or --init_from, if given

    fixed_z = run.fixed_noise("normal", 100, args.latent_dim)
    for _ in run.epochs():  # saves a checkpoint at --checkpoint_interval
        for real, *_ in run.batches(data):  # counts the steps; Ctrl-C saves and stops
            update_G = updates_generator(run.step, args.n_critic, args.n_critic_long)
            z_D = run.normal(args.batch_size, args.latent_dim)
            z_G = run.normal(args.batch_size, args.latent_dim) if update_G else None
            losses = train_step(
                generator,
                critic,
                optimizer_G,
                optimizer_D,
                real,
                z_D,
                z_G,
                clip=args.clip,
                update_G=update_G,
            )
            if update_G:
                averaged.update()
            run.log(losses)
            if run.every(args.sample_interval):
                run.save_grid(common.predict(averaged.module, fixed_z))
    write_samples(run, averaged.module, args)


# ---- samples ----


def write_samples(run, generator, args):
    """Writes result.png, and samples.npz if --n_samples asks for it."""
    fixed_z = run.fixed_noise("normal", 100, args.latent_dim)
    run.save_grid(common.predict(generator, fixed_z), to="result.png")
    if args.n_samples:
        z = run.fixed_noise("normal", args.n_samples, args.latent_dim)
        run.save_samples(common.predict(generator, z))


def generate(run, args):
    """Draws samples from a checkpoint."""
    generator, _ = build(args)
    averaged = common.EMA(generator, args.ema_decay)
    run.checkpoint(generator=generator, averaged=averaged)
    run.restore()
    write_samples(run, averaged.module, args)


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
