"""The IDX reader against hand-made bytes, the choice of a source, the download."""

from common import UserError
from common.data import load_digits, mnist
from common.data.digits import IMAGES_MAGIC, LABELS_MAGIC, holds_idx, read_idx

import gzip
import hashlib
import struct

import numpy as np
import pytest
from conftest import idx_bytes, write_idx_folder

TWO_IMAGES = b"\x00\x00\x08\x03\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x03" + bytes(
    [1, 2, 3, 4, 5, 255]
)


ZIPPED = gzip.compress(
    TWO_IMAGES, mtime=0
)  # with the time, the tests' names would differ from second to second


@pytest.mark.parametrize("zipped", [False, True])
def test_hand_made_bytes(tmp_path, zipped):
    path = tmp_path / "images"  # whether it is gzipped is told by its content, not by its name
    path.write_bytes(ZIPPED if zipped else TWO_IMAGES)
    assert read_idx(path, IMAGES_MAGIC).tolist() == [[[1, 2, 3]], [[4, 5, 255]]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x00\x00\x08\x01" + TWO_IMAGES[4:], "magic number is 2049, not 2051"),
        (TWO_IMAGES[:-1], "fewer bytes"),
        (TWO_IMAGES + b"\x00", "more bytes"),
        (TWO_IMAGES[:9], "magic"),
        (b"", "magic"),
        (ZIPPED[:-9], "cannot be read|fewer bytes"),
        (ZIPPED[:-8] + bytes(8), "CRC check failed"),
        (b"\x00\x00\x08\x03" + b"\xff" * 12, "claims"),
    ],
)
def test_damaged_files(tmp_path, data, message):
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message) as error:
        read_idx(path, IMAGES_MAGIC)
    assert str(path) in str(error.value)


def test_gzip_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb"
    header = struct.pack(">4I", IMAGES_MAGIC, 1, 2, 2)
    path.write_bytes(gzip.compress(header + bytes(50_000_000)))
    with pytest.raises(UserError, match="more bytes"):
        read_idx(path, IMAGES_MAGIC)


def test_bundled_digits_are_500_of_each_and_class_cyclic():
    data = load_digits()
    assert data.images.shape == (5000, 1, 28, 28)
    assert data.labels.tolist() == list(range(10)) * 500
    # MNIST's digits have a mean of 0.1307 of white; a subset of 5,000 must be near it.
    assert abs(data.images.mean() / 255 - 0.1307) < 0.003


def test_bundled_train_and_test_parts_share_no_digit():
    train, test = load_digits(split="train", n_test=500), load_digits(split="test", n_test=500)
    assert (len(train), len(test)) == (4500, 500)
    assert np.bincount(test.labels).tolist() == [50] * 10
    digests = {hashlib.md5(image.tobytes()).digest() for image in train.images}
    assert not any(hashlib.md5(image.tobytes()).digest() in digests for image in test.images)


def test_values_and_resizing(tmp_path):
    images = np.zeros((20, 28, 28), np.uint8)
    images[1::2] = 255
    data = load_digits(
        write_idx_folder(tmp_path / "a b é", images, np.arange(20, dtype=np.uint8) % 10),
        img_size=32,
    )
    batch, labels = data.batch(np.array([0, 1]))
    assert batch.shape == (2, 1, 32, 32)
    assert batch.dtype == np.float32
    assert (batch[0].min(), batch[0].max(), batch[1].min(), batch[1].max()) == (-1, -1, 1, 1)
    assert labels.tolist() == [0, 1]
    assert labels.dtype == np.int32


def test_grey_digits_as_colour(idx_folder):
    grey, colour = (
        load_digits(idx_folder, channels=channels).batch(np.arange(40))[0] for channels in (1, 3)
    )
    assert colour.shape == (40, 3, 28, 28)
    assert (colour == grey).all()


