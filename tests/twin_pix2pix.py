"""Trains the PyTorch twin of a pix2pix.py run equally, and compares the validation; a command, not a test.

    python pix2pix.py --data_dir facades --direction BtoA --img_size 128 --batch_size 1 --n_epochs 10
    python tests/twin_pix2pix.py results/pix2pix

The twin has the run's arguments, its initial weights, and the same batches with the same crops and mirroring; the
dropout's random numbers are its own. Both validation distances are printed, epoch by epoch.
"""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import common  # isort: skip

import jittor as jt
from twins import adam, tensors, twin_of, unet_forward, update

import pix2pix
from common import fast
from common.pairs import load_pairs
from common.run import mixed_seed


def criterion(scores, target, loss):
    expected = torch.full_like(scores, target)
    if loss == "lsgan":
        return torch.nn.functional.mse_loss(scores, expected)
    return torch.nn.functional.binary_cross_entropy_with_logits(scores, expected)


def train_step(G, D, adam_G, adam_D, x, y, args):
    fake = G(x)
    update(adam_D, 0.5 * (criterion(D(x, y), 1.0, args.loss) + criterion(D(x, fake.detach()), 0.0, args.loss)))
    update(adam_G, criterion(D(x, fake), 1.0, args.loss) + args.lambda_L1 * (fake - y).abs().mean())


def validate(G, data):
    """The mean of |G(x) - y| over all validation pairs, dropout on."""
    G.eval()
    for layer in G.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.train()
    distances = []
    with torch.no_grad():
        for i in range(len(data)):
            x, y = tensors(*data.batch([i]))
            distances.append((G(x) - y).abs().mean().item())
    G.train()
    return float(np.mean(distances))


def networks(args):
    """The twins of the networks that the run began with, and their optimizers."""
    jt.set_global_seed(mixed_seed(args.seed, 0))
    generator, discriminator = pix2pix.build(args)
    adams = [fast.Adam(m.parameters(), lr=args.lr, betas=(args.b1, args.b2)) for m in (generator, discriminator)]
    G = twin_of(generator, unet_forward)
    D = twin_of(discriminator, lambda m, x, y: m.layers(torch.cat([x, y], 1)))
    return G, D, adam(adams[0], G), adam(adams[1], D)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a finished run of pix2pix.py")
    run = parser.parse_args().run
    args = pix2pix.parse_args(["--resume", str(run), "--sample_only"])
    with open(run / "validation.csv", newline="") as file:
        ours = [float(row["val_L1"]) for row in csv.DictReader(file)]
    kind = (args.img_size, args.channels, args.direction)
    batches = common.Batches(load_pairs(args.data_dir, *kind, augment=not args.no_augment), args.batch_size, args.seed)
    validation = load_pairs(args.data_dir, *kind, split="val")
    torch.manual_seed(args.seed)
    G, D, adam_G, adam_D = networks(args)
    print("epoch  val_L1 of the run  of the twin  run / twin")
    for epoch, mine in enumerate(ours, start=1):
        for optimizer in (adam_G, adam_D):
            rate = pix2pix.learning_rate(epoch, args.lr, args.n_epochs, args.decay_epoch)
            optimizer.param_groups[0]["lr"] = rate
        for inputs, targets in batches:
            train_step(G, D, adam_G, adam_D, *tensors(inputs, targets), args)
        theirs = validate(G, validation)
        print(f"{epoch:5d}  {mine:17.4f}  {theirs:11.4f}  {mine / theirs:10.3f}", flush=True)


if __name__ == "__main__":
    main()
