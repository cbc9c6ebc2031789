"""One whole training step of each script against PyTorch: losses, gradients, updated weights."""

import copy

import jittor as jt
import numpy as np
import pytest
from twins import adam, assert_same_losses, assert_same_step, tensors, trained, twin_of, unet_forward, update, variables

import cgan_mnist
import cyclegan
import dcgan
import pix2pix
import stargan
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


def jittor_adam(*modules):
    return fast.Adam([p for module in modules for p in module.parameters()], lr=0.01, betas=(0.5, 0.999))


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
    adam_G, adam_D = adam(optimizer_G, G2), adam(optimizer_D, D2)
    fake = G2(z_, w)
    loss_G = criterion(D2(fake, w), 1.0)
    update(adam_G, loss_G)
    fakes = criterion(D2(fake.detach(), w), 0.0)
    if loss == "matching":
        fakes = (fakes + criterion(D2(x, no), 0.0)) / 2
    loss_D = (criterion(D2(x, y), 1.0) + fakes) / 2
    update(adam_D, loss_D)

    wrong_labels = jt.array(wrong) if loss == "matching" else None
    got = cgan_mnist.train_step(G, D, optimizer_G, optimizer_D, *variables(real, labels, z, wanted), wrong_labels, loss)
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
    flags = ["--arch", arch, "--img_size", "16", "--latent_dim", "4", "--n_codes", "2", "--width", "4"]
    G, D = dcgan.build(dcgan.parse_args([*flags, "--channels", "3"]))
    optimizer_G, optimizer_D = jittor_adam(G), jittor_adam(D)
    if arch == "conv":
        G2, D2 = conv_pair((G, D), 16)
    else:
        G2 = twin_of(G, lambda m, z: m.layers(z).view(-1, 3, 16, 16))
        D2 = twin_of(D, lambda m, x: m.layers(x.flatten(1)).view(-1))
    real, z = pixels(rng, 8, 3, 16, 16), normal(rng, 8, 6)
    noise_real, noise_fake = 0.3 * normal(rng, 2, 8, 3, 16, 16)

    def one_sided(scores, is_real):
        if loss == "bce":
            return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, float(is_real)))
        if loss == "lsgan":
            return 0.5 * F.mse_loss(scores, torch.full_like(scores, float(is_real)))
        return F.relu(1 - scores if is_real else 1 + scores).mean()

    adam_G, adam_D = adam(optimizer_G, G2), adam(optimizer_D, D2)
    x, z_, noise_x, noise_y = tensors(real, z, noise_real, noise_fake)
    fake = G2(z_) + noise_y
    loss_D = one_sided(D2(x + noise_x), True) + one_sided(D2(fake.detach()), False)
    update(adam_D, loss_D)
    scores = D2(fake)
    loss_G = -scores.mean() if loss == "hinge" else one_sided(scores, True) * (2 if loss == "lsgan" else 1)
    update(adam_G, loss_G)

    got = dcgan.train_step(G, D, optimizer_G, optimizer_D, *variables(real, z, noise_real, noise_fake), loss)
    # Inside the hinge's margins the gradient of D's last bias is 0 but for rounding, and Adam's first step its sign.
    assert_same_losses(got, atol=1e-3 if loss == "hinge" else 1e-6, loss_D=loss_D, loss_G=loss_G)
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
    flags = ["--constraint", constraint, "--img_size", "16", "--latent_dim", "4", "--n_codes", "2", "--width", "4"]
    args = wgan_gp.parse_args([*flags, "--lr", "0.01", "--clip_value", "0.05"])
    G, D = wgan_gp.build(args)
    optimizer_G, optimizer_D = wgan_gp.build_optimizers(args, G, D)
    G2, D2 = conv_pair((G, D), 16)
    if constraint == "gp":
        updates_G, updates_D = adam(optimizer_G, G2), adam(optimizer_D, D2)
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
    x, noise = rng.random((6, 1, 8, 8), dtype=np.float32), normal(rng, 6, 3)
    if likelihood == "bernoulli":
        x = (x > 0.5).astype(np.float32)

    x_, noise_ = tensors(x, noise)
    mu, logvar = encoder2(x_)
    posterior = torch.distributions.Normal(mu, torch.exp(logvar / 2))
    output = decoder2(mu if model == "ae" else mu + posterior.stddev * noise_)
    p = (
        torch.distributions.Bernoulli(logits=output)
        if likelihood == "bernoulli"
        else torch.distributions.Normal(output, 1.0)
    )
    reconstruction = p.log_prob(x_).sum((1, 2, 3)).mean()
    prior = torch.distributions.Normal(torch.zeros_like(mu), 1.0)
    kl = torch.distributions.kl_divergence(posterior, prior).sum(1).mean()
    updates = adam(optimizer, encoder2, decoder2)
    update(updates, -reconstruction if model == "ae" else 0.7 * kl - reconstruction)

    got = vae.train_step(encoder, decoder, optimizer, *variables(x, noise), 0.7, likelihood, model)
    expected = {"reconstruction": reconstruction}
    if model == "vae":
        expected |= {"kl": kl, "elbo": reconstruction - kl}
    assert_same_losses(got, **expected)
    assert_same_step(encoder, encoder2, optimizer)
    assert_same_step(decoder, decoder2, optimizer)


