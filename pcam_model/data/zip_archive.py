"""The members of a zip, read in place by positioned reads; nothing is unpacked to the disk."""

import errno
import io
import os
import stat
import struct
import weakref
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from isal import isal_zlib

from pcam_model.core.errors import SourceError
from pcam_model.data.container import MAX_IMAGE_BYTES
from pcam_model.data.file_kinds import describe_split, describe_wrong_content
from pcam_model.data.file_names import TABLE_FORMATS, is_system_file, suffix_of
from pcam_model.data.image import PatchError
from pcam_model.data.zip_block import InflateError, ZipMember, inflate_block, is_block

LOCAL_HEADER = struct.Struct("<4s5H3I2H")
# Read behind the local header at once: its name and extra field may be longer than in the central directory.
EXTRA_BYTES = 256
UNPACK = "unpack the archive (7z x), and give the folder"


class Zip:
    """The members of a zip, each read by a positioned read of its own, so that threads need no lock."""

    def __init__(self, path: Path, name: str = "", part: "FilePart | None" = None) -> None:
        """Open the zip at `path`, or the one that lies in `part` of an open file and is called `path`/`name`.

        Raises:
            SourceError: it is no whole, safe zip.
        """
        if split := "" if part else describe_split(path):
            raise SourceError(f"{path}: {split}")
        self.path = path / name
        self.part = part or FilePart(_open_file(path), 0, path.stat().st_size)
        # Also closes it where the owner is never closed.
        self._close = weakref.finalize(self, os.close, self.part.file)
        try:
            self.members = read_directory(self.path, self.part)
        except BaseException:
            self.close()
            raise

    def names(self) -> Iterator[str]:
        """The members' names in the order of the file, without system files, with forward slashes."""
        return (name for name in self.members if not is_system_file(name))

    def read(self, name: str, max_bytes: int = MAX_IMAGE_BYTES) -> bytes:
        """The member's bytes, checked against size and CRC-32. Raises PatchError. Thread-safe."""
        member = self.members[name]
        if member.size > max_bytes or member.compressed_size > max_bytes + 1024:
            raise PatchError(f"its size in the archive is {member.size:,} bytes, more than {max_bytes:,}")
        content = inflate(member, self.compressed_bytes(member))
        if len(content) != member.size or isal_zlib.crc32(content) != member.crc:
            raise PatchError("its checksum in the archive is wrong")
        return content

    def read_block(self, names: Sequence[str]) -> list[bytes] | None:
        """The members' bytes, read and inflated together; None where that cannot be, or one is broken. Thread-safe."""
        members = [self.members[name] for name in names]
        if not is_block(members):
            return None
        first, last = min(members), max(members)
        end = last.offset + LOCAL_HEADER.size + EXTRA_BYTES + last.compressed_size
        try:
            content = memoryview(self.pread(first.offset, end - first.offset))
            from_each = [content[member.offset - first.offset :] for member in members]
            starts = [content_start(*pair) for pair in zip(members, from_each, strict=True)]
            ends = [start + member.compressed_size for start, member in zip(starts, members, strict=True)]
            return inflate_block(members, [part[a:b] for part, a, b in zip(from_each, starts, ends, strict=True)])
        except PatchError:
            return None

    def compressed_bytes(self, member: ZipMember) -> memoryview:
        """The member's bytes as they are in the file. Raises PatchError where it is not there."""
        size = LOCAL_HEADER.size + EXTRA_BYTES + member.compressed_size
        content = memoryview(self.pread(member.offset, size))
        start = content_start(member, content)
        if start + member.compressed_size > size:
            content, start = memoryview(self.pread(member.offset + start, member.compressed_size)), 0
        return content[start : start + member.compressed_size]

    def pread(self, offset: int, size: int) -> bytes:
        """Bytes of the file; fewer at its end. Raises PatchError."""
        try:
            return os.pread(self.part.file, min(size, self.part.size - offset), self.part.offset + offset)
        except (OSError, OverflowError) as error:
            raise PatchError(f"it cannot be read at byte {offset:,} of the archive ({error})") from error

    def part_of(self, name: str) -> "FilePart | None":
        """Where the content of a member lies in the file; None where it is compressed. Raises PatchError."""
        member = self.members[name]
        if member.compression != zipfile.ZIP_STORED or member.flags & 1:
            return None
        *_, name_size, extra_size = LOCAL_HEADER.unpack_from(self.pread(member.offset, LOCAL_HEADER.size))
        start = self.part.offset + member.offset + LOCAL_HEADER.size + name_size + extra_size
        return FilePart(os.dup(self.part.file), start, member.size)

    def close(self) -> None:
        """Close the file."""
        self._close()


class FilePart(NamedTuple):
    """Bytes of an open file."""

    file: int
    """Its descriptor."""
    offset: int
    size: int


