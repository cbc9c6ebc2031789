"""cyclegan.py's training step in PyTorch; every image and every pass by itself, where the script joins passes."""

from torch.nn import functional as F

from tools.twins import update


def residual(m, x):
    return x + m.layers(x)


FORWARD = {
    "Generator": lambda m, x: m.layers(x),
    "PatchGAN": lambda m, x: m.layers(x),
    "Residual": residual,
    "Upsample": lambda m, x: F.interpolate(x, scale_factor=2, mode="nearest"),
}


def train_step(
    networks,
    optimizer_G,
    optimizer_D,
    real_A,
    real_B,
    recall_A,
    recall_B,
    lambda_cycle,
    lambda_identity,
):
    A_to_B, B_to_A, D_A, D_B = networks
    fake_B, fake_A = A_to_B(real_A), B_to_A(real_B)
    losses = {
        "loss_G_AB": ((D_B(fake_B) - 1) ** 2).mean(),
        "loss_G_BA": ((D_A(fake_A) - 1) ** 2).mean(),
        "loss_cycle_A": F.l1_loss(B_to_A(fake_B), real_A),
        "loss_cycle_B": F.l1_loss(A_to_B(fake_A), real_B),
    }
    loss = (
        losses["loss_G_AB"]
        + losses["loss_G_BA"]
        + lambda_cycle * (losses["loss_cycle_A"] + losses["loss_cycle_B"])
    )
    if lambda_identity > 0:
        losses["loss_identity_A"] = F.l1_loss(B_to_A(real_A), real_A)
        losses["loss_identity_B"] = F.l1_loss(A_to_B(real_B), real_B)
        loss = loss + lambda_cycle * lambda_identity * (
            losses["loss_identity_A"] + losses["loss_identity_B"]
        )
    update(optimizer_G, loss)

    for name, D, real, fake in (
        ("A", D_A, real_A, recall_A(fake_A)),
        ("B", D_B, real_B, recall_B(fake_B)),
    ):
        losses[f"loss_D_{name}"] = (
            0.5 * ((D(real) - 1) ** 2).mean() + 0.5 * (D(fake.detach()) ** 2).mean()
        )
    update(optimizer_D, losses["loss_D_A"] + losses["loss_D_B"])
    return losses
