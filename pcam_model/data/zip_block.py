"""Members of a zip inflated in one call, which hands the interpreter's lock over once, and not three times a member."""

import io
import struct
import zipfile
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from isal import igzip, igzip_lib

from pcam_model.data.container import MAX_IMAGE_BYTES
from pcam_model.data.image import PatchError

InflateError: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]  # isal's stub calls it an instance
MAX_BLOCK_BYTES = 1 << 22
GZIP_HEADER = b"\x1f\x8b\x08" + bytes(7)  # deflate, no flags
GZIP_TRAILER = struct.Struct("<2I")


class ZipMember(NamedTuple):
    """A member's entry in the central directory. zipfile's own records take far more memory."""

    offset: int
    compressed_size: int
    size: int
    crc: int
    flags: int
    compression: int
    name: bytes


def is_block(members: Sequence[ZipMember]) -> bool:
    """Whether members are small, deflated and near each other, so that they can be read and inflated together."""
    sizes = [member.size for member in members]
    compressed = sum(member.compressed_size for member in members)
    return (
        all(member.compression == zipfile.ZIP_DEFLATED and not member.flags & 1 for member in members)
        and max(sizes) <= MAX_IMAGE_BYTES
        and sum(sizes) + compressed <= MAX_BLOCK_BYTES
        and max(members).offset - min(members).offset <= 2 * compressed
    )


def inflate_block(members: Sequence[ZipMember], compressed: Sequence[memoryview]) -> list[bytes]:
    """The members' contents, checked against their sizes and CRC-32. Raises PatchError, which does not name the member.

    They are inflated as the parts of one gzip file, whose trailers hold each part's size and CRC-32.
    """
    parts: list[bytes | memoryview] = []
    for member, content in zip(members, compressed, strict=True):
        parts += GZIP_HEADER, content, GZIP_TRAILER.pack(member.crc, member.size)
    ends = [*accumulate(member.size for member in members)]
    try:
        with igzip.IGzipFile(fileobj=io.BytesIO(b"".join(parts))) as file:  # type: ignore[no-untyped-call]
            contents: bytes = file.read(ends[-1] + 1)
    except (OSError, EOFError, InflateError) as error:
        raise PatchError(f"compressed bytes are broken ({error})") from error
    if len(contents) != ends[-1]:
        raise PatchError("sizes in the archive are wrong")
    return [contents[end - member.size : end] for member, end in zip(members, ends, strict=True)]
