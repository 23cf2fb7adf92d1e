"""The files of a patch set in a zip, read in place, or in a folder; nothing is ever unpacked to the disk."""

import os
import stat
import struct
import weakref
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from isal import igzip_lib, isal_zlib

from pcam_model.core.errors import SourceError
from pcam_model.data.image import PatchError

InflateError: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]  # isal's stub calls it an instance
LOCAL_HEADER = struct.Struct("<4s5H3I2H")
# Read behind the local header at once: its name and extra field may be longer than in the central directory.
EXTRA_BYTES = 256
# A 96x96 RGB patch is 27,648 bytes; what claims to be far larger is no patch, or a zip bomb.
MAX_IMAGE_BYTES = 1 << 20
MAX_TABLE_BYTES = 1 << 26


class Container(Protocol):
    """Files by name."""

    def names(self) -> Iterator[str]:
        """The files' names, with forward slashes, in the order in which they are best read."""

    def read(self, name: str, max_bytes: int = MAX_IMAGE_BYTES) -> bytes:
        """A file's bytes. Raises PatchError where it is larger, or fails its checksum. Thread-safe."""

    def close(self) -> None:
        """Close open files."""


def open_container(path: Path) -> Container:
    """The zip or the folder at this path. Raises SourceError where it is neither."""
    if not path.exists():
        raise SourceError(f"{path}: there is nothing here; give the path of a Kaggle-layout .zip or folder")
    return Folder(path) if path.is_dir() else Zip(path)


class Folder:
    """The files below a folder, at most `max_depth` folders deep, as in top/train/x.tif."""

    def __init__(self, path: Path, max_depth: float = 2) -> None:
        self.path, self.max_depth = path, max_depth

    def names(self) -> Iterator[str]:
        """The files' names, sorted. Links are followed, except to a folder above."""
        for folder, folders, files in os.walk(self.path, followlinks=True):
            parts = Path(folder).relative_to(self.path).parts
            real_folder = f"{os.path.realpath(folder)}/"
            below = (name for name in sorted(folders) if not real_folder.startswith(_real_path(folder, name)))
            folders[:] = below if len(parts) < self.max_depth else []
            yield from ("/".join([*parts, file]) for file in sorted(files) if Path(folder, file).is_file())

    def read(self, name: str, max_bytes: int = MAX_IMAGE_BYTES) -> bytes:
        """The file's bytes. Raises PatchError where it is larger, or cannot be read."""
        try:
            with (self.path / name).open("rb") as file:
                content = file.read(max_bytes + 1)
        except OSError as error:
            raise PatchError(f"it cannot be read ({error.strerror})") from error
        if len(content) > max_bytes:
            raise PatchError(f"it is larger than {max_bytes:,} bytes")
        return content

    def close(self) -> None:
        """Do nothing: no file is kept open."""


def _real_path(folder: str, name: str) -> str:
    return f"{Path(folder, name).resolve()}/"


class ZipMember(NamedTuple):
    """A member's entry in the central directory. zipfile's own records take far more memory."""

    offset: int
    compressed_size: int
    size: int
    crc: int
    flags: int
    compression: int
    name: bytes


class Zip:
    """The members of a zip, each read by a positioned read of its own, so that threads need no lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.members = read_directory(path)
        self.file = os.open(path, os.O_RDONLY)
        # Also closes it where the owner is never closed.
        self._close = weakref.finalize(self, os.close, self.file)

    def names(self) -> Iterator[str]:
        """The members' names in the order of the file."""
        yield from sorted(self.members, key=lambda name: self.members[name].offset)

    def read(self, name: str, max_bytes: int = MAX_IMAGE_BYTES) -> bytes:
        """The member's bytes, checked against size and CRC-32. Raises PatchError. Thread-safe."""
        member = self.members[name]
        if member.size > max_bytes or member.compressed_size > max_bytes + 1024:
            raise PatchError(f"its size in the archive is {member.size:,} bytes, more than {max_bytes:,}")
        content = inflate(member, self.compressed_bytes(member))
        if len(content) != member.size or isal_zlib.crc32(content) != member.crc:
            raise PatchError("its checksum in the archive is wrong")
        return content

    def compressed_bytes(self, member: ZipMember) -> memoryview:
        """The member's bytes as they are in the file. Raises PatchError where it is not there."""
        size = LOCAL_HEADER.size + EXTRA_BYTES + member.compressed_size
        content = self.pread(member.offset, size)
        if len(content) < LOCAL_HEADER.size or content[:4] != b"PK\3\4":
            raise PatchError("the archive's directory gives an offset at which no member begins")
        *_, name_size, extra_size = LOCAL_HEADER.unpack_from(content)
        name_end = LOCAL_HEADER.size + name_size
        start = name_end + extra_size
        if content[LOCAL_HEADER.size : name_end] != member.name:
            raise PatchError("its name in its own header is another than in the archive's directory")
        if start + member.compressed_size > size:
            content, start = self.pread(member.offset + start, member.compressed_size), 0
        return memoryview(content)[start : start + member.compressed_size]

    def pread(self, offset: int, size: int) -> bytes:
        """Bytes of the file; fewer at its end. Raises PatchError."""
        try:
            return os.pread(self.file, size, offset)
        except (OSError, OverflowError) as error:
            raise PatchError(f"it cannot be read at byte {offset:,} of the archive ({error})") from error

    def close(self) -> None:
        """Close the file."""
        self._close()


def inflate(member: ZipMember, compressed: memoryview) -> bytes:
    """The member's content, at most one byte more than its size. Raises PatchError."""
    if member.flags & 1:
        raise PatchError("it is encrypted")
    if member.compression == zipfile.ZIP_STORED:
        return bytes(compressed)
    if member.compression != zipfile.ZIP_DEFLATED:
        raise PatchError("it is compressed in another way than deflate")
    try:
        return isal_zlib.decompressobj(-15).decompress(compressed, member.size + 1)
    except InflateError as error:
        raise PatchError(f"its compressed bytes are broken ({error})") from error


def read_directory(path: Path) -> dict[str, ZipMember]:
    """The archive's members by name. Raises SourceError for what is no whole, safe zip."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error, EOFError) as error:
        raise SourceError(not_a_zip_message(path)) from error
    except OSError as error:
        if error.errno is None or isinstance(error, PermissionError | IsADirectoryError):
            raise SourceError(f"{path}: it cannot be read ({error.strerror}); expected a .zip or a folder") from error
        raise SourceError(not_a_zip_message(path)) from error
    members: dict[str, ZipMember] = {}
    for info in infos:
        check_member(path, info)
        if info.filename in members:
            raise SourceError(
                f"{path}: the member {info.filename} is twice in the archive, where each id belongs once; remove one "
                "of the two, or download the archive again"
            )
        members[info.filename] = to_member(info)
    return members


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


def not_a_zip_message(path: Path) -> str:
    """The error message for a file without a readable central directory."""
    with path.open("rb") as file:
        begins_as_zip = file.read(4) in (b"PK\3\4", b"PK\5\6")
    if begins_as_zip:
        return (
            f"{path}: the archive begins as a zip but its directory, at the end, is missing or broken, so it is "
            "truncated or damaged; download or copy it again"
        )
    return f"{path}: this is not a zip; give a Kaggle-layout .zip (train/ID.tif and train_labels.csv) or a folder"
