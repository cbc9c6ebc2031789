"""The IDX reader against hand-made bytes, the choice of a source, the download."""

from common import UserError
from common.data import load_digits, mnist
from common.data.digits import IMAGES_MAGIC, LABELS_MAGIC, holds_idx, read_idx

import gzip
import hashlib
import socket
import struct
import threading

import numpy as np
import pytest
from conftest import idx_bytes, write_idx_folder

HEADER = b"\x00\x00\x08\x03\x00\x00\x00\x02\x00\x00\x00\x01\x00\x00\x00\x03"
TWO_IMAGES = HEADER + bytes([1, 2, 3, 4, 5, 255])

# gzip stores the time, with which the names of the tests would change every second.
GZIPPED = gzip.compress(TWO_IMAGES, mtime=0)


@pytest.fixture(autouse=True)
def no_full_mnist(tmp_path, monkeypatch):
    """Full MNIST on this machine would be used instead of the bundled digits."""
    monkeypatch.setattr(mnist, "mnist_folder", lambda: tmp_path / "mnist_data")


# ---- IDX files ----


@pytest.mark.parametrize("data", [TWO_IMAGES, GZIPPED])
def test_hand_made_bytes(tmp_path, data):
    """The content decides whether a file is gzipped, not its name."""
    path = tmp_path / "images"
    path.write_bytes(data)
    assert read_idx(path, IMAGES_MAGIC).tolist() == [[[1, 2, 3]], [[4, 5, 255]]]


def test_labels_have_one_dimension(tmp_path):
    (tmp_path / "labels").write_bytes(idx_bytes(np.array([7, 0, 9], np.uint8)))
    assert read_idx(tmp_path / "labels", LABELS_MAGIC).tolist() == [7, 0, 9]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x00\x00\x08\x01" + TWO_IMAGES[4:], "magic number is 2049, not 2051"),
        (TWO_IMAGES[:-1], "fewer bytes"),
        (TWO_IMAGES + b"\x00", "more bytes"),
        (TWO_IMAGES[:9], "magic"),
        (b"", "magic"),
        (GZIPPED[:-9], "cannot be read|fewer bytes"),
        (GZIPPED[:-8] + bytes(8), "CRC check failed"),
        (b"\x00\x00\x08\x03" + b"\xff" * 12, "claims"),
    ],
)
def test_damaged_files(tmp_path, data, message):
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(UserError, match=message) as error:
        read_idx(path, IMAGES_MAGIC)
    assert str(path) in str(error.value)


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb"
    header = struct.pack(">4I", IMAGES_MAGIC, 1, 2, 2)
    path.write_bytes(gzip.compress(header + bytes(50_000_000)))
    with pytest.raises(UserError, match="more bytes"):
        read_idx(path, IMAGES_MAGIC)


def test_a_picture_with_idx_in_its_name_is_not_an_idx_file(tmp_path):
    (tmp_path / "idx_1.png").write_bytes(b"")
    assert not holds_idx(tmp_path)
    (tmp_path / "train-images.idx3-ubyte").write_bytes(b"")
    assert holds_idx(tmp_path)


# ---- the bundled digits ----


def test_the_bundled_digits_run_through_the_classes():
    data = load_digits()
    assert data.images.shape == (5000, 1, 28, 28)
    assert data.labels.tolist() == list(range(10)) * 500
    # MNIST's digits have a mean of 0.1307 of white; a subset of 5,000 must be close.
    assert abs(data.images.mean() / 255 - 0.1307) < 0.003


def test_the_bundled_splits_share_no_digit():
    train = load_digits(split="train", n_test=500)
    test = load_digits(split="test", n_test=500)
    assert (len(train), len(test)) == (4500, 500)
    assert np.bincount(test.labels).tolist() == [50] * 10
    seen = {image.tobytes() for image in train.images}
    assert not any(image.tobytes() in seen for image in test.images)


def test_full_mnist_in_jittors_folder_comes_first(idx_folder, monkeypatch, capsys):
    names = {file.name: "" for file in idx_folder.iterdir()}
    monkeypatch.setattr(mnist, "MNIST_FILES", names)
    monkeypatch.setattr(mnist, "mnist_folder", lambda: idx_folder)
    assert len(load_digits()) == 40
    assert f"full MNIST in {idx_folder}" in capsys.readouterr().out


def test_digits_take_no_memory_before_they_are_used(idx_folder):
    """Before that, a run compares its networks with those of its checkpoint."""
    data = load_digits(idx_folder, img_size=14000)  # 7.8 GB
    assert len(data) == 40
    assert "images" not in vars(data)


