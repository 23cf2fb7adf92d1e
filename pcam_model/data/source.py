"""Where patches come from: which source is meant, and what exactly lies there."""

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import Field

from pcam_model.core.errors import ConfigError, SourceError
from pcam_model.core.files import sha256
from pcam_model.core.schema import Config, Record
from pcam_model.data import sample
from pcam_model.data.container import Zip, open_container
from pcam_model.data.official_download import fetch_official
from pcam_model.data.official_files import has_sum, holds_official, official_files

SAMPLE_COUNT = 2000


class SourceConfig(Config):
    """Which patches."""

    kind: Literal["sample", "kaggle", "path"] = "sample"
    """sample: generated here; kaggle: the competition's archive; path: a .zip or a folder of your own."""
    path: str = ""
    """For kind `path`: a Kaggle-layout .zip or folder, or the folder or web address of PCam's official HDF5 files."""
    verify_md5: bool = True
    """Refuse official HDF5 files whose MD5 is not the published one."""
    max_patches: int | None = Field(default=None, ge=2)
    """Take this many labelled patches, chosen by the seed, classes in proportion; for `sample`, make this many."""
    slides: str = ""
    """A CSV with the columns id,wsi that names the slide of each patch."""
    on_bad_patch: Literal["stop", "quarantine"] = "stop"
    """An image that is no patch stops the packing, or is set aside and listed."""
    max_bad_fraction: float = Field(default=0.01, ge=0, le=1)
    """With `quarantine`: a larger share of bad patches than this stops the packing all the same."""

    @property
    def remote(self) -> bool:
        """Whether the path is a web address."""
        return self.kind == "path" and self.path.startswith(("http://", "https://"))


class Archive(Record):
    """A source that is there: a file or a folder, with the digest of its content."""

    path: str
    """The .zip or the folder; empty for the sample."""
    sha256: str
    """Digest of the whole content; for the sample, of what it is generated from."""
    source: str
    """The source in a person's words."""


def fetch(config: SourceConfig, seed: int, downloads: Path | None = None) -> Archive:
    """The config's source, found and its digest taken.

    `downloads`: the folder for what comes from a web address. Raises ConfigError, SourceError, or Transient where the address
    cannot be reached.
    """
    if config.kind == "sample":
        return sample_archive(config, seed)
    if config.kind == "kaggle":
        raise ConfigError(
            "source.kind is kaggle, which only a training run downloads; give the path of a downloaded "
            "histopathologic-cancer-detection.zip here (source.kind=path source.path=FILE)"
        )
    if not config.path:
        raise ConfigError("source.kind is path, but source.path is empty; give the path of a .zip or a folder")
    if not config.remote:
        return local_archive(Path(config.path).expanduser())
    if downloads is None:
        raise ConfigError(
            f"source.path is the address {config.path}, and nothing is downloaded here; give a file or a folder"
        )
    return local_archive(fetch_official(config.path, downloads, published=config.verify_md5), config.path)


def sample_archive(config: SourceConfig, seed: int) -> Archive:
    """What the sample is a function of: version, count and seed."""
    count = config.max_patches or SAMPLE_COUNT
    recipe = f"pcam sample {sample.VERSION} {count} {seed}"
    return Archive(
        path="", sha256=hashlib.sha256(recipe.encode()).hexdigest(), source=f"sample of {count:,} generated patches"
    )


def local_archive(path: Path, name: str = "") -> Archive:
    """A zip or a folder, once it can be opened; `name`: what a person calls it."""
    if holds_official(path):
        files = official_files(path)
        checked = "" if all(map(has_sum, files)) else ", in part unpacked, for which no MD5 was published"
        source = f"{name or path.name} (PCam's HDF5{checked})"
        return Archive(path=str(path.resolve()), sha256=files_digest(path, files), source=source)
    container = open_container(path)
    container.close()
    digest = sha256(path) if isinstance(container, Zip) else folder_digest(path)
    return Archive(path=str(path.resolve()), sha256=digest, source=f"{path.name} (Kaggle layout)")


def folder_digest(path: Path) -> str:
    """SHA-256 over the names and digests of a folder's files."""
    return files_digest(path, sorted(open_container(path).names()))


def files_digest(folder: Path, names: list[str]) -> str:
    """SHA-256 over names and digests."""
    total = hashlib.sha256()
    for name in names:
        try:
            total.update(f"{name}\0{sha256(folder / name)}\n".encode())
        except OSError as error:
            raise SourceError(
                f"{folder / name}: it cannot be read ({error.strerror}); make it readable, or remove it"
            ) from error
    return total.hexdigest()
