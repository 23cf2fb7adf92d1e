"""PCam's HDF5 files, its authors' or in other folders, and the published MD5s."""

import io
from pathlib import Path
from typing import NamedTuple, overload

from isal import igzip

from pcam_model.core.errors import SourceError
from pcam_model.core.files import md5
from pcam_model.core.splits import SPLITS, SplitName
from pcam_model.data.file_kinds import describe_wrong_content
from pcam_model.data.hdf5_names import (
    PREFIX,
    clean_name,
    dataset_of,
    find_hdf5,
    is_hdf5,
    is_packed,
    list_files,
    split_name,
    stem_of,
)
from pcam_model.data.zip_block import InflateError

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
    return folder.is_dir() and any(file.name.startswith(PREFIX) for file in find_hdf5(folder))


def find_splits(path: Path) -> list[OfficialSplit]:
    """The splits of a folder of HDF5 files, or of one file and the one beside it; train first.

    Raises:
        SourceError: for images without labels, labels without images, or two files of the same.
    """
    root = path if path.is_dir() else path.parent
    files = find_hdf5(path) if path.is_dir() else _with_pair(path)
    by_split: dict[SplitName, dict[str, Path]] = {}
    for file in files:
        for dataset in dataset_of(file):
            split = by_split.setdefault(split_name(file, root), {})
            split[dataset] = _one_of(split[dataset], file) if dataset in split else file
    metas = {file.name: file for file in list_files(root) if file.name.endswith("_meta.csv")} if by_split else {}
    splits = []
    for name in (name for name in SPLITS if name in by_split):
        present = by_split[name]
        if len(present) == 1:
            raise SourceError(_missing_pair_message(*present.popitem()))
        splits.append(OfficialSplit(name, present["x"], present["y"], metas.get(f"{PREFIX}_{name}_meta.csv")))
    if not splits:
        names = ", ".join(file.name for file in files[:4])
        raise SourceError(
            f"{path}: {names} hold neither x nor y; name the datasets of images x and of labels y, as PCam's files do, "
            "or give another path"
        )
    return splits


def _with_pair(path: Path) -> list[Path]:
    """A file and, where it holds images or labels only, its other half beside it."""
    dataset = dataset_of(path)
    other = {"x": "y", "y": "x"}.get(dataset, "")
    stem = stem_of(path)
    if not other or not stem.endswith(dataset):
        return [path]
    wanted = stem[:-1] + other
    return [path, *[file for file in sorted(path.parent.iterdir()) if is_hdf5(file) and stem_of(file) == wanted]]


def _one_of(first: Path, second: Path) -> Path:
    """Of a file and its packed form, the packed one, which has a published MD5. Raises SourceError for two others."""
    if first.parent != second.parent or stem_of(first) != stem_of(second):
        raise SourceError(
            f"{first} and {second} are of the same split, which takes one file; remove one of them, or give the folder "
            "of one"
        )
    return first if is_packed(first) else second


def _missing_pair_message(dataset: str, path: Path) -> str:
    stem, other = stem_of(path), {"x": "y", "y": "x"}[dataset]
    wanted = f"{stem[:-1]}{other}.h5[.gz]" if stem.endswith(f"_{dataset}") else f"one that ends in _{other}.h5"
    what = "labels" if other == "y" else "images"
    return (
        f"{path} is here, its {what} ({wanted}) are not; images and labels belong together; add the file, or give one "
        "that holds both x and y"
    )


def official_files(path: Path) -> list[str]:
    """The names of the files of all splits, relative to the folder."""
    root = path if path.is_dir() else path.parent
    files = (file for split in find_splits(path) for file in split.files())
    return list(dict.fromkeys(file.relative_to(root).as_posix() for file in files))


def has_published_md5(name: str) -> bool:
    """Whether an MD5 was published for a file of this name."""
    return _key(name) in PUBLISHED_MD5


def _key(name: str) -> str:
    return clean_name(Path(name)).removeprefix(f"{PREFIX}_")


def verify_published_md5(splits: list[OfficialSplit]) -> None:
    """Raise SourceError for a file that has another MD5 than the published one; unpacked HDF5 files have none."""
    for path in (path for split in splits for path in split.files()):
        expected = PUBLISHED_MD5.get(_key(path.name))
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
        reason = describe_wrong_content(path) or f"it is no whole gzip file ({error}); download it again"
        raise SourceError(f"{path}: {reason}") from error
    finally:
        if target:
            file.close()
    if isinstance(file, io.BytesIO):
        file.seek(0)
        return file
    assert target
    return target
