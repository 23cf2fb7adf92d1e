"""Patches from image files: uint8 (96, 96, 3)."""

import hashlib
import io
import struct
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pcam_model.data.file_kinds import describe_wrong_bytes

PATCH_SIZE = 96  # pixels
CENTRE_SIZE = 32  # pixels of the square that decides the label
PATCH_BYTES = PATCH_SIZE * PATCH_SIZE * 3
FORMATS = ("TIFF", "PNG", "JPEG", "BMP", "WEBP")
PACK_RECORD = "pack.json"

Patch = NDArray[np.uint8]


class PatchError(Exception):
    """An image is no patch: the reason, without the file's name."""


class ImageName(NamedTuple):
    """A patch's id, which is its file's name without folder and suffix, and the file; "" in a pack."""

    id: str
    file: str


@dataclass(frozen=True)
class TiffFrame:
    """The bytes before and after the pixels of an uncompressed TIFF; files with the same ones have the same layout."""

    head: bytes
    tail: bytes

    def matches(self, content: bytes) -> bool:
        """Whether a file differs from the one of this frame in its pixels alone."""
        return (
            len(content) == len(self.head) + PATCH_BYTES + len(self.tail)
            and content.startswith(self.head)
            and content.endswith(self.tail)
        )


def pixel_digest(pixels: bytes | memoryview) -> str:
    """The first 128 bits of the SHA-256 of a patch's pixels, in hexadecimal."""
    return hashlib.sha256(pixels).hexdigest()[:32]


class Decoder:
    """Decodes image files; remembers the last plain TIFF's frame, which all of Kaggle's 220,025 files share."""

    def __init__(self) -> None:
        self.frame: TiffFrame | None = None

    def __call__(self, content: bytes) -> Patch:
        """The patch in an image file's bytes. Raises PatchError, with the reason."""
        frame = self.frame  # other threads may replace it meanwhile
        if frame is None or not frame.matches(content):
            self.frame = frame = plain_tiff_frame(content)
        if frame is None:
            return decode_with_pillow(content)
        pixels = np.frombuffer(content, np.uint8, PATCH_BYTES, len(frame.head))
        return pixels.reshape(PATCH_SIZE, PATCH_SIZE, 3)


def plain_tiff_frame(content: bytes) -> TiffFrame | None:
    """The frame of a 96x96 RGB TIFF of one page and one uncompressed strip; None for any other file."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(content[:4])
    if order is None:
        return None
    try:
        tags = read_tiff_tags(content, order)
    except struct.error:
        return None
    # width, length, compression: none, photometric: RGB, orientation, samples, planar: interleaved, bytes of the strip
    expected = {256: PATCH_SIZE, 257: PATCH_SIZE, 259: 1, 262: 2, 274: 1, 277: 3, 284: 1, 279: PATCH_BYTES}
    defaults = {259: 1, 274: 1, 284: 1}
    is_plain = all(tags.get(tag, defaults.get(tag)) == value for tag, value in expected.items())
    start = tags.get(273)
    if not is_plain or start is None or 338 in tags or 317 in tags or not has_eight_bits(content, order, tags.get(258)):
        return None
    if start + PATCH_BYTES > len(content):
        return None
    return TiffFrame(content[:start], content[start + PATCH_BYTES :])


def read_tiff_tags(content: bytes, order: str) -> dict[int, int]:
    """The first page's tags of one number each, and the offset of BitsPerSample's numbers; empty for many pages."""
    (page,) = struct.unpack_from(order + "I", content, 4)
    (entries,) = struct.unpack_from(order + "H", content, page)
    (next_page,) = struct.unpack_from(order + "I", content, page + 2 + 12 * entries)
    tags: dict[int, int] = {}
    for entry in range(entries):
        offset = page + 2 + 12 * entry
        tag, value_type, count = struct.unpack_from(order + "HHI", content, offset)
        if count == 1 or tag == 258:
            is_short = value_type == 3 and count == 1
            (tags[tag],) = struct.unpack_from(order + ("H" if is_short else "I"), content, offset + 8)
    return {} if next_page else tags


def has_eight_bits(content: bytes, order: str, offset: int | None) -> bool:
    """Whether BitsPerSample, at this offset, is 8, 8, 8."""
    return offset is not None and content[offset : offset + 6] == struct.pack(order + "HHH", 8, 8, 8)


def decode_with_pillow(content: bytes) -> Patch:
    """The patch in any TIFF, PNG, JPEG, BMP or WebP that holds one 96x96 RGB image of 8 bits, upright as its tags say.

    Raises:
        PatchError: it holds anything else, or is damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                check_is_patch(image, content)
                return np.asarray(to_opaque_rgb(ImageOps.exif_transpose(image)))
    except PatchError:
        raise
    # Pillow raises nearly anything on broken files: struct.error, SyntaxError, ValueError, OverflowError, OSError ...
    except Exception as error:
        damaged = f"it is not a whole TIFF, PNG, JPEG, BMP or WebP image ({type(error).__name__})"
        raise PatchError((describe_wrong_bytes(content) or damaged) if content else "it is empty (0 bytes)") from error


def check_is_patch(image: Image.Image, content: bytes) -> None:
    """Raise PatchError for an image that is no patch, before its pixels are decoded."""
    if image.size != (PATCH_SIZE, PATCH_SIZE) or image.mode not in ("RGB", "RGBA", "P"):
        width, height = image.size
        raise PatchError(f"it is {width}x{height} {image.mode}, not {PATCH_SIZE}x{PATCH_SIZE} RGB")
    if (count := getattr(image, "n_frames", 1)) != 1:
        raise PatchError(f"it holds {count} images, where a patch is one")
    # Pillow reads colours of 16 bits as 8 without a word.
    bits = content[24] if image.format == "PNG" else max(getattr(image, "tag_v2", {}).get(258, (8,)))
    if image.format == "BMP" and content[28] == 16:
        bits = 5
    if bits > 8 or (bits == 5 and image.format == "BMP"):
        raise PatchError(f"it has {bits} bits a channel, not 8")


def to_opaque_rgb(image: Image.Image) -> Image.Image:
    """The image as RGB: palette colours are looked up, a fully opaque alpha channel is dropped.

    Raises:
        PatchError: it is transparent somewhere.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    rgba = image.convert("RGBA")
    lowest, _ = rgba.getchannel("A").getextrema()
    if lowest != 255:
        raise PatchError("it is transparent in part, where a patch is RGB")
    return rgba.convert("RGB")
