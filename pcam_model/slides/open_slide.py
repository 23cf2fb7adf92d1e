"""The choice of a reader for a slide."""

from pathlib import Path

from pcam_model.core.errors import SourceError, require_package
from pcam_model.slides.reader import SlideReader


def open_slide(path: Path) -> SlideReader:
    """Open a whole-slide image: SVS, NDPI, MRXS, SCN, BIF, tiled TIFF or DICOM.

    Raises:
        SourceError: it is not there, or no slide.
        MissingPackageError: the reader is not installed.
    """
    if not path.exists():
        raise SourceError(f"{path}: there is no such file; give the path of a slide")
    with require_package("reading a slide", extra="slides"):
        from pcam_model.slides.openslide_reader import OpenSlideReader
    return OpenSlideReader(path)
