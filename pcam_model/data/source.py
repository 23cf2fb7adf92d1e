"""The source of the patches: its config, and the archive that it resolves to with its digest."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from pcam_model.core.errors import ConfigError, SourceError
from pcam_model.core.files import sha256
from pcam_model.core.pixel_size import PCAM_MPP, PixelSize
from pcam_model.core.schema import Config, Record
from pcam_model.data import sample
from pcam_model.data.annotation_classes import IGNORED_CLASSES, NORMAL_CLASSES, TUMOUR_CLASSES
from pcam_model.data.container import Folder, readable_name
from pcam_model.data.layouts import find_layout
from pcam_model.data.official_download import fetch_official
from pcam_model.data.official_files import has_published_md5, holds_official, official_files

SAMPLE_COUNT = 2000


class SourceConfig(Config):
    """The patches to train on."""

    kind: Literal["sample", "kaggle", "path", "slides"] = "sample"
    """sample: generated patches; kaggle: the competition's archive; path: a .zip or a folder of your own; slides: a
    folder of whole slides with annotations."""
    path: str = ""
    """For kind `path`: a .zip, .tar or folder of images with train_labels.csv or in class folders, PCam's HDF5 files or
    their web address, or parquet shards. For kind `slides`: a folder of slides."""
    classes: tuple[str, ...] = ()
    """Names of class 0 and class 1 in folders or in the table of labels, as `[benign, malignant]`; empty: the usual."""
    verify_md5: bool = True
    """Refuse official HDF5 files whose MD5 is not the published one."""
    max_patches: int | None = Field(default=None, ge=2)
    """Take this many labelled patches, chosen by the seed, classes in proportion; for `sample`, generate this many.
    null: all, and 2,000 for `sample`."""
    mpp: float | None = Field(default=None, gt=0, le=20)
    """Microns per pixel of the patches; null: 0.972, as of Kaggle's set and PCam's files; of your own patches that is
    assumed, with a line in the log. Slides are cut at this scale."""
    slides: str = ""
    """A CSV with the columns id,wsi that names the slide of each patch, and perhaps its domain (centre, scanner)."""
    annotations: str = ""
    """For kind `slides`: the folder of QuPath's GeoJSON, ASAP's XML or masks, each named as its slide; empty: beside
    the slides."""
    tumour_classes: tuple[str, ...] = TUMOUR_CLASSES
    """Classes of annotations that are tumour."""
    normal_classes: tuple[str, ...] = NORMAL_CLASSES
    """Classes of annotations that are no tumour, also within tumour."""
    ignored_classes: tuple[str, ...] = IGNORED_CLASSES
    """Classes of annotations of which no patch is taken."""
    unannotated_slides: Literal["refuse", "normal"] = "refuse"
    """refuse: a slide without annotations stops the run; normal: it holds no tumour."""
    unannotated_tissue: Literal["normal", "ignore"] = "normal"
    """Of tissue outside of all annotations, normal: it is no tumour; ignore: no patch of it is taken."""
    max_per_slide: int = Field(default=2000, ge=2)
    """Patches of a slide at most, half of them of each class; the classes are balanced over all slides."""
    slide_mpp: float | None = Field(default=None, gt=0, le=20)
    """Microns per pixel of the slides' finest level; null: as each slide tells."""
    hard_negatives: str = ""
    """A run or channel, as `champion`: half of the patches without tumour are those of the highest probability."""
    on_bad_patch: Literal["stop", "quarantine"] = "stop"
    """stop: an image that is no patch stops the run; quarantine: it is set aside and listed."""
    max_bad_fraction: float = Field(default=0.01, ge=0, le=1)
    """With `quarantine`: a larger share of bad patches stops the run all the same."""

    @field_validator("classes", mode="before")
    @classmethod
    def _classes_are_names(cls, classes: object) -> object:
        """Numbers as names; YAML reads [no, yes] as truth values, which are refused."""
        if not isinstance(classes, list | tuple):
            return classes
        if any(isinstance(each, bool) for each in classes):
            raise ValueError("source.classes holds words that YAML reads as truth values; write them in quotes")
        return [str(each) if isinstance(each, int | float) else each for each in classes]

    @model_validator(mode="after")
    def _names_two_classes(self) -> "SourceConfig":
        if len(set(self.classes)) not in (0, 2) or len(self.classes) > 2:
            raise ValueError(f"source.classes is {list(self.classes)}; name two classes, 0 first, or none")
        return self

    @model_validator(mode="after")
    def _has_no_slide_map(self) -> "SourceConfig":
        if self.kind == "slides" and self.slides:
            raise ValueError("source.slides is a map of patches to slides, which kind `slides` knows; leave it empty")
        return self

    @property
    def is_remote(self) -> bool:
        """Whether the path is a web address."""
        return self.kind == "path" and self.path.startswith(("http://", "https://"))

    @property
    def is_bucket(self) -> bool:
        """Whether the path is the address of an object or a prefix in an S3 bucket."""
        return self.kind == "path" and self.path.startswith("s3://")