# ---- the translators ----


@pytest.mark.parametrize("loss", ["lsgan", "bce"])
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_pix2pix(norm, loss, rng):
    flags = ["--img_size", "32", "--width", "4", "--dropout", "0", "--norm", norm]
    G, D = pix2pix.build(pix2pix.parse_args(flags))
    optimizer_G, optimizer_D = jittor_adam(G), jittor_adam(D)
    G2, D2 = twin_of(G, unet_forward), twin_of(D, lambda m, x, y: m.layers(torch.cat([x, y], 1)))
    inputs, targets = pixels(rng, 3, 3, 32, 32), pixels(rng, 3, 3, 32, 32)

    def criterion(scores, target):
        expected = torch.full_like(scores, target)
        return F.mse_loss(scores, expected) if loss == "lsgan" else F.binary_cross_entropy_with_logits(scores, expected)

    x, y = tensors(inputs, targets)
    adam_G, adam_D = adam(optimizer_G, G2), adam(optimizer_D, D2)
    fake = G2(x)
    loss_D = 0.5 * (criterion(D2(x, y), 1.0) + criterion(D2(x, fake.detach()), 0.0))
    update(adam_D, loss_D)
    loss_G, loss_L1 = criterion(D2(x, fake), 1.0), F.l1_loss(fake, y)
    update(adam_G, loss_G + 100 * loss_L1)

    got = pix2pix.train_step(G, D, optimizer_G, optimizer_D, *variables(inputs, targets), loss, 100.0)
    assert_same_losses(got, loss_G=loss_G, loss_D=loss_D, loss_L1=loss_L1)
    assert_same_step(D, D2, optimizer_D)
    assert_same_step(G, G2, optimizer_G)


@pytest.mark.parametrize("identity", [0.5, 0.0])
def test_cyclegan(identity, rng):
    """The twin takes every image and every pass by itself; the script joins passes."""
    args = cyclegan.parse_args(["--img_size", "32", "--width", "4", "--n_blocks", "1", "--channels", "3"])
    networks = G, H, D_A, D_B = cyclegan.build(args)
    optimizer_G, optimizer_D = jittor_adam(G, H), jittor_adam(D_A, D_B)
    G2, H2, A2, B2 = (twin_of(module, lambda m, x: m.layers(x)) for module in networks)
    real_A, real_B, old_A, old_B = (pixels(rng, 2, 3, 32, 32) for _ in range(4))

    adam_G, adam_D = adam(optimizer_G, G2, H2), adam(optimizer_D, A2, B2)
    a, b, old_a, old_b = tensors(real_A, real_B, old_A, old_B)
    fake_b, fake_a = G2(a), H2(b)
    loss_G = ((B2(fake_b) - 1) ** 2).mean() + ((A2(fake_a) - 1) ** 2).mean()
    loss_cycle = F.l1_loss(H2(fake_b), a) + F.l1_loss(G2(fake_a), b)
    loss_identity = F.l1_loss(G2(b), b) + F.l1_loss(H2(a), a) if identity else torch.zeros(())
    update(adam_G, loss_G + 10 * loss_cycle + 10 * identity * loss_identity)
    loss_D = sum(
        0.5 * ((D2(x) - 1) ** 2).mean() + 0.5 * (D2(old) ** 2).mean() for D2, x, old in ((A2, a, old_a), (B2, b, old_b))
    )
    update(adam_D, loss_D)

    recall_A, recall_B = (lambda fake, old=old: jt.array(old) for old in (old_A, old_B))
    got = cyclegan.train_step(
        networks, optimizer_G, optimizer_D, *variables(real_A, real_B), recall_A, recall_B, 10.0, identity
    )
    assert_same_losses(got, loss_G=loss_G, loss_D=loss_D, loss_cycle=loss_cycle, loss_identity=loss_identity)
    for module, twin, optimizer in zip(networks, (G2, H2, A2, B2), [optimizer_G] * 2 + [optimizer_D] * 2):
        assert_same_step(module, twin, optimizer)