class _PartReader(io.RawIOBase):
    """A part of a file as a file."""

    def __init__(self, part: FilePart) -> None:
        self.part, self.position = part, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.part.size}[whence]
        if start + offset < 0:
            raise OSError(errno.EINVAL, "negative position")  # as files do, which zipfile expects
        self.position = start + offset
        return self.position

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]  # typeshed: any writable buffer
        size = max(0, min(len(buffer), self.part.size - self.position))
        content = os.pread(self.part.file, size, self.part.offset + self.position)
        buffer[: len(content)] = content
        self.position += len(content)
        return len(content)


def _open_file(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise SourceError(f"{path}: it cannot be read ({error.strerror}); expected a .zip or a folder") from error


def content_start(member: ZipMember, content: memoryview) -> int:
    """Where a member's bytes begin behind its own header, with which `content` begins. Raises PatchError."""
    if len(content) < LOCAL_HEADER.size or bytes(content[:4]) != b"PK\3\4":
        raise PatchError("the archive's directory gives an offset at which no member begins")
    *_, name_size, extra_size = LOCAL_HEADER.unpack_from(content)
    name_end: int = LOCAL_HEADER.size + name_size
    if content[LOCAL_HEADER.size : name_end] != member.name:
        raise PatchError("its name in its own header is another than in the archive's directory")
    return name_end + int(extra_size)


def inflate(member: ZipMember, compressed: memoryview) -> bytes:
    """The member's content, at most one byte more than its size. Raises PatchError."""
    if member.flags & 1:
        raise PatchError(f"it is encrypted; {UNPACK}")
    if member.compression == zipfile.ZIP_STORED:
        return bytes(compressed)
    if member.compression != zipfile.ZIP_DEFLATED:
        raise PatchError(f"it is compressed in another way than deflate; {UNPACK}")
    try:
        return isal_zlib.decompressobj(-15).decompress(compressed, member.size + 1)
    except InflateError as error:
        raise PatchError(f"its compressed bytes are broken ({error})") from error


def read_directory(path: Path, part: FilePart) -> dict[str, ZipMember]:
    """The members by name, with forward slashes, in the file's order. Raises SourceError where it is no safe zip."""
    try:
        with zipfile.ZipFile(io.BufferedReader(_PartReader(part))) as archive:  # type: ignore[type-var]
            infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error, EOFError) as error:
        raise SourceError(not_a_zip_message(path, part)) from error
    except OSError as error:
        if error.errno is None:
            raise SourceError(not_a_zip_message(path, part)) from error
        raise SourceError(f"{path}: it cannot be read ({error.strerror}); expected a .zip or a folder") from error
    members: dict[str, ZipMember] = {}
    for info in infos:
        check_member(path, info)
        name = decoded_name(info).replace("\\", "/").removeprefix("./")  # some programs on Windows divide folders so
        if name.endswith("/"):
            continue
        if name in members:
            raise SourceError(
                f"{path}: the member {name} is twice in the archive, where each id belongs once; remove one "
                "of the two, or download the archive again"
            )
        members[name] = to_member(info)
    return dict(sorted(members.items(), key=lambda member: member[1].offset))


def decoded_name(info: zipfile.ZipInfo) -> str:
    """The member's name; macOS and others write UTF-8 without the flag that says so."""
    if info.flag_bits & 0x800 or info.filename != info.orig_filename:
        return info.filename
    with suppress(UnicodeDecodeError):
        return info.orig_filename.encode("cp437").decode("utf-8")
    return info.filename


def check_member(path: Path, info: zipfile.ZipInfo) -> None:
    """Raise SourceError for a member that points outside the archive."""
    if is_outside(info.orig_filename):
        raise SourceError(
            f"{path}: the member {info.orig_filename!r} points outside the archive, where only names such as "
            "train/ID.tif belong; do not trust this file, and download it again from its source"
        )
    if stat.S_ISLNK(info.external_attr >> 16):
        raise SourceError(
            f"{path}: the member {info.filename} is a link to a file elsewhere, not a file; make the archive again "
            "with the files themselves"
        )


def to_member(info: zipfile.ZipInfo) -> ZipMember:
    """The fields of zipfile's record that reading needs."""
    name = info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437")
    sizes = info.header_offset, info.compress_size, info.file_size
    return ZipMember(*sizes, info.CRC, info.flag_bits, info.compress_type, name)


def is_outside(name: str) -> bool:
    """Whether a member of this name would be unpacked outside the target folder."""
    slashed = name.replace("\\", "/")
    return slashed.startswith("/") or ".." in slashed.split("/") or "\0" in name or name[1:2] == ":"


def not_a_zip_message(path: Path, part: FilePart) -> str:
    """The error message for a file without a readable central directory."""
    if os.pread(part.file, 4, part.offset) in (b"PK\3\4", b"PK\5\6"):
        return (
            f"{path}: the archive begins as a zip but its directory, at the end, is missing or broken, so it is "
            "truncated or damaged; download or copy it again"
        )
    if wrong := describe_wrong_content(path):
        return f"{path}: this is not a zip: {wrong}"
    if suffix_of(path.name) in TABLE_FORMATS:
        return f"{path}: this is a table; give the folder or the archive in which it lies with its images"
    return f"{path}: this is not a zip; give a .zip, a .tar or a folder of patches, see docs/data.md"
