"""Which of PCam's official files lie in a folder, and whether they are those that were published."""

import io
from pathlib import Path
from typing import NamedTuple, overload

from isal import igzip

from pcam_model.core.errors import SourceError
from pcam_model.core.files import md5
from pcam_model.data.container import BROKEN

PREFIX = "camelyonpatch_level_2_split"
# Of valid and test the authors' README has the sums of x and y exchanged; these are those of the files that are served.
PUBLISHED = {
    "train_x.h5.gz": {"1571f514728f59376b705fc836ff4b63"},
    "train_y.h5.gz": {"35c2d7259d906cfc8143347bb8e05be7"},
    "valid_x.h5.gz": {"d5b63470df7cfa627aeec8b9dc0c066e"},
    "valid_y.h5.gz": {"2b85f58b927af9964a4c15b8f7e8f179"},
    "test_x.h5.gz": {"d8c2d60d490dbd479f8199bdfa0cf6ec"},
    "test_y.h5.gz": {"60a7035772fbdb7f34eb86d4420cf66a"},
    "train_meta.csv": {"5a3dd671e465cfd74b5b822125e65b0a"},
    # Perhaps exchanged too: the labels in them tell which is which.
    "valid_meta.csv": {"3455fd69135b66734e1008f3af684566", "67589e00a4a37ec317f2d1932c7502ca"},
    "test_meta.csv": {"67589e00a4a37ec317f2d1932c7502ca", "3455fd69135b66734e1008f3af684566"},
}


class Part(NamedTuple):
    """The files of one side."""

    side: str
    x: Path
    y: Path
    meta: Path | None


def holds_official(folder: Path) -> bool:
    """Whether this folder holds PCam's official HDF5 files."""
    return folder.is_dir() and any(folder.glob(f"{PREFIX}_*.h5*"))


def find_parts(folder: Path) -> list[Part]:
    """The parts that are there, train first. Raises SourceError for images without labels, or labels without images."""
    parts = []
    for side in ("train", "valid", "test"):
        x, y = (first(folder, f"{PREFIX}_{side}_{what}.h5") for what in ("x", "y"))
        if (x is None) != (y is None):
            there, lost = ("x", "y") if x else ("y", "x")
            raise SourceError(
                f"{folder}: {PREFIX}_{side}_{there}.h5 is here, {PREFIX}_{side}_{lost}.h5[.gz] is not; images and "
                "labels belong together; add the file"
            )
        if x and y:
            meta = folder / f"{PREFIX}_{side}_meta.csv"
            parts.append(Part(side, x, y, meta if meta.is_file() else None))
    return parts


def official_files(folder: Path) -> list[str]:
    """The names of the files of all parts."""
    return [path.name for part in find_parts(folder) for path in part[1:] if isinstance(path, Path)]


def has_sum(name: str) -> bool:
    """Whether an MD5 was published for a file of this name."""
    return name.removeprefix(f"{PREFIX}_") in PUBLISHED


def first(folder: Path, name: str) -> Path | None:
    """The packed file, which has a published MD5, else the unpacked one."""
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)


def check_published(parts: list[Part]) -> None:
    """Compare the files with their published MD5s; unpacked images and labels have none. Raises SourceError."""
    for path in (path for part in parts for path in part[1:] if isinstance(path, Path)):
        known = PUBLISHED.get(path.name.removeprefix(f"{PREFIX}_"))
        if known is None:
            continue
        found = md5(path)
        if found not in known:
            raise SourceError(
                f"{path}: its MD5 is {found}, where {' or '.join(sorted(known))} was published; download it again, "
                "or set source.verify_md5=false for files of your own in PCam's layout"
            )


@overload
def unpacked(path: Path, target: Path, most: int) -> Path: ...
@overload
def unpacked(path: Path, target: None, most: int) -> io.BytesIO: ...
def unpacked(path: Path, target: Path | None, most: int) -> Path | io.BytesIO:
    """Unpack a .gz to a file, or into memory; at most so many bytes. Raises SourceError for what is broken or larger."""
    file = target.open("xb") if target else io.BytesIO()
    size = 0
    try:
        with igzip.open(path, "rb") as source:  # type: ignore[no-untyped-call]
            while piece := source.read(1 << 22):
                size += file.write(piece)
                if size > most:
                    raise SourceError(f"{path}: it unpacks to more than {most:,} bytes; that is not PCam's file")
    except (EOFError, igzip.BadGzipFile, BROKEN) as error:
        raise SourceError(f"{path}: it is no whole gzip file ({error}); download it again") from error
    finally:
        if target:
            file.close()
    if isinstance(file, io.BytesIO):
        file.seek(0)
        return file
    assert target
    return target
