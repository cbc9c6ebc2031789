"""Measures reconstructions and samples of vae.py and vaegan.py, for tools/evaluate.py.

Each test image is encoded as the mean of its code, and decoded; as many samples are
drawn from N(0, I).

L1, PSNR      of the reconstructions beside the images, for pixels in [0, 1]
sharpness     gradient energy (the mean squared difference of neighbouring pixels)
              over that of the images. Below 1, images are blurred.
read right    the share of images, and of reconstructions, in which a classifier reads
              the digit, or a trait of a built-in face, as it is labelled
certain       the share of digits that it reads with a probability over 0.9
"""

from common.data import load_images
from common.data.faces import read_faces
from common.data.folders import holds_digits
from common.data.layout import built_in
from common.images import to_uint8

import numpy as np

from tools.judges import digit_classifier, face_classifier, metrics
from tools.judges.translations import classifier_row, for_classifier
from tools.runs import open_run

SURE = 0.9


def judge_vae(args):
    return judge("vae", args)


def judge_vaegan(args):
    return judge("vaegan", args)


def judge(name, args):
    """The table's rows (measure, value, of what) for the run `args.B` of a script.

    Raises:
        UserError: it is not a run of this script.
    """
    script, run_args, reader = open_run(args.B, name)
    networks = script.build(run_args)
    encoder, decoder, *_ = networks
    reader.load({"encoder": encoder, "decoder": decoder}, exact=False)
    for network in networks:
        network.eval()

    data = load_images(
        run_args.data_dir, run_args.img_size, run_args.channels, split="test", n_test=script.N_TEST
    )
    images, *labels = data.batch(np.arange(len(data)))
    rng = np.random.default_rng(5)
    z = np.float32(rng.standard_normal((len(images), run_args.latent_dim)))
    pictures = {
        "images": images,
        "reconstructions": script.decode(decoder, script.encode(encoder, images)),
        "samples": script.decode(decoder, z),
    }
    pictures = {of: to_uint8(values) for of, values in pictures.items()}
    rows = pixel_rows(pictures)
    if built_in(run_args.data_dir) == "faces":
        rows += face_rows(pictures, args.n_steps)
    elif holds_digits(run_args.data_dir) and run_args.channels == 1:
        rows += digit_rows(pictures, labels[0], args)
    return rows


def pixel_rows(pictures):
    """L1, PSNR and sharpness.

    Args:
        pictures: {"images", "reconstructions", "samples"}, each (N, S, S, C) uint8.
    """
    images = pictures["images"]
    reconstructed = pictures["reconstructions"]
    of = f"{len(images):,} test images"
    l1 = np.abs(images.astype(np.float64) - reconstructed).mean() / 255
    psnr = np.mean([metrics.psnr(a, b) for a, b in zip(images, reconstructed)])
    energy = {}
    for name, pixels in pictures.items():
        energy[name] = np.mean([metrics.gradient_energy(image) for image in pixels])
    return [
        ("reconstructions: L1", float(l1), of),
        ("reconstructions: PSNR", float(psnr), of),
        ("reconstructions: sharpness", float(energy["reconstructions"] / energy["images"]), of),
        (
            "samples: sharpness",
            float(energy["samples"] / energy["images"]),
            f"{len(pictures['samples']):,} samples",
        ),
    ]


def face_rows(pictures, n_steps):
    """The traits that are read in test faces and in their reconstructions."""
    classifier = face_classifier.of_faces(n_steps)
    labelled = face_classifier.traits(read_faces("test").attributes, threshold=0.5)
    rows = [classifier_row("classifier", classifier)]
    for name in ("images", "reconstructions"):
        is_right = read_by(classifier, pictures[name], channels=3) == labelled
        for trait, share in zip(face_classifier.TRAITS, is_right.mean(0)):
            rows.append((f"{name}: {trait} read right", float(share), f"{len(labelled):,}"))
    return rows


def digit_rows(pictures, labels, args):
    """What is read in test digits, in their reconstructions, and in samples."""
    classifier = digit_classifier.of_digits(args.mnist, args.n_steps)
    rows = [classifier_row("classifier", classifier)]
    for name, pixels in pictures.items():
        _, probabilities = read_by(classifier, pixels, channels=1)
        of = f"{len(pixels):,}"
        if name != "samples":
            is_right = probabilities.argmax(1) == labels
            rows.append((f"{name}: read right", float(is_right.mean()), of))
        rows.append((f"{name}: certain", float((probabilities.max(1) > SURE).mean()), of))
    return rows


def read_by(classifier, pixels, channels):
    """What a classifier returns for uint8 images (N, S, S, C)."""
    return classifier(for_classifier(pixels.transpose(0, 3, 1, 2), channels))
