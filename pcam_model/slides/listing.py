"""The slides that a user names: files, and folders that are searched."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from pcam_model.core.errors import SourceError
from pcam_model.core.schema import Record

SUFFIXES = {".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".svslide", ".vms", ".vmu", ".czi"}
DICOM_SUFFIXES = {".dcm", ".dicom"}
HEAD_BYTES = 2**20
UNSAFE = re.compile(r"[^\w. -]|^\.+")


class SlideFile(Record):
    """A slide to predict."""

    name: str
    """Unique, and the folder of its results; a slide in a subfolder is named after that too, as in `day1-a`."""
    path: str


def find_slides(paths: Sequence[Path]) -> list[SlideFile]:
    """The slides among files and in folders at any depth, in order; a folder of DICOM files is one slide.

    A file that is named is listed whatever it is: opening it says what is wrong.

    Raises:
        SourceError: a folder holds no slide.
    """
    found: dict[Path, str] = {}
    for path in paths:
        for file, name in _search(path) if path.is_dir() else [(path, Path(path.name))]:
            found.setdefault(file.absolute(), "-".join(UNSAFE.sub("_", part) for part in name.parts))
    stems = {file: _without_suffix(name, file) for file, name in found.items()}
    counts = Counter(stems.values())  # the suffix is kept, and then a digest added, where names would be the same
    names = {file: stem if counts[stem] == 1 else found[file] for file, stem in stems.items()}
    counts = Counter(names.values())
    return [
        SlideFile(name=name if counts[name] == 1 else f"{name}-{_path_digest(file)}", path=str(file))
        for file, name in names.items()
    ]


def slide_fingerprint(path: Path) -> str:
    """SHA-256 over name, size, time of change and first MiB of a slide's files: another one where a slide is replaced.

    Raises:
        SourceError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for file in _slide_files(path):
            status = file.stat()
            digest.update(f"{file.name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
            with file.open("rb") as content:
                digest.update(content.read(HEAD_BYTES))
    except OSError as error:
        raise SourceError(f"{path}: it cannot be read ({error.strerror})") from error
    return digest.hexdigest()


def _search(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Each slide below a folder, with its name relative to that."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    visible = [path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    series: set[Path] = set()
    count = 0
    for path in visible:
        if path.suffix.lower() in DICOM_SUFFIXES and path.parent not in series:
            series.add(path.parent)
            name = path.parent.relative_to(folder) if path.parent != folder else Path(folder.absolute().name)
        elif path.suffix.lower() in SUFFIXES:
            name = path.relative_to(folder)
        else:
            continue
        count += 1
        yield path, name
    if not count:
        kinds = ", ".join(sorted(suffix[1:] for suffix in SUFFIXES | DICOM_SUFFIXES))
        raise SourceError(f"{folder}: no slide is among its {len(files):,} files; expected one of {kinds}")


def _slide_files(path: Path) -> list[Path]:
    """The files of a slide: itself, the others of a DICOM series, the folder beside an MRXS."""
    if path.suffix.lower() in DICOM_SUFFIXES:
        return sorted(file for file in path.parent.iterdir() if file.suffix.lower() in DICOM_SUFFIXES)
    data = path.with_suffix("")
    beside = sorted(data.iterdir()) if path.suffix.lower() == ".mrxs" and data.is_dir() else []
    return [path, *(file for file in beside if file.is_file())]


def _without_suffix(name: str, file: Path) -> str:
    return name[: -len(file.suffix)] if name.lower().endswith(file.suffix.lower()) and file.suffix else name


def _path_digest(path: Path) -> str:
    return hashlib.sha256(str(path).encode()).hexdigest()[:8]