@pytest.mark.parametrize("identity", [10.0, 0.0])
def test_stargan(identity, rng):
    args = stargan.parse_args(["--img_size", "32", "--width", "4", "--n_blocks", "1"])
    args.selected_attrs = ["red", "green", "bold"]
    G, D = stargan.build(args)
    optimizer_G, optimizer_D = jittor_adam(G), jittor_adam(D)
    G2 = twin_of(G, lambda m, x, c: m.layers(torch.cat([x, c[:, :, None, None].expand(-1, -1, *x.shape[2:])], 1)))
    D2 = twin_of(D, lambda m, x: (m.realism(m.layers(x)), m.attributes(m.layers(x)).flatten(1)))
    real, alpha = pixels(rng, 4, 3, 32, 32), rng.random((4, 1, 1, 1), dtype=np.float32)
    labels, targets = (rng.integers(2, size=(4, 3)).astype(np.float32) for _ in range(2))

    def classify(logits, c):
        return F.binary_cross_entropy_with_logits(logits, c, reduction="sum") / len(c)

    adam_G, adam_D = adam(optimizer_G, G2), adam(optimizer_D, D2)
    x, have, want, a = tensors(real, labels, targets, alpha)
    fake = G2(x, want)
    wasserstein = D2(x)[0].mean() - D2(fake.detach())[0].mean()
    penalty = torch_penalty(lambda v: D2(v)[0].sum((1, 2, 3)), a * x + (1 - a) * fake)
    loss_D_cls = classify(D2(x)[1], have)
    update(adam_D, -wasserstein + 10 * penalty + loss_D_cls)
    scores, logits = D2(fake)
    loss_G_cls, loss_rec = classify(logits, want), F.l1_loss(G2(fake, have), x)
    loss_id = F.l1_loss(G2(x, have), x) if identity else torch.zeros(())
    update(adam_G, -scores.mean() + loss_G_cls + 10 * loss_rec + identity * loss_id)

    got = stargan.train_step(
        G, D, optimizer_G, optimizer_D, *variables(real, labels, targets, alpha), True, 1.0, 10.0, identity
    )
    assert_same_losses(got, wasserstein=wasserstein, penalty=penalty, loss_D_cls=loss_D_cls, loss_G_cls=loss_G_cls,
                       loss_rec=loss_rec, loss_id=loss_id)  # fmt: skip
    assert_same_step(D, D2, optimizer_D)
    assert_same_step(G, G2, optimizer_G)


# ---- what is written out twice on purpose ----


def test_dcgan_and_wgan_gp_have_the_same_generator(rng):
    flags = ["--img_size", "16", "--latent_dim", "4", "--n_codes", "2", "--width", "4"]
    one, _ = dcgan.build(dcgan.parse_args(flags))
    other, _ = wgan_gp.build(wgan_gp.parse_args(flags))
    other.load_state_dict(copy.deepcopy({name: value.numpy() for name, value in one.state_dict().items()}))
    z = normal(rng, 4, 6)
    assert np.array_equal(dcgan.sample(one, z), wgan_gp.sample(other, z))


@pytest.mark.parametrize("epoch", [1, 99, 100, 101, 150, 200])
def test_the_learning_rate_falls_alike(epoch):
    """Constant for 100 epochs, then linear to zero over 100 more (Zhu 2017, section 7.1)."""
    expected = 0.0002 if epoch <= 100 else 0.0002 * (201 - epoch) / 101
    for script in (pix2pix, cyclegan, stargan):
        assert np.isclose(script.learning_rate(epoch, 0.0002, 200, 100), expected)


def test_wgan_gp_and_stargan_have_the_same_penalty(rng):
    critic = wgan_gp.Critic(16, 3, 4)
    real, fake, alpha = pixels(rng, 6, 3, 16, 16), pixels(rng, 6, 3, 16, 16), rng.random((6, 1, 1, 1), dtype=np.float32)
    one, other = (s.gradient_penalty(critic, *variables(real, fake, alpha)).item() for s in (wgan_gp, stargan))
    assert one == other
