"""unit.py's training step in PyTorch.

Every pass is computed on its own, where the script joins passes.
"""

from torch.nn import functional as F

from tools.twins import update


def layers(module, x):
    return module.layers(x)


def residual(module, x):
    return x + module.layers(x)


def translate(module, images):
    code = module.shared_encoder(module.encoder_A(images))
    features = module.shared_decoder(code)
    return module.decoder_A(features), module.decoder_B(features)


FORWARD = {
    "Encoder": layers,
    "Decoder": layers,
    "Discriminator": layers,
    "Residual": residual,
    "VAEs": translate,
}


def bce(logits, target):
    return F.binary_cross_entropy_with_logits(logits, logits.new_full(logits.shape, target))


def discriminator_loss(discriminator, real, fake):
    return bce(discriminator(real), 1.0) + bce(discriminator(fake.detach()), 0.0)


def train_step(
    networks, optimizers, real_A, real_B, noise, cycle_noise, *, lambda_GAN, lambda_rec, lambda_KL
):
    vaes, D_A, D_B = networks
    optimizer_G, optimizer_D = optimizers
    n = len(real_A)

    mu_A = vaes.shared_encoder(vaes.encoder_A(real_A))
    mu_B = vaes.shared_encoder(vaes.encoder_B(real_B))
    features_A = vaes.shared_decoder(mu_A + noise[:n])
    features_B = vaes.shared_decoder(mu_B + noise[n:])
    fake_B = vaes.decoder_B(features_A)
    fake_A = vaes.decoder_A(features_B)

    losses = {
        "loss_D_A": discriminator_loss(D_A, real_A, fake_A),
        "loss_D_B": discriminator_loss(D_B, real_B, fake_B),
    }
    update(optimizer_D, lambda_GAN * (losses["loss_D_A"] + losses["loss_D_B"]))

    losses["loss_G_AB"] = bce(D_B(fake_B), 1.0)
    losses["loss_G_BA"] = bce(D_A(fake_A), 1.0)
    losses["loss_rec_A"] = F.l1_loss(vaes.decoder_A(features_A), real_A)
    losses["loss_rec_B"] = F.l1_loss(vaes.decoder_B(features_B), real_B)
    back_A = vaes.shared_encoder(vaes.encoder_B(fake_B))
    back_B = vaes.shared_encoder(vaes.encoder_A(fake_A))
    cycle_A = vaes.decoder_A(vaes.shared_decoder(back_A + cycle_noise[:n]))
    cycle_B = vaes.decoder_B(vaes.shared_decoder(back_B + cycle_noise[n:]))
    losses["loss_cycle_A"] = F.l1_loss(cycle_A, real_A)
    losses["loss_cycle_B"] = F.l1_loss(cycle_B, real_B)
    losses["loss_KL"] = mu_A.square().mean() + mu_B.square().mean()
    losses["loss_KL_cycle"] = back_A.square().mean() + back_B.square().mean()

    adversarial = losses["loss_G_AB"] + losses["loss_G_BA"]
    distances = losses["loss_rec_A"] + losses["loss_rec_B"]
    distances = distances + losses["loss_cycle_A"] + losses["loss_cycle_B"]
    divergences = losses["loss_KL"] + losses["loss_KL_cycle"]
    update(
        optimizer_G,
        lambda_GAN * adversarial + lambda_rec * distances + lambda_KL * divergences,
    )
    return losses
