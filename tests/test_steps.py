"""One whole training step of each script against PyTorch: losses, gradients, updated weights."""

import copy

import jittor as jt
import numpy as np
import pytest
from twins import adam, assert_same_losses, assert_same_step, tensors, trained, twin_of, update, variables

import cgan_mnist
import dcgan
import vae
import wgan_gp
from common import fast

torch = pytest.importorskip("torch")
F = torch.nn.functional


@pytest.fixture(autouse=True)
def seeded():
    jt.set_global_seed(987654321)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def pixels(rng, *shape):
    return rng.uniform(-1, 1, shape).astype(np.float32)


def jittor_adam(module, betas=(0.5, 0.999)):
    return fast.Adam(module.parameters(), lr=0.01, betas=betas)


# ---- cgan_mnist ----


@pytest.mark.parametrize("loss", ["lsgan", "bce", "matching"])
def test_cgan_mnist(loss, rng):
    G, D = cgan_mnist.Generator(5, 10, 6, 1), cgan_mnist.Discriminator(10, 6, 1, dropout=0.0)
    G.train(), D.train()
    optimizer_G, optimizer_D = jittor_adam(G), jittor_adam(D)
    G2 = twin_of(G, lambda m, z, y: m.layers(torch.cat([z, m.label_embedding(y)], 1)).view(-1, 1, 6, 6))
    D2 = twin_of(D, lambda m, x, y: m.layers(torch.cat([x.flatten(1), m.label_embedding(y)], 1)))
    real, z = pixels(rng, 8, 1, 6, 6), normal(rng, 8, 5)
    labels, wanted, wrong = (rng.integers(10, size=8).astype(np.int32) for _ in range(3))

    def criterion(scores, target):
        if loss == "bce":
            return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, target))
        return ((scores - target) ** 2).mean()

    x, z_, y, w, no = tensors(real, z, labels, wanted, wrong)
    adam_G, adam_D = adam(G2, optimizer_G), adam(D2, optimizer_D)
    fake = G2(z_, w)
    loss_G = criterion(D2(fake, w), 1.0)
    update(adam_G, loss_G)
    fakes = criterion(D2(fake.detach(), w), 0.0)
    if loss == "matching":
        fakes = (fakes + criterion(D2(x, no), 0.0)) / 2
    loss_D = (criterion(D2(x, y), 1.0) + fakes) / 2
    update(adam_D, loss_D)

    wrong_labels = jt.array(wrong) if loss == "matching" else None
    got = cgan_mnist.train_step(
        G, D, optimizer_G, optimizer_D, *variables(real, labels, z, wanted), wrong_labels, loss
    )
    assert_same_losses(got, loss_G=loss_G, loss_D=loss_D)
    assert_same_step(G, G2, optimizer_G)
    assert_same_step(D, D2, optimizer_D)


# ---- dcgan ----


def conv_pair(module, size):
    """The twins of a generator from noise and of a discriminator without labels."""
    generator, discriminator = module
    return (
        twin_of(generator, lambda m, z: m.layers(z.view(len(z), -1, 1, 1))),
        twin_of(discriminator, lambda m, x: m.layers(x).view(-1)),
    )


@pytest.mark.parametrize("loss", ["bce", "lsgan", "hinge"])
@pytest.mark.parametrize("arch", ["conv", "mlp"])
def test_dcgan(arch, loss, rng):
    flags = ["--arch", arch, "--img_size", "16", "--latent_dim", "6", "--width", "4", "--channels", "3"]
    G, D = dcgan.build(dcgan.parse_args(flags))
    optimizer_G, optimizer_D = jittor_adam(G), jittor_adam(D)
    if arch == "conv":
        G2, D2 = conv_pair((G, D), 16)
    else:
        G2 = twin_of(G, lambda m, z: m.layers(z).view(-1, 3, 16, 16))
        D2 = twin_of(D, lambda m, x: m.layers(x.flatten(1)).view(-1))
    real, z = pixels(rng, 8, 3, 16, 16), normal(rng, 8, 6)

    def one_sided(scores, is_real):
        if loss == "bce":
            return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, float(is_real)))
        if loss == "lsgan":
            return 0.5 * F.mse_loss(scores, torch.full_like(scores, float(is_real)))
        return F.relu(1 - scores if is_real else 1 + scores).mean()

    adam_G, adam_D = adam(G2, optimizer_G), adam(D2, optimizer_D)
    x, z_ = tensors(real, z)
    fake = G2(z_)
    loss_D = one_sided(D2(x), True) + one_sided(D2(fake.detach()), False)
    update(adam_D, loss_D)
    scores = D2(fake)
    loss_G = -scores.mean() if loss == "hinge" else one_sided(scores, True) * (2 if loss == "lsgan" else 1)
    update(adam_G, loss_G)

    got = dcgan.train_step(G, D, optimizer_G, optimizer_D, *variables(real, z), loss)
    assert_same_losses(got, loss_D=loss_D, loss_G=loss_G)
    assert_same_step(D, D2, optimizer_D)
    assert_same_step(G, G2, optimizer_G)


# ---- wgan_gp ----


def torch_penalty(critic, between):
    """As in Gulrajani 2017, algorithm 1, lines 6 and 7; x^ is a leaf here."""
    between = between.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return ((gradient.flatten(1).norm(dim=1) - 1) ** 2).mean()


