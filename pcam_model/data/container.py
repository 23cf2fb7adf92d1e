"""Where the files of a patch set lie: a zip, read in place, or a folder. Nothing is ever unpacked."""

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

BROKEN: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]  # isal's stub calls it an instance
LOCAL_HEADER = struct.Struct("<4s5H3I2H")
# A 96x96 RGB patch is 27,648 bytes; what claims to be far larger is no patch, or a zip bomb.
LARGEST_IMAGE = 1 << 20
LARGEST_TABLE = 1 << 26


class Container(Protocol):
    """Named files, and their bytes."""

    def names(self) -> Iterator[str]:
        """The files' names, with forward slashes, in the order in which they are best read."""

    def read(self, name: str, largest: int = LARGEST_IMAGE) -> bytes:
        """A file's bytes, verified. Raises PatchError when it is larger, or not whole. Any thread may call it."""

    def close(self) -> None:
        """Let go of open files."""


def open_container(path: Path) -> Container:
    """The zip or the folder at this path. Raises SourceError when it is neither."""
    if not path.exists():
        raise SourceError(f"{path}: there is nothing here; give the path of a Kaggle-layout .zip or folder")
    return Folder(path) if path.is_dir() else Zip(path)


class Folder:
    """The files below a folder: two levels deep, as in top/train/x.tif, or at any depth."""

    def __init__(self, path: Path, deep: float = 2) -> None:
        self.path, self.deep = path, deep

    def names(self) -> Iterator[str]:
        """Sorted. Links are followed, but not up."""
        for folder, folders, files in os.walk(self.path, followlinks=True):
            deep = Path(folder).relative_to(self.path).parts
            here = f"{os.path.realpath(folder)}/"
            below = (
                name for name in sorted(folders) if not here.startswith(f"{os.path.realpath(f'{folder}/{name}')}/")
            )
            folders[:] = below if len(deep) < self.deep else []
            yield from ("/".join([*deep, file]) for file in sorted(files) if os.path.isfile(f"{folder}/{file}"))

    def read(self, name: str, largest: int = LARGEST_IMAGE) -> bytes:
        """The file's bytes."""
        try:
            with (self.path / name).open("rb") as file:
                content = file.read(largest + 1)
        except OSError as error:
            raise PatchError(f"it cannot be read ({error.strerror})") from error
        if len(content) > largest:
            raise PatchError(f"it is larger than {largest:,} bytes")
        return content

    def close(self) -> None:
        """Nothing is held open."""


class Member(NamedTuple):
    """What the archive's list says of a member. zipfile's own records take far more memory."""

    place: int
    packed: int
    size: int
    crc: int
    flags: int
    kind: int
    name: bytes


class Zip:
    """The members of a zip, each read by its own positioned read, so that threads need no lock."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.members = directory(path)
        self.file = os.open(path, os.O_RDONLY)
        # Also where a reader refuses what lies inside, or never says that it is done.
        self._close = weakref.finalize(self, os.close, self.file)

    def names(self) -> Iterator[str]:
        """In the order in which they lie in the file."""
        yield from sorted(self.members, key=lambda name: self.members[name].place)

    def read(self, name: str, largest: int = LARGEST_IMAGE) -> bytes:
        """The member's bytes, its checksum verified; never more than it says, never more than `largest`."""
        member = self.members[name]
        if member.size > largest or member.packed > largest + 1024:
            raise PatchError(f"it says that it is {member.size:,} bytes large, more than {largest:,}")
        content = inflate(member, self.packed(member))
        if len(content) != member.size or isal_zlib.crc32(content) != member.crc:
            raise PatchError("its checksum in the archive is wrong")
        return content

    def packed(self, member: Member) -> memoryview:
        """The member's bytes as they lie in the file."""
        # Name and extra field may be longer here than in the list: 256 bytes more save the second read nearly always.
        size = LOCAL_HEADER.size + 256 + member.packed
        found = self.at(member.place, size)
        if len(found) < LOCAL_HEADER.size or found[:4] != b"PK\3\4":
            raise PatchError("the archive's list points to a place where it does not stand")
        fields = LOCAL_HEADER.unpack_from(found)
        name, start = LOCAL_HEADER.size + fields[9], LOCAL_HEADER.size + fields[9] + fields[10]
        if found[LOCAL_HEADER.size : name] != member.name:
            raise PatchError("it has another name where it stands than in the archive's list")
        if start + member.packed > size:
            found, start = self.at(member.place + start, member.packed), 0
        return memoryview(found)[start : start + member.packed]

    def at(self, place: int, size: int) -> bytes:
        """Bytes of the file; fewer where it ends."""
        try:
            return os.pread(self.file, size, place)
        except (OSError, OverflowError) as error:
            raise PatchError(f"it cannot be read at byte {place:,} of the archive ({error})") from error

    def close(self) -> None:
        """Close the file."""
        self._close()


