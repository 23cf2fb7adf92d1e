"""One image file to one patch: uint8 (96, 96, 3)."""

import hashlib
import io
import struct
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

SIZE = 96
PATCH_BYTES = SIZE * SIZE * 3
FORMATS = ("TIFF", "PNG", "JPEG")

Patch = NDArray[np.uint8]


class PatchError(Exception):
    """Why one image is no patch, in words; the packing says which one, and stops or sets it aside."""


@dataclass(frozen=True)
class Frame:
    """The bytes around the pixels of an uncompressed file: what has the same ones has its pixels in the same place."""

    head: bytes
    tail: bytes

    def holds(self, content: bytes) -> bool:
        """Whether this file differs from the one the frame was taken of in its pixels alone."""
        return (
            len(content) == len(self.head) + PATCH_BYTES + len(self.tail)
            and content.startswith(self.head)
            and content.endswith(self.tail)
        )


def pixel_digest(pixels: bytes | memoryview) -> str:
    """128 bits of the SHA-256 of a patch's pixels, in hexadecimal."""
    return hashlib.sha256(pixels).hexdigest()[:32]


class Decoder:
    """Decodes images; remembers the last plain TIFF's frame, for Kaggle's 220,025 files share one."""

    def __init__(self) -> None:
        self.frame: Frame | None = None

    def __call__(self, content: bytes) -> Patch:
        """The patch in an image file's bytes. Raises PatchError, with the reason."""
        frame = self.frame  # other threads may replace it meanwhile
        if frame is None or not frame.holds(content):
            self.frame = frame = plain_tiff(content)
        if frame is None:
            return by_pillow(content)
        pixels = np.frombuffer(content, np.uint8, PATCH_BYTES, len(frame.head))
        return pixels.reshape(SIZE, SIZE, 3)


def plain_tiff(content: bytes) -> Frame | None:
    """The frame of a 96x96 RGB TIFF of one page and one uncompressed strip; None for anything else."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(content[:4])
    if order is None:
        return None
    try:
        tags = tiff_tags(content, order)
    except struct.error:
        return None
    # width, length, compression: none, photometric: RGB, orientation, samples, planar: interleaved, bytes of the strip
    asked = {256: SIZE, 257: SIZE, 259: 1, 262: 2, 274: 1, 277: 3, 284: 1, 279: PATCH_BYTES}
    usual = {259: 1, 274: 1, 284: 1}
    plain = all(tags.get(tag, usual.get(tag)) == value for tag, value in asked.items())
    start = tags.get(273)
    if not plain or start is None or 338 in tags or 317 in tags or not eight_bits(content, order, tags.get(258)):
        return None
    if start + PATCH_BYTES > len(content):
        return None
    return Frame(content[:start], content[start + PATCH_BYTES :])


def tiff_tags(content: bytes, order: str) -> dict[int, int]:
    """The first page's tags with one number each (BitsPerSample: where its numbers stand)."""
    (at,) = struct.unpack_from(order + "I", content, 4)
    (entries,) = struct.unpack_from(order + "H", content, at)
    (following,) = struct.unpack_from(order + "I", content, at + 2 + 12 * entries)
    tags: dict[int, int] = {}
    for entry in range(entries):
        place = at + 2 + 12 * entry
        tag, kind, count = struct.unpack_from(order + "HHI", content, place)
        if count == 1 or tag == 258:
            short = kind == 3 and count == 1
            (tags[tag],) = struct.unpack_from(order + ("H" if short else "I"), content, place + 8)
    return {} if following else tags


def eight_bits(content: bytes, order: str, place: int | None) -> bool:
    """Whether BitsPerSample says 8, 8, 8."""
    return place is not None and content[place : place + 6] == struct.pack(order + "HHH", 8, 8, 8)


def by_pillow(content: bytes) -> Patch:
    """Any TIFF, PNG or JPEG that Pillow reads, when it is one 96x96 RGB image of 8 bits, upright as its tags say."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                refuse_other(image, content)
                return np.asarray(opaque(ImageOps.exif_transpose(image)))
    except PatchError:
        raise
    # Pillow raises nearly anything on broken files: struct.error, SyntaxError, ValueError, OverflowError, OSError ...
    except Exception as error:
        raise PatchError(f"it is not a whole TIFF, PNG or JPEG image ({type(error).__name__})") from error


def refuse_other(image: Image.Image, content: bytes) -> None:
    """Raise PatchError for an image that is no patch, before its pixels are read."""
    if image.size != (SIZE, SIZE) or image.mode not in ("RGB", "RGBA", "P"):
        width, height = image.size
        raise PatchError(f"it is {width}x{height} {image.mode}, not {SIZE}x{SIZE} RGB")
    if (count := getattr(image, "n_frames", 1)) != 1:
        raise PatchError(f"it holds {count} images, where a patch is one")
    # Pillow reads colours of 16 bits as 8 without a word.
    bits = content[24] if image.format == "PNG" else max(getattr(image, "tag_v2", {}).get(258, (8,)))
    if bits > 8:
        raise PatchError(f"it has {bits} bits a channel, not 8")


def opaque(image: Image.Image) -> Image.Image:
    """The image as RGB, where that loses nothing: colours from a palette, or a channel of opacity that is full."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    full = image.convert("RGBA")
    lowest, _ = full.getchannel("A").getextrema()
    if lowest != 255:
        raise PatchError("it is transparent in part, where a patch is RGB")
    return full.convert("RGB")
