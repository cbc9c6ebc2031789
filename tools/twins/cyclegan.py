"""cyclegan.py's training step in PyTorch.

Every pass is computed on its own, where the script joins passes.
"""

from torch.nn import functional as F

from tools.twins import update


def layers(module, x):
    return module.layers(x)


def residual(module, x):
    return x + module.layers(x)


def upsample(module, x):
    return F.interpolate(x, scale_factor=2, mode="nearest")


FORWARD = {
    "Generator": layers,
    "PatchGAN": layers,
    "Residual": residual,
    "Upsample": upsample,
}


def discriminator_loss(discriminator, real, fake):
    on_real = ((discriminator(real) - 1) ** 2).mean()
    on_fake = (discriminator(fake.detach()) ** 2).mean()
    return 0.5 * on_real + 0.5 * on_fake


def train_step(
    networks, optimizers, real_A, real_B, pooled_A, pooled_B, *, lambdas, lambda_identity
):
    A_to_B, B_to_A, D_A, D_B = networks
    optimizer_G, optimizer_D = optimizers

    fake_B = A_to_B(real_A)
    fake_A = B_to_A(real_B)
    losses = {
        "loss_G_AB": ((D_B(fake_B) - 1) ** 2).mean(),
        "loss_G_BA": ((D_A(fake_A) - 1) ** 2).mean(),
        "loss_cycle_A": F.l1_loss(B_to_A(fake_B), real_A),
        "loss_cycle_B": F.l1_loss(A_to_B(fake_A), real_B),
    }
    loss = losses["loss_G_AB"] + losses["loss_G_BA"]
    loss = loss + lambdas[0] * losses["loss_cycle_A"] + lambdas[1] * losses["loss_cycle_B"]
    if lambda_identity > 0:
        losses["loss_identity_A"] = F.l1_loss(B_to_A(real_A), real_A)
        losses["loss_identity_B"] = F.l1_loss(A_to_B(real_B), real_B)
        loss = loss + lambdas[0] * lambda_identity * losses["loss_identity_A"]
        loss = loss + lambdas[1] * lambda_identity * losses["loss_identity_B"]
    update(optimizer_G, loss)

    losses["loss_D_A"] = discriminator_loss(D_A, real_A, pooled_A(fake_A))
    losses["loss_D_B"] = discriminator_loss(D_B, real_B, pooled_B(fake_B))
    update(optimizer_D, losses["loss_D_A"] + losses["loss_D_B"])
    return losses
