"""The options of a slide's prediction, and the record of its result."""

from pathlib import Path

from pydantic import Field, ValidationError

from pcam_model.core.model_metadata import ModelMetadata
from pcam_model.core.schema import Config, Record
from pcam_model.registry.manifest import json_bytes, sha256_hex
from pcam_model.slides.listing import SlideFile, slide_fingerprint
from pcam_model.slides.region_files import find_region_file
from pcam_model.slides.scores import SlideScores

TABLE_FILE, PICTURE_FILE, PYRAMID_FILE = "probabilities.parquet", "heatmap.png", "heatmap.tif"
TISSUE_FILE, RECORD_FILE = "tissue.png", "slide.json"
VERSION = 2
"""Of a slide's files."""


class SlideOptions(Config):
    """How slides are predicted."""

    stride: int = Field(default=32, ge=1, le=96)
    """Pixels between neighbouring patches at the model's scale; 32 takes every centre that a label speaks of once."""
    mpp: float | None = Field(default=None, gt=0, le=20)
    """Microns per pixel of the slides' finest level; empty: as each slide tells."""
    tissue_mask: bool = True
    """Leave out glass, borders and pen."""
    mask: str = ""
    """A mask in place of the tissue's: a QuPath GeoJSON or a picture, or a folder with one named as each slide."""
    tiles: bool = False
    """Write the probability of each cell into the GeoJSON too."""
    view_mpp: float = Field(default=4, ge=0, le=100)
    """Microns per pixel of the slide in `slides.html`; 1 shows cells, 0 leaves it out."""


class SlideResult(Record):
    """The content of slide.json: what was predicted, how, and the slide's scores."""

    name: str
    path: str
    """The slide's file."""
    key: str
    """Digest of slide, model and options."""
    vendor: str
    width: int
    """Of level 0, in pixels."""
    height: int
    """Of level 0, in pixels."""
    mpp: float
    """Microns per pixel of level 0."""
    mpp_source: str
    """Where that comes from: `slide` or `--mpp`."""
    level: int
    """The level that was read."""
    patch_mpp: float
    """Microns per pixel of the patches."""
    stride: int
    """Pixels of the patches between neighbours."""
    model: str
    """The model's run."""
    model_mpp: float
    """Microns per pixel that the model was trained at."""
    threshold: float
    """The probability from which a patch is tumour."""
    tta: bool
    backend: str
    precision: str
    """In which the network was computed."""
    patches: int
    tissue_mm2: float | None
    """Area of the mask; null without one."""
    scores: SlideScores
    seconds: float
    files: dict[str, int]
    """Size in bytes of each file beside this one."""


class SlideFailure(Record):
    """A slide that could not be predicted."""

    name: str
    path: str
    reason: str


class SlideBatch(Record):
    """The outcome of many slides."""

    results: tuple[SlideResult, ...]
    failures: tuple[SlideFailure, ...]
    cached: int
    """How many results were there before."""

    @property
    def ranked(self) -> list[SlideResult]:
        """The results, the largest probability first."""
        return sorted(self.results, key=lambda result: (-result.scores.maximum, result.name))


def result_key(slide: SlideFile, model: ModelMetadata, tta: bool, precision: str, options: SlideOptions) -> str:
    """SHA-256 of all that a slide's result depends on. Raises SourceError where the slide or the mask is not there."""
    mask = find_region_file(Path(options.mask).expanduser(), slide.name) if options.mask else None
    content = {
        "version": VERSION,
        "slide": slide_fingerprint(Path(slide.path)),
        "model": model.model_dump(mode="json", exclude={"folder"}),
        "tta": tta,
        "precision": precision,
        "options": options.model_dump(mode="json", exclude={"mask"}),
        "mask": slide_fingerprint(mask) if mask else "",
    }
    return sha256_hex(json_bytes(content))


def read_result(folder: Path) -> SlideResult | None:
    """The result in a folder, whatever its key; None where there is none, or files are missing or cut."""
    try:
        result = SlideResult.model_validate_json((folder / RECORD_FILE).read_bytes())
        sizes = {name: (folder / name).stat().st_size for name in result.files}
    except (OSError, ValidationError):
        return None
    return result if sizes == result.files else None