@pytest.mark.parametrize("constraint", ["gp", "clip"])
def test_wgan_gp(constraint, rng):
    flags = ["--constraint", constraint, "--img_size", "16", "--latent_dim", "6", "--width", "4", "--lr", "0.01"]
    args = wgan_gp.parse_args([*flags, "--clip_value", "0.05"])
    G, D = wgan_gp.build(args)
    optimizer_G, optimizer_D = wgan_gp.build_optimizers(args, G, D)
    G2, D2 = conv_pair((G, D), 16)
    if constraint == "gp":
        updates_G, updates_D = adam(G2, optimizer_G), adam(D2, optimizer_D)
    else:  # Jittor's RMSprop has the decay 0.99 of PyTorch's, and its eps inside no root either
        updates_G, updates_D = (torch.optim.RMSprop(m.parameters(), lr=0.01, alpha=0.99) for m in (G2, D2))
    real, z, alpha = pixels(rng, 8, 1, 16, 16), normal(rng, 8, 6), rng.random((8, 1, 1, 1), dtype=np.float32)

    x, z_, a = tensors(real, z, alpha)
    fake = G2(z_)
    wasserstein = D2(x).mean() - D2(fake.detach()).mean()
    penalty = torch_penalty(D2, a * x + (1 - a) * fake)
    update(updates_D, -wasserstein + 10 * penalty if constraint == "gp" else -wasserstein)
    if constraint == "clip":
        for parameter in D2.parameters():
            parameter.data.clamp_(-0.05, 0.05)
    update(updates_G, -D2(fake).mean())

    clip_value = 0.05 if constraint == "clip" else None
    got = wgan_gp.train_step(G, D, optimizer_G, optimizer_D, *variables(real, z, alpha), True, clip_value)
    expected = {"wasserstein": wasserstein} | ({"penalty": penalty} if constraint == "gp" else {})
    assert_same_losses(got, **expected)
    assert_same_step(G, G2, optimizer_G)
    assert_same_step(D, D2, optimizer_D)


def test_second_derivative_of_the_penalty(rng):
    """The penalty's gradient for the critic's weights, which goes through the gradient for its inputs."""
    critic = wgan_gp.Critic(16, 3, 4)
    twin = twin_of(critic, lambda m, x: m.layers(x).view(-1))
    real, fake, alpha = pixels(rng, 6, 3, 16, 16), pixels(rng, 6, 3, 16, 16), rng.random((6, 1, 1, 1), dtype=np.float32)
    penalty = wgan_gp.gradient_penalty(critic, *variables(real, fake, alpha))
    x, y, a = tensors(real, fake, alpha)
    expected = torch_penalty(twin, a * x + (1 - a) * y)
    assert np.isclose(penalty.item(), expected.item(), rtol=1e-4)
    expected.backward()
    parameters = trained(critic)
    for name, gradient in zip(parameters, jt.grad(penalty, list(parameters.values()))):
        want = dict(twin.named_parameters())[name].grad
        want = np.zeros(gradient.shape) if want is None else want.numpy()
        assert np.allclose(gradient.numpy(), want, rtol=1e-4, atol=1e-4 * np.abs(want).max() + 1e-8), name


# ---- vae ----


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("model", ["vae", "ae"])
def test_vae(model, likelihood, rng):
    flags = ["--model", model, "--likelihood", likelihood, "--latent_dim", "3", "--hidden", "7", "--img_size", "8"]
    args = vae.parse_args(flags)
    encoder, decoder = vae.build(args)
    optimizer = fast.Adam([*encoder.parameters(), *decoder.parameters()], lr=0.01, betas=(0.9, 0.999))

    def encode(m, x):
        h = m.layers(x)
        return m.mu(h), m.logvar(h)

    encoder2 = twin_of(encoder, encode)
    decoder2 = twin_of(decoder, lambda m, z: m.layers(m.project(z).view(-1, 64, 2, 2)))
    both = torch.nn.ModuleList([encoder2, decoder2])
    x, noise = rng.random((6, 1, 8, 8), dtype=np.float32), normal(rng, 6, 3)
    if likelihood == "bernoulli":
        x = (x > 0.5).astype(np.float32)

    x_, noise_ = tensors(x, noise)
    mu, logvar = encoder2(x_)
    posterior = torch.distributions.Normal(mu, torch.exp(logvar / 2))
    output = decoder2(mu if model == "ae" else mu + posterior.stddev * noise_)
    p = torch.distributions.Bernoulli(logits=output) if likelihood == "bernoulli" else torch.distributions.Normal(
        output, 1.0
    )
    reconstruction = p.log_prob(x_).sum((1, 2, 3)).mean()
    prior = torch.distributions.Normal(torch.zeros_like(mu), 1.0)
    kl = torch.distributions.kl_divergence(posterior, prior).sum(1).mean()
    updates = adam(both, optimizer)
    update(updates, -reconstruction if model == "ae" else 0.7 * kl - reconstruction)

    got = vae.train_step(encoder, decoder, optimizer, *variables(x, noise), 0.7, likelihood, model)
    expected = {"reconstruction": reconstruction}
    if model == "vae":
        expected |= {"kl": kl, "elbo": reconstruction - kl}
    assert_same_losses(got, **expected)
    assert_same_step(encoder, encoder2, optimizer)
    assert_same_step(decoder, decoder2, optimizer)


# ---- what is written out twice on purpose ----


def test_dcgan_and_wgan_gp_have_the_same_generator(rng):
    flags = ["--img_size", "16", "--latent_dim", "6", "--width", "4"]
    one, _ = dcgan.build(dcgan.parse_args(flags))
    other, _ = wgan_gp.build(wgan_gp.parse_args(flags))
    other.load_state_dict(copy.deepcopy({name: value.numpy() for name, value in one.state_dict().items()}))
    z = normal(rng, 4, 6)
    assert np.array_equal(dcgan.sample(one, z), wgan_gp.sample(other, z))
