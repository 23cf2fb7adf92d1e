"""Which HDF5 file is what: of which split, and whether it holds images (x) or labels (y)."""

from collections.abc import Sequence
from pathlib import Path

from pcam_model.core.splits import SPLITS, SplitName
from pcam_model.data.container import Folder
from pcam_model.data.file_names import split_of, words

PREFIX = "camelyonpatch_level_2_split"
SUFFIXES = (".h5", ".hdf5")
MAX_DEPTH = 3


def clean_name(path: Path) -> str:
    """The file's name without the query that wget leaves in it, as in x.h5.gz?download=1."""
    return path.name.partition("?")[0]


def is_packed(path: Path) -> bool:
    """Whether a file is packed with gzip, by its name."""
    return clean_name(path).endswith(".gz")


def stem_of(path: Path) -> str:
    """The name of an HDF5 file without .h5, .hdf5 and .gz."""
    name = clean_name(path).removesuffix(".gz")
    return name[: -len(Path(name).suffix)]


def is_hdf5(path: Path) -> bool:
    """Whether a file is HDF5 by its name."""
    return Path(clean_name(path).removesuffix(".gz")).suffix.lower() in SUFFIXES


def find_hdf5(path: Path) -> list[Path]:
    """The HDF5 file at this path, or those below a folder."""
    if path.is_file():
        return [path] if is_hdf5(path) else []
    return [file for file in list_files(path) if is_hdf5(file)] if path.is_dir() else []


def list_files(folder: Path) -> list[Path]:
    """The files below a folder, a few folders deep, sorted."""
    files = Folder(folder, MAX_DEPTH)
    return [files.locate(name) for name in files.names()]


def split_name(path: Path, root: Path) -> SplitName:
    """The split that a file's name, or a folder's between it and `root`, names; train where none does."""
    relative = path.relative_to(root) if path != root else Path(path.name)
    return split_of(str(relative.with_name(stem_of(path)))) or "train"


def dataset_of(path: Path) -> str:
    """x, y, or both as "xy": by the name's last word, else by what the file holds; "" for neither."""
    last = (words(stem_of(path)) or [""])[-1]
    if last in ("x", "y"):
        return last
    if last == "mask":
        return ""
    return "x" if is_packed(path) else _held_datasets(path)


def _held_datasets(path: Path) -> str:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            names = set(file)  # asking for one would follow a link to another file
            return "".join(name for name in "xy" if name in names)
    except Exception:  # h5py raises nearly anything on damage
        return "x"  # opening it says what is wrong with it


def id_prefix(path: Path) -> str:
    """What the ids of a file's rows begin with."""
    stem = stem_of(path)
    split = stem.removeprefix(f"{PREFIX}_").removesuffix("_x")
    return f"pcam-{split}" if stem == f"{PREFIX}_{split}_x" else stem


def in_split_order(files: Sequence[Path], root: Path) -> list[Path]:
    """Files by split, train first, and by path."""
    return sorted(files, key=lambda file: (SPLITS.index(split_name(file, root)), str(file)))
