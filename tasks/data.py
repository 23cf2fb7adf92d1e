"""Tasks on the data: download, pack, data checks, split."""

import logging
from pathlib import Path
from typing import Any

from pcam_model.config import TrainConfig
from pcam_model.core.errors import ModelError
from pcam_model.core.log import log
from pcam_model.core.paths import cache_dir
from pcam_model.core.write_guard import write_guard
from pcam_model.data import pack as packing
from pcam_model.data import quality
from pcam_model.data import source as sources
from pcam_model.data import split as splitting
from pcam_model.data.pack import Pack
from pcam_model.data.pack_identity import remote_pack_key
from pcam_model.data.pack_verification import verify_pack_digest
from pcam_model.data.quality import SHEET, QualityReport
from pcam_model.data.source import Archive
from pcam_model.data.split import Split
from pcam_model.registry.backends.base import StoreUnavailable
from pcam_model.registry.bucket_source import fetch_bucket
from pcam_model.registry.datasets import fetch_dataset, find_dataset, upload_dataset
from pcam_model.registry.workspace import Workspace
from pcam_model.slides.slide_source import open_slide_patches, slides_archive
from pcam_model.training.context import TrainingContext
from tasks.policy import retried, step
from tasks.progress import progress, show_picture, show_table


def find_stored_pack(workspace: Workspace, config: TrainConfig) -> Pack | None:
    """The pack of a source that is downloaded, from this machine or else from the store; None where neither has it.

    A store that is away or damaged is logged: the source is downloaded instead.
    """
    try:
        digest = _stored_digest(workspace, remote_pack_key(config.source, config.seed))
        if digest is None:
            return None
        pack = packing.find_pack(cache_dir() / "packs", digest) or fetch_pack(workspace, digest)
    except (StoreUnavailable, ModelError) as error:
        log.warning("%s. The source is used instead", error)
        return None
    log.info("Pack: %s patches of %s, made before, digest %s, in %s", f"{pack.count:,}", pack.source, digest[:12],
             pack.folder)  # fmt: skip
    return packing.with_pixel_size(pack, config.source)


@retried(hours=1)
def _stored_digest(workspace: Workspace, key: dict[str, Any] | None) -> str | None:
    return None if key is None else find_dataset(workspace.run_store.store, key)


@step("download", hours=12)
def fetch_pack(workspace: Workspace, digest: str) -> Pack:
    """Download a pack from the store."""
    log.info("Pack: downloading %s from %s", digest[:12], workspace.store)
    folder = cache_dir() / "packs" / digest
    fetch_dataset(workspace.run_store.store, digest, folder, lambda part: verify_pack_digest(part, digest))
    return packing.open_pack(folder)


def store_pack(workspace: Workspace, pack: Pack, config: TrainConfig) -> None:
    """Upload the pack of a source that is downloaded, for other machines; the user's own patches are not uploaded."""
    key = remote_pack_key(config.source, config.seed)
    if key is None:
        return
    try:
        upload_pack(workspace, pack, key)
    except StoreUnavailable as error:
        log.warning("%s. The pack is on this machine only, in %s", error, pack.folder)


@step("store pack", hours=12)
def upload_pack(workspace: Workspace, pack: Pack, key: dict[str, Any]) -> None:
    """Upload a pack to the store, under the key of its source."""
    upload_dataset(workspace.run_store.store, key, pack.digest, Path(pack.folder))


def _source_task_name(parameters: dict[str, Any]) -> str:
    source = parameters["config"].source
    return "download" if source.kind == "kaggle" or source.is_remote or source.is_bucket else "source"


@step("download", hours=24, run_name=_source_task_name)
def download(config: TrainConfig, store: str) -> Archive:
    """Download the source, or find it on this machine; with its digest. `store` has the model for hard negatives."""
    downloads = cache_dir() / "downloads"
    if config.source.kind == "kaggle":
        # Kaggle's client signs in when it is imported, so it is imported only where it is used.
        from tasks.kaggle.client import download_competition

        archive = download_competition(downloads)
    elif config.source.kind == "slides":
        archive = slides_archive(config.source, config.seed, store)
    else:
        archive = sources.fetch(config.source, config.seed, downloads, fetch_bucket)
    log.info("Source: %s, sha256 %s", archive.source, archive.sha256[:12])
    return archive


@step("pack", hours=6)
def pack(archive: Archive, config: TrainConfig) -> Pack:
    """Write all patches into one uint8 array, unless this machine has it already."""
    packs = cache_dir() / "packs"
    with write_guard(packs), progress("packing") as on_progress:
        built = packing.build_pack(archive, config.source, packs, config.seed, on_progress, open_slide_patches)
    log.info("Pack: %s patches (%s labelled), digest %s, in %s", f"{built.count:,}", f"{built.labelled:,}",
             built.digest[:12], built.folder)  # fmt: skip
    if built.mpp_assumed:
        log.info("Pixel size: %g microns per pixel are assumed, as in PCam; give source.mpp where yours is another",
                 built.mpp)  # fmt: skip
    if built.quarantined:
        first = packing.read_quarantine(built)[0]
        log.warning("Quarantine: %s images left out (first: %s, %s)", f"{built.quarantined:,}", first["id"],
                    first["reason"])  # fmt: skip
    return built


@step("data checks", hours=2)
def check_quality(workspace: Workspace, pack: Pack, config: TrainConfig) -> QualityReport:
    """Check the patches against the limits of `data_checks`, before the expensive part begins."""

    def make(folder: Path) -> QualityReport:
        return quality.check_quality(pack, config.data_checks, folder, config.seed)

    report = workspace.run_step("data_checks", QualityReport, make, {"pack": pack.digest})
    log.info("Data: %s", report.summary())
    level = logging.INFO if config.source.kind == "sample" else logging.WARNING  # generated patches look like no tissue
    for warning in report.warnings:
        log.log(level, "Data: %s", warning)
    show_table(
        "colours", report.colour_rows(), "Mean and standard deviation of each channel, beside those of Kaggle's set"
    )
    show_picture("patches", workspace.step_dir("data_checks") / SHEET, "Patches of each class, drawn at random")
    return report


@step("split", hours=2)
def split(workspace: Workspace, pack: Pack, config: TrainConfig) -> TrainingContext:
    """Assign each labelled patch to train, valid or test, so that no slide and no duplicate is in two of them.

    Returns:
        The split, with everything else that training needs.
    """

    def make(folder: Path) -> Split:
        return splitting.make_split(pack, config.split, folder)

    result = workspace.run_step("split", Split, make, {"pack": pack.digest})
    counts = ", ".join(f"{sum(classes.values()):,} {name}" for name, classes in result.counts.items())
    log.info("Split: %s (%s): %s", result.kind, counts, result.meaning)
    return TrainingContext(pack=pack, split=result, model=config.model, seed=config.seed, compute=config.compute)