def test_any_labels(tmp_path):
    folder = write_idx_folder(tmp_path, np.zeros((2, 2, 2), np.uint8), np.uint8([0, 255]))
    assert load_digits(folder, img_size=2, n_classes=None).labels.tolist() == [0, 255]


def test_a_picture_whose_name_has_idx_in_it_is_no_idx_file(tmp_path):
    (tmp_path / "idx_1.png").write_bytes(b"")
    assert not holds_idx(tmp_path)
    (tmp_path / "train-images.idx3-ubyte").write_bytes(b"")
    assert holds_idx(tmp_path)


def test_raw_files_and_own_test_part(tmp_path):
    folder = write_idx_folder(
        tmp_path, np.zeros((4, 2, 2), np.uint8), np.arange(4, dtype=np.uint8), gz=False
    )
    write_idx_folder(
        folder, np.zeros((2, 2, 2), np.uint8), np.zeros(2, np.uint8), split="t10k", gz=False
    )
    assert len(load_digits(folder, img_size=2, split="train", n_test=1)) == 4
    assert len(load_digits(folder, img_size=2, split="test", n_test=1)) == 2


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (
            lambda d: (d / "train-labels-idx1-ubyte.gz").unlink(),
            "expected train-images-idx3-ubyte .*; found: train-images-idx3-ubyte.gz$",
        ),
        (lambda d: [f.unlink() for f in d.iterdir()], "found: nothing"),
        (lambda d: [f.unlink() for f in d.iterdir()] + [d.rmdir()], "is not a folder"),
        (
            lambda d: write_idx_folder(d, np.zeros((3, 4, 4), np.uint8), np.zeros(4, np.uint8)),
            "3 images, but .* 4",
        ),
        (
            lambda d: write_idx_folder(d, np.zeros((2, 4, 4), np.uint8), np.full(2, 10, np.uint8)),
            "the label 10",
        ),
        (
            lambda d: write_idx_folder(d, np.zeros((0, 4, 4), np.uint8), np.zeros(0, np.uint8)),
            "no images",
        ),
    ],
)
def test_wrong_folders(idx_folder, prepare, message):
    prepare(idx_folder)
    with pytest.raises(UserError, match=message) as error:
        load_digits(idx_folder)
    assert str(idx_folder) in str(error.value)


def serve(monkeypatch, answers):
    """Replaces the network: `answers` maps a URL's beginning to bytes or an exception."""

    class Answer:
        status, headers = 200, {}

        def __init__(self, data):
            self.data = data

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def read(self, size):
            block, self.data = self.data[:size], self.data[size:]
            return block

    def urlopen(request, timeout, context):
        assert context.verify_mode.name == "CERT_REQUIRED"
        answer = answers[request.full_url]
        if isinstance(answer, Exception):
            raise answer
        return Answer(answer)

    monkeypatch.setattr(mnist.urllib.request, "urlopen", urlopen)


def test_download_takes_the_second_mirror_and_checks_md5(tmp_path, monkeypatch):
    data = b"some bytes"
    monkeypatch.setattr(mnist, "MNIST_FILES", {"a.gz": hashlib.md5(data).hexdigest()})
    first, second = (mirror + "a.gz" for mirror in mnist.MNIST_MIRRORS)
    serve(monkeypatch, {first: b"other bytes", second: data})
    mnist.download_mnist(tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["a.gz"]
    assert (tmp_path / "a.gz").read_bytes() == data


def test_failed_download_names_files_and_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "MNIST_FILES", {"a.gz": "0" * 32})
    serve(monkeypatch, {mirror + "a.gz": OSError("no route") for mirror in mnist.MNIST_MIRRORS})
    with pytest.raises(UserError, match=r"no route.*Put these files into .*a\.gz") as error:
        mnist.download_mnist(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_labels_magic_is_one_dimensional(tmp_path):
    (tmp_path / "labels").write_bytes(idx_bytes(np.array([7, 0, 9], np.uint8)))
    assert read_idx(tmp_path / "labels", LABELS_MAGIC).tolist() == [7, 0, 9]
