"""The slides of a source, each with its annotations."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pcam_model.core.errors import ConfigError, SourceError
from pcam_model.data.source import SourceConfig
from pcam_model.slides.annotations import is_annotation_file
from pcam_model.slides.listing import SlideFile, find_slides
from pcam_model.slides.tumour_regions import MASK_SUFFIXES, find_annotation_file


class AnnotatedSlide(NamedTuple):
    """A slide and the file of its annotations."""

    file: SlideFile
    annotations: Path | None
    """None: a slide without tumour."""


def find_annotated(config: SourceConfig) -> list[AnnotatedSlide]:
    """The slides of a source of the kind `slides`.

    Raises:
        ConfigError: no path is given.
        SourceError: there is no slide, or slides and annotations do not belong together.
    """
    if not config.path:
        raise ConfigError("source.kind is slides, but source.path is empty; give the path of a folder of slides")
    path = Path(config.path).expanduser()
    folder = Path(config.annotations).expanduser() if config.annotations else None
    for key, each in (("path", path), ("annotations", folder)):
        if each and not each.exists():
            raise SourceError(f"source.{key} is {each}, but there is no such folder; correct it")
    masks = _own_folder(folder, path)
    found = [file for file in find_slides([path]) if not _is_mask(Path(file.path), masks)]
    slides = [AnnotatedSlide(file, find_annotation_file(file, folder)) for file in found]
    missing = [file for file, annotations in slides if annotations is None]
    if missing and config.unannotated_slides == "refuse":
        raise SourceError(
            f"{len(missing):,} of {len(slides):,} slides have no annotations in {folder or path} (first: "
            f"{missing[0].name}, expected as {missing[0].name}.geojson, .xml or _mask.tif); add them, or set "
            "source.unannotated_slides=normal where such slides hold no tumour"
        )
    if missing:
        folders = [folder] if folder else sorted({Path(file.path).parent for file, _ in slides})
        _require_no_orphans(slides, folders, masks)
    return slides


def _own_folder(folder: Path | None, path: Path) -> Path | None:
    """The folder of annotations where it holds nothing else; None where the slides at `path` are there or below."""
    slides = path.absolute()
    return folder.absolute() if folder and folder.absolute() not in (slides, *slides.parents) else None


def _is_mask(path: Path, masks: Path | None) -> bool:
    """Whether a picture is the mask of a slide: by its name, or since it lies in a folder of masks."""
    inside = masks is not None and masks in path.absolute().parents
    return path.suffix.lower() in MASK_SUFFIXES and (inside or path.stem.lower().endswith("_mask"))


def _require_no_orphans(slides: Iterable[AnnotatedSlide], folders: Iterable[Path], masks: Path | None) -> None:
    """Raise SourceError where annotations are of no slide: their slide would be taken for one without tumour."""
    used = {each.annotations.absolute() for each in slides if each.annotations}
    files = (path for folder in folders for path in sorted(folder.iterdir()) if path.is_file())
    annotations = (path for path in files if is_annotation_file(path) or _is_mask(path, masks))
    orphan = next((path for path in annotations if path.absolute() not in used), None)
    if orphan:
        raise SourceError(
            f"{orphan}: there is no slide of this name; rename it as its slide, or remove it: a slide without "
            "annotations is taken for one without tumour (source.unannotated_slides=normal)"
        )