def test_digits_have_a_largest_size(idx_folder):
    with pytest.raises(UserError, match=r"40 images of 15000 x 15000 would .* lower --img_size"):
        load_digits(idx_folder, img_size=15000)


# ---- a folder of the user ----


def test_values_and_resizing(tmp_path):
    images = np.zeros((20, 28, 28), np.uint8)
    images[1::2] = 255
    labels = np.arange(20, dtype=np.uint8) % 10
    folder = write_idx_folder(tmp_path / "a b é", images, labels)
    (black, white), labels = load_digits(folder, img_size=32).batch(np.array([0, 1]))
    assert black.shape == white.shape == (1, 32, 32)
    assert black.dtype == np.float32
    assert (black.min(), black.max()) == (-1, -1)
    assert (white.min(), white.max()) == (1, 1)
    assert labels.tolist() == [0, 1]
    assert labels.dtype == np.int32


def test_grey_digits_in_three_channels(idx_folder):
    grey, _ = load_digits(idx_folder, channels=1).batch(np.arange(40))
    colour, _ = load_digits(idx_folder, channels=3).batch(np.arange(40))
    assert colour.shape == (40, 3, 28, 28)
    assert (colour == grey).all()


def test_any_labels(tmp_path):
    folder = write_idx_folder(tmp_path, np.zeros((2, 2, 2), np.uint8), np.uint8([0, 255]))
    assert load_digits(folder, img_size=2, n_classes=None).labels.tolist() == [0, 255]


def test_raw_files_and_the_users_test_split(tmp_path):
    pixels = np.zeros((4, 2, 2), np.uint8)
    labels = np.arange(4, dtype=np.uint8)
    write_idx_folder(tmp_path, pixels, labels, split="train", gz=False)
    write_idx_folder(tmp_path, pixels[:2], labels[:2], split="t10k", gz=False)
    assert len(load_digits(tmp_path, img_size=2, split="train", n_test=1)) == 4
    assert len(load_digits(tmp_path, img_size=2, split="test", n_test=1)) == 2


# ---- errors ----


def without_labels(folder):
    (folder / "train-labels-idx1-ubyte.gz").unlink()


def empty(folder):
    for file in folder.iterdir():
        file.unlink()


def removed(folder):
    empty(folder)
    folder.rmdir()


def one_label_more(folder):
    write_idx_folder(folder, np.zeros((3, 4, 4), np.uint8), np.zeros(4, np.uint8))


def eleven_classes(folder):
    write_idx_folder(folder, np.zeros((2, 4, 4), np.uint8), np.full(2, 10, np.uint8))


def no_images(folder):
    write_idx_folder(folder, np.zeros((0, 4, 4), np.uint8), np.zeros(0, np.uint8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            without_labels,
            "expected train-images-idx3-ubyte .*; found: train-images-idx3-ubyte.gz$",
        ),
        (empty, "found: nothing"),
        (removed, "is not a folder"),
        (one_label_more, "3 images, but .* 4"),
        (eleven_classes, "the label 10"),
        (no_images, "no images"),
    ],
)
def test_wrong_folders(idx_folder, change, message):
    change(idx_folder)
    with pytest.raises(UserError, match=message) as error:
        load_digits(idx_folder)
    assert str(idx_folder) in str(error.value)


# ---- the download ----


class Answer:
    """A server's answer that does not know ranges."""

    status = 200
    headers = {}  # noqa: RUF012

    def __init__(self, data):
        self.data = data

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def read(self, size):
        block = self.data[:size]
        self.data = self.data[size:]
        return block


@pytest.fixture
def serve(monkeypatch):
    """A function that replaces the network.

    It takes {address: bytes, or an exception}.
    """

    def replace(answers):
        def urlopen(request, timeout, context):
            assert context.verify_mode.name == "CERT_REQUIRED"
            answer = answers[request.full_url]
            if isinstance(answer, Exception):
                raise answer
            return Answer(answer)

        monkeypatch.setattr(mnist.urllib.request, "urlopen", urlopen)

    return replace


def test_the_download_tries_the_second_mirror_and_checks_md5(tmp_path, monkeypatch, serve):
    data = b"some bytes"
    monkeypatch.setattr(mnist, "MNIST_FILES", {"a.gz": hashlib.md5(data).hexdigest()})
    first, second = mnist.MNIST_MIRRORS
    serve({f"{first}a.gz": b"other bytes", f"{second}a.gz": data})
    folder = tmp_path / "mnist"
    mnist.download_mnist(folder)
    assert [file.name for file in folder.iterdir()] == ["a.gz"]
    assert (folder / "a.gz").read_bytes() == data