def inflate(member: Member, packed: memoryview) -> bytes:
    """The member's content, at most one byte more than it says."""
    if member.flags & 1:
        raise PatchError("it is encrypted")
    if member.kind == zipfile.ZIP_STORED:
        return bytes(packed)
    if member.kind != zipfile.ZIP_DEFLATED:
        raise PatchError("it is compressed in another way than deflate")
    try:
        return isal_zlib.decompressobj(-15).decompress(packed, member.size + 1)
    except BROKEN as error:
        raise PatchError(f"its compressed bytes are broken ({error})") from error


def directory(path: Path) -> dict[str, Member]:
    """The archive's list of contents, by name. Raises SourceError for what is no whole, safe zip."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error, EOFError) as error:
        raise SourceError(no_zip(path)) from error
    except OSError as error:
        if error.errno is None or isinstance(error, PermissionError | IsADirectoryError):
            raise SourceError(
                f"{path}: it cannot be read ({error.strerror}); it should be a .zip or a folder"
            ) from error
        raise SourceError(no_zip(path)) from error
    found: dict[str, Member] = {}
    for member in members:
        if outside(member.orig_filename):
            raise SourceError(
                f"{path}: the member {member.orig_filename!r} points outside the archive, where only names such as "
                "train/ID.tif belong; do not trust this file, and download it again from its source"
            )
        if stat.S_ISLNK(member.external_attr >> 16):
            raise SourceError(
                f"{path}: the member {member.filename} is a link to a file elsewhere, not a file; make the archive "
                "again with the files themselves"
            )
        if member.filename in found:
            raise SourceError(
                f"{path}: the member {member.filename} stands twice in the archive, where each id belongs once; "
                "remove one of the two, or download the archive again"
            )
        found[member.filename] = record(member)
    return found


def record(member: zipfile.ZipInfo) -> Member:
    """The part of zipfile's record that reading needs."""
    name = member.orig_filename.encode("utf-8" if member.flag_bits & 0x800 else "cp437")
    sizes = member.header_offset, member.compress_size, member.file_size
    return Member(*sizes, member.CRC, member.flag_bits, member.compress_type, name)


def outside(name: str) -> bool:
    """Whether a member's name leaves the place where an archive would be unpacked."""
    slashed = name.replace("\\", "/")
    return slashed.startswith("/") or ".." in slashed.split("/") or "\0" in name or name[1:2] == ":"


def no_zip(path: Path) -> str:
    """What is wrong with a file that has no readable list of contents."""
    with path.open("rb") as file:
        begins_as_zip = file.read(4) in (b"PK\3\4", b"PK\5\6")
    if begins_as_zip:
        return (
            f"{path}: the archive begins as a zip but its list of contents, at the end, is missing or broken, so it is "
            "truncated or damaged; download or copy it again"
        )
    return f"{path}: this is not a zip; give a Kaggle-layout .zip (train/ID.tif and train_labels.csv) or a folder"