def pixel_size(config: SourceConfig) -> PixelSize:
    """The pixel size of a source's patches: the configured one, else PCam's, assumed where the patches are others."""
    if config.mpp is not None:
        return PixelSize(config.mpp, assumed=False)
    known = config.kind != "path" or config.is_remote or holds_official(Path(config.path).expanduser())
    return PixelSize(PCAM_MPP, assumed=not known)


class Archive(Record):
    """A source on this machine: a file or a folder, with the digest of its content."""

    path: str
    """The .zip or the folder; empty for the sample."""
    sha256: str
    """Digest of the content; for the sample, of the arguments that it is generated from."""
    source: str
    """The source in a person's words."""
    hard_negatives: str = ""
    """For slides: the folder of the model that mines hard negatives; empty without one."""


def fetch(
    config: SourceConfig,
    seed: int,
    downloads: Path | None = None,
    fetch_bucket: Callable[[str, Path], Path] | None = None,
) -> Archive:
    """The config's source with its digest; what is at an address is downloaded.

    Args:
        config: the source.
        seed: of the sample.
        downloads: the folder for downloads; without it, an address is refused.
        fetch_bucket: downloads an s3:// address into that folder, as `registry.bucket_source.fetch_bucket`.

    Raises:
        ConfigError: it cannot be had from here.
        SourceError: it is not there, or not what it should be.
        TransientError: the web address cannot be reached.
    """
    if config.kind == "sample":
        return sample_archive(config, seed)
    if config.kind == "kaggle":
        raise ConfigError(
            "source.kind is kaggle, which only a training run downloads; give the path of a downloaded "
            "histopathologic-cancer-detection.zip here (source.kind=path source.path=FILE)"
        )
    if config.kind == "slides":
        raise ConfigError(
            "source.kind is slides, which only a training run cuts into patches; give patches here (source.kind=path)"
        )
    if not config.path:  # no validator says so: the preset `quick` is a config whose path its user adds
        raise ConfigError("source.kind is path, but source.path is empty; give the path of a .zip or a folder")
    if not (config.is_remote or config.is_bucket):
        return local_archive(Path(config.path).expanduser())
    if downloads is None or (config.is_bucket and fetch_bucket is None):
        raise ConfigError(
            f"source.path is the address {config.path}, and nothing is downloaded here; give a file or a folder"
        )
    if config.is_bucket and fetch_bucket:
        return local_archive(fetch_bucket(config.path, downloads), config.path)
    return local_archive(fetch_official(config.path, downloads, verify_md5=config.verify_md5), config.path)


def sample_archive(config: SourceConfig, seed: int) -> Archive:
    """The generated sample, identified by version, count and seed."""
    count = config.max_patches or SAMPLE_COUNT
    arguments = f"pcam sample {sample.VERSION} {count} {seed}"
    return Archive(
        path="", sha256=hashlib.sha256(arguments.encode()).hexdigest(), source=f"sample of {count:,} generated patches"
    )


def local_archive(path: Path, name: str = "") -> Archive:
    """What is at `path`, which is opened to see its layout; `name` is for people."""
    if readable_name(str(path)) != str(path).replace("\\", "/"):
        raise SourceError(f"{readable_name(str(path))}: this name is no UTF-8, expected one that is; rename it")
    layout = find_layout(path)
    if layout == "hdf5":
        files = official_files(path)
        unverified = "" if all(map(has_published_md5, files)) else ", in part unpacked, for which no MD5 was published"
        source = f"{name or path.name} (PCam's HDF5{unverified})"
        folder = path if path.is_dir() else path.parent
        return Archive(path=str(path.resolve()), sha256=files_digest(folder, files), source=source)
    digest = sha256(path) if path.is_file() else folder_digest(path)
    return Archive(path=str(path.resolve()), sha256=digest, source=f"{name or path.name} ({layout})")


def folder_digest(path: Path) -> str:
    """SHA-256 over the names and digests of all files of a folder."""
    folder = Folder(path)
    return files_digest(path, sorted(folder.locate(name).relative_to(path).as_posix() for name in folder.names()))


def files_digest(folder: Path, names: list[str]) -> str:
    """SHA-256 over the names and digests of these files of a folder."""
    total = hashlib.sha256()
    for name in names:
        try:
            total.update(f"{name}\0{sha256(folder / name)}\n".encode(errors="surrogateescape"))
        except OSError as error:
            path = folder / name
            if path.is_symlink() and not path.exists():
                reason = f"it is a link to {path.readlink()}, which is not there; bring the file there, or remove it"
            else:
                reason = f"it cannot be read ({error.strerror}); make it readable, or remove it"
            raise SourceError(f"{path}: {reason}") from error
    return total.hexdigest()