def test_a_failed_download_names_files_and_folder(tmp_path, monkeypatch, serve):
    monkeypatch.setattr(mnist, "MNIST_FILES", {"a.gz": "0" * 32})
    serve({f"{mirror}a.gz": OSError("no route") for mirror in mnist.MNIST_MIRRORS})
    with pytest.raises(UserError, match=r"no route.*Put these files into .*a\.gz") as error:
        mnist.download_mnist(tmp_path)
    assert str(tmp_path) in str(error.value)


DATA = bytes(range(256)) * 8
PAGE = b"<html><body>Please log in</body></html>"


def answer(body, status="200 OK", *headers):
    """A whole answer of a server."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


ODD_ANSWERS = {  # of a proxy; the message
    "a page": (answer(PAGE), "a web page"),
    "a login elsewhere": (answer(b"", "302 Found", "Location: /login"), "a web page"),
    "a local file": (answer(b"", "302 Found", "Location: file:///etc/passwd"), "302"),
    "a circle": (answer(b"", "302 Found", "Location: /a.gz"), "infinite loop|302"),
    "half of it": (answer(DATA).replace(b"2048", b"4096"), "ended after 2,048 of 4,096 bytes"),
    "another file": (answer(b"x" * 99), "wrong MD5"),
    "no such range": (answer(b"", "416 Range Not Satisfiable"), "416"),
    "no HTTP": (b"SSH-2.0-OpenSSH\r\n\r\n", "SSH-2.0"),
    "nothing": (b"", "closed|reset|Remote end"),
    "a status that is none": (b"HTTP/1.1 abc\r\n\r\n", "abc"),
    "a line without end": (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70000 + b"\r\n\r\n", "header|line"),
    "too many headers": (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", "100 headers"),
    "a length that is none": (answer(DATA).replace(b"2048", b"many"), "many"),
    "broken chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "IncompleteRead|invalid literal",
    ),
}


@pytest.fixture
def mirror(monkeypatch):
    """A function that starts a server of given answers, as the only mirror."""
    sockets = []

    def start(answers):
        server = socket.create_server(("127.0.0.1", 0))
        sockets.append(server)

        def run():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    request = connection.recv(65536).split(b" ")[1].decode()
                    connection.sendall(answers.get(request, answer(PAGE)))

        threading.Thread(target=run, daemon=True).start()
        monkeypatch.setenv("no_proxy", "*")
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        monkeypatch.setattr(mnist, "MNIST_MIRRORS", (url,))
        monkeypatch.setattr(mnist, "MNIST_FILES", {"a.gz": hashlib.md5(DATA).hexdigest()})

    yield start
    for server in sockets:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


@pytest.mark.parametrize("case", ODD_ANSWERS)
def test_whatever_a_proxy_answers(tmp_path, mirror, case):
    """One line, and no file under the real name; the next call succeeds."""
    data, message = ODD_ANSWERS[case]
    mirror({"/a.gz": data})
    with pytest.raises(UserError, match=message) as error:
        mnist.download_mnist(tmp_path)
    assert "\n" not in str(error.value)
    left = [file.name for file in tmp_path.iterdir()]
    assert left == (["a.gz.part"] if case == "half of it" else [])

    mirror({"/a.gz": answer(DATA)})
    mnist.download_mnist(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.gz"]
    assert (tmp_path / "a.gz").read_bytes() == DATA


def test_a_download_is_continued(tmp_path, mirror):
    (tmp_path / "a.gz.part").write_bytes(DATA[:1000])
    mirror({"/a.gz": answer(DATA[1000:], "206 Partial Content")})
    mnist.download_mnist(tmp_path)
    assert (tmp_path / "a.gz").read_bytes() == DATA


def test_the_rest_of_another_file(tmp_path, mirror):
    """The part is no beginning of the file, so it is fetched from scratch."""
    (tmp_path / "a.gz.part").write_bytes(b"something else")
    mirror({"/a.gz": answer(DATA)})
    mnist.download_mnist(tmp_path)
    assert (tmp_path / "a.gz").read_bytes() == DATA


def test_a_damaged_file_is_fetched_again(tmp_path, mirror):
    (tmp_path / "a.gz").write_bytes(DATA[:-1])
    mirror({"/a.gz": answer(DATA)})
    mnist.download_mnist(tmp_path)
    assert (tmp_path / "a.gz").read_bytes() == DATA


def test_an_answer_without_end(tmp_path, mirror, monkeypatch):
    monkeypatch.setattr(mnist, "LARGEST_FILE", 3000)
    mirror({"/a.gz": b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 100_000})
    with pytest.raises(UserError, match="wrong MD5"):
        mnist.download_mnist(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"cannot download MNIST into .*file/x: Not a directory"):
        mnist.download_mnist(tmp_path / "file/x")
