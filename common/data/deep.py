"""Images with more than 8 bits per channel.

These are grey PNG and TIFF files of 16 bits, TIFF files of floats, and arrays in `.npy`
files. Pillow would clip such values at 255. Here they stay floats.
"""

import numpy as np
from PIL import Image, ImageOps

DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")  # of Pillow
LARGEST_HEADER = 10_000  # bytes, as of numpy's own readers
WHITE = {"uint8": 255, "uint16": 65535, "bool": 1}  # the value that becomes 1 in [0, 1]


class Deep:
    """An image of floats, with those methods of Pillow's images that are needed.

    Attributes:
        planes: a Pillow image of mode "F" for each channel, with values in [0, 1].
        size: (width, height).
    """

    def __init__(self, planes):
        self.planes = planes
        self.size = planes[0].size
        self.width, self.height = self.size

    def crop(self, box):
        """As Pillow's `Image.crop`."""
        return Deep([plane.crop(box) for plane in self.planes])

    def resize(self, size, method):
        """As Pillow's `Image.resize`."""
        return Deep([plane.resize(size, method) for plane in self.planes])

    def fit(self, size, method):
        """As Pillow's `ImageOps.fit`."""
        return Deep([ImageOps.fit(plane, size, method) for plane in self.planes])

    def pixels(self):
        """(C, H, W) float32 in [-1, 1]. Overshoots of the interpolation are clipped."""
        values = np.stack([np.asarray(plane) for plane in self.planes])
        return 2 * values.clip(0, 1) - 1

    def eight_bits(self):
        """A Pillow image of mode "L" or "RGB", of an image with 1 or 3 channels."""
        values = np.stack([np.asarray(plane) for plane in self.planes], axis=2)
        pixels = np.round(255 * values).astype(np.uint8)
        if len(self.planes) == 1:
            pixels = pixels[..., 0]
        return Image.fromarray(pixels)


def from_pillow(image, channels):
    """A grey Pillow image of one of DEEP_MODES as a `Deep` one, equal in all channels.

    Raises:
        ValueError: integers beyond 16 bits, or floats that are NaN or outside [0, 1].
    """
    values = np.asarray(image)
    if image.mode != "F":
        if values.min() < 0 or values.max() > WHITE["uint16"]:
            raise ValueError(
                f"it holds {values.min()} to {values.max()}, and 16 bits go from 0 to 65535"
            )
        values = values.astype(np.uint16)
    plane = Image.fromarray(unit_range(values))
    return Deep([plane] * channels)


def from_array(values, channels):
    """An array as a `Deep` image.

    Args:
        values: (H, W) or (H, W, channels), of uint8, uint16, bool, or floats in [0, 1].
        channels: any number.

    Raises:
        ValueError: another shape or type, NaN, or floats outside [0, 1].
    """
    check_shape(values.shape, channels)
    if values.ndim == 2:
        values = values[..., None]
    values = unit_range(values)
    planes = []
    for k in range(channels):
        plane = np.ascontiguousarray(values[..., k])
        planes.append(Image.fromarray(plane))
    return Deep(planes)


def check_shape(shape, channels):
    """Refuses an array of another shape than an image with these channels."""
    is_grey = len(shape) == 2 and channels == 1
    if not is_grey and (len(shape) != 3 or shape[2] != channels):
        expected = "(H, W) or (H, W, 1)" if channels == 1 else f"(H, W, {channels})"
        raise ValueError(f"an array of shape {shape}; expected {expected} for {channels} channels")


def unit_range(values):
    """The values of a file as float32 in [0, 1]."""
    if values.dtype.kind == "f":
        low = values.min()  # NaN, if any value is
        high = values.max()
        if not (low >= 0 and high <= 1):
            raise ValueError(f"it holds {low:.6g} to {high:.6g}, and floats must lie from 0 to 1")
        return values.astype(np.float32)
    if values.dtype.name not in WHITE:
        raise ValueError(
            f"values of type {values.dtype}; uint8, uint16, bool and floats can be read"
        )
    return values.astype(np.float32) / np.float32(WHITE[values.dtype.name])


def shape_of(path):
    """The shape of the array in a `.npy` file, from its header.

    Raises:
        ValueError, OSError and others: the file is damaged, is shorter than its header
            says, or holds Python objects.
    """
    with open(path, "rb") as file:
        check_header(file)
    return np.lib.format.open_memmap(path, mode="r").shape


def check_header(file):
    """Refuses an open `.npy` file whose header is longer than numpy's own.

    numpy reads a header as long as the file says, before it looks at the length.

    Raises:
        ValueError: it is too long, or the file is no `.npy` file.
    """
    version, _ = np.lib.format.read_magic(file)
    n_bytes = int.from_bytes(file.read(2 if version == 1 else 4), "little")
    if n_bytes > LARGEST_HEADER:
        raise ValueError(f"a header of {n_bytes:,} bytes")


def read_npy(path, allowed, largest):
    """A `.npy` file as a `Deep` image.

    Args:
        allowed: the numbers of channels that it may have.
        largest: the most pixels that are read.
    """
    shape = shape_of(path)
    if len(shape) > 1 and not 0 < shape[0] * shape[1] <= largest:
        raise ValueError(f"{shape[1]} x {shape[0]} pixels")
    found = shape[2] if len(shape) == 3 else 1
    channels = found if found in allowed else allowed[0]
    check_shape(shape, channels)
    return from_array(np.load(path, allow_pickle=False), channels)
