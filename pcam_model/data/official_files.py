"""PCam's official files in a folder, and their published MD5s."""

import io
from pathlib import Path
from typing import NamedTuple, overload

from isal import igzip

from pcam_model.core.errors import SourceError
from pcam_model.core.files import md5
from pcam_model.core.splits import SPLITS, SplitName
from pcam_model.data.container import InflateError

PREFIX = "camelyonpatch_level_2_split"
# The authors' README exchanges the sums of x and y of valid and test; these are those of the files that are served.
PUBLISHED_MD5 = {
    "train_x.h5.gz": {"1571f514728f59376b705fc836ff4b63"},
    "train_y.h5.gz": {"35c2d7259d906cfc8143347bb8e05be7"},
    "valid_x.h5.gz": {"d5b63470df7cfa627aeec8b9dc0c066e"},
    "valid_y.h5.gz": {"2b85f58b927af9964a4c15b8f7e8f179"},
    "test_x.h5.gz": {"d8c2d60d490dbd479f8199bdfa0cf6ec"},
    "test_y.h5.gz": {"60a7035772fbdb7f34eb86d4420cf66a"},
    "train_meta.csv": {"5a3dd671e465cfd74b5b822125e65b0a"},
    # Perhaps exchanged too: the labels in them show which is which.
    "valid_meta.csv": {"3455fd69135b66734e1008f3af684566", "67589e00a4a37ec317f2d1932c7502ca"},
    "test_meta.csv": {"67589e00a4a37ec317f2d1932c7502ca", "3455fd69135b66734e1008f3af684566"},
}
READ_BYTES = 1 << 22


class OfficialSplit(NamedTuple):
    """The files of one split."""

    name: SplitName
    x: Path
    y: Path
    meta: Path | None

    def files(self) -> list[Path]:
        """The files that are there."""
        return [path for path in (self.x, self.y, self.meta) if path]


def holds_official(folder: Path) -> bool:
    """Whether this folder holds PCam's official HDF5 files."""
    return folder.is_dir() and any(folder.glob(f"{PREFIX}_*.h5*"))


def find_splits(folder: Path) -> list[OfficialSplit]:
    """The splits in a folder, train first. Raises SourceError for images without labels, or labels without images."""
    splits = []
    for name in SPLITS:
        x, y = (find_file(folder, f"{PREFIX}_{name}_{dataset}.h5") for dataset in ("x", "y"))
        if (x is None) != (y is None):
            present, missing = ("x", "y") if x else ("y", "x")
            raise SourceError(
                f"{folder}: {PREFIX}_{name}_{present}.h5 is here, {PREFIX}_{name}_{missing}.h5[.gz] is not; images and "
                "labels belong together; add the file"
            )
        if x and y:
            meta = folder / f"{PREFIX}_{name}_meta.csv"
            splits.append(OfficialSplit(name, x, y, meta if meta.is_file() else None))
    return splits


def official_files(folder: Path) -> list[str]:
    """The names of the files of all splits in a folder."""
    return [path.name for split in find_splits(folder) for path in split.files()]


def has_published_md5(name: str) -> bool:
    """Whether an MD5 was published for a file of this name."""
    return name.removeprefix(f"{PREFIX}_") in PUBLISHED_MD5


def find_file(folder: Path, name: str) -> Path | None:
    """The packed file, which has a published MD5, else the unpacked one, else None."""
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)


def verify_published_md5(splits: list[OfficialSplit]) -> None:
    """Raise SourceError for a file that has another MD5 than the published one; unpacked HDF5 files have none."""
    for path in (path for split in splits for path in split.files()):
        expected = PUBLISHED_MD5.get(path.name.removeprefix(f"{PREFIX}_"))
        if expected is None:
            continue
        actual = md5(path)
        if actual not in expected:
            raise SourceError(
                f"{path}: its MD5 is {actual}, where {' or '.join(sorted(expected))} was published; download it again, "
                "or set source.verify_md5=false for files of your own in PCam's layout"
            )


@overload
def gunzip(path: Path, target: Path, max_bytes: int) -> Path: ...
@overload
def gunzip(path: Path, target: None, max_bytes: int) -> io.BytesIO: ...
def gunzip(path: Path, target: Path | None, max_bytes: int) -> Path | io.BytesIO:
    """Unpack a .gz to a file, or into memory. Raises SourceError where it is damaged or unpacks to more bytes."""
    file = target.open("xb") if target else io.BytesIO()
    size = 0
    try:
        with igzip.open(path, "rb") as source:  # type: ignore[no-untyped-call]
            while block := source.read(READ_BYTES):
                size += file.write(block)
                if size > max_bytes:
                    raise SourceError(f"{path}: it unpacks to more than {max_bytes:,} bytes; that is not PCam's file")
    except (EOFError, igzip.BadGzipFile, InflateError) as error:
        raise SourceError(f"{path}: it is no whole gzip file ({error}); download it again") from error
    finally:
        if target:
            file.close()
    if isinstance(file, io.BytesIO):
        file.seek(0)
        return file
    assert target
    return target
