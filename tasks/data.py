"""Tasks of the data wing: download, pack, split."""

from pathlib import Path

from prefect import task

from pcam_model.config import TrainConfig
from pcam_model.core.errors import ModelError
from pcam_model.core.files import disk_space_guard
from pcam_model.core.paths import cache_dir
from pcam_model.data import pack as packing
from pcam_model.data import quality
from pcam_model.data import source as sources
from pcam_model.data import split as splitting
from pcam_model.data.pack import Pack
from pcam_model.data.pack_identity import asked
from pcam_model.data.pack_verification import verify_as
from pcam_model.data.quality import SHEET, QualityReport
from pcam_model.data.source import Archive
from pcam_model.data.split import Split
from pcam_model.registry.backends.base import StoreUnavailable
from pcam_model.registry.datasets import fetch_dataset, find_dataset, upload_dataset
from pcam_model.registry.workspace import Workspace
from tasks.policy import retry_policy
from tasks.progress import progress, show_picture, show_table


@task(**retry_policy(hours=12))
def find_stored_pack(workspace: Workspace, config: TrainConfig) -> Pack | None:
    """The pack of a source that is downloaded, where this machine or the store has it: nobody is asked twice."""
    known = asked(config.source, config.seed)
    if known is None:
        return None
    packs = cache_dir() / "packs"
    try:
        digest = find_dataset(workspace.run_store.store, known)
        if digest is None:
            return None
        found = packing.find_pack(packs, digest)
        if found is None:
            print(f"Pack: taking {digest[:12]} from {workspace.store}")
            fetch_dataset(workspace.run_store.store, digest, packs / digest, lambda folder: verify_as(digest, folder))
            found = packing.open_pack(packs / digest)
    except (StoreUnavailable, ModelError) as error:
        print(f"{error}. Going on: the source is asked instead")
        return None
    print(f"Pack: {found.count:,} patches of {found.source}, made before, digest {digest[:12]}, in {found.folder}")
    return found


@task(**retry_policy(hours=12))
def store_pack(workspace: Workspace, pack: Pack, config: TrainConfig) -> None:
    """A pack of what was downloaded goes to the store, for the next machine; own patches stay where they are."""
    known = asked(config.source, config.seed)
    if known is None:
        return
    try:
        upload_dataset(workspace.run_store.store, known, pack.digest, Path(pack.folder))
    except StoreUnavailable as error:
        print(f"{error}. Going on: the pack is on this machine only, in {pack.folder}")


@task(**retry_policy(hours=24))
def download(config: TrainConfig) -> Archive:
    """Find the source, and take its digest."""
    downloads = cache_dir() / "downloads"
    if config.source.kind == "kaggle":
        # Kaggle's client signs in at its import, so it is imported where it is asked for.
        from tasks.kaggle.client import download_competition

        archive = download_competition(downloads)
    else:
        archive = sources.fetch(config.source, config.seed, downloads)
    print(f"Source: {archive.source}, sha256 {archive.sha256[:12]}")
    return archive


@task(**retry_policy(hours=6))
def pack(archive: Archive, config: TrainConfig) -> Pack:
    """One uint8 array of all patches, made once a machine."""
    packs = cache_dir() / "packs"
    with disk_space_guard(packs), progress("packing") as tell:
        made = packing.build_pack(archive, config.source, packs, config.seed, tell)
    print(f"Pack: {made.count:,} patches ({made.labelled:,} labelled), digest {made.digest[:12]}, in {made.folder}")
    if made.quarantined:
        first = packing.quarantine(made)[0]
        print(f"Quarantine: {made.quarantined:,} images set aside (first: {first['id']}, {first['reason']})")
    return made


@task(**retry_policy(hours=2))
def check_quality(workspace: Workspace, pack: Pack, config: TrainConfig) -> QualityReport:
    """A look at the data before the expensive part starts: what would spoil the run stops it here."""

    def make(folder: Path) -> QualityReport:
        return quality.check_quality(pack, config.data_checks, folder, config.seed)

    seen = workspace.run_step("look", QualityReport, make, {"pack": pack.digest})
    for said in (seen.described(), *seen.warnings):
        print(f"Look: {said}")
    show_table("colours", seen.colours(), "Mean and standard deviation of each channel, beside those of Kaggle's set")
    show_picture("patches", workspace.room("look") / SHEET, "Patches of each class, drawn at random")
    return seen


@task(**retry_policy(hours=2))
def split(workspace: Workspace, pack: Pack, config: TrainConfig) -> Split:
    """Who is train, valid or test, with the proof that nobody is on two sides."""

    def make(folder: Path) -> Split:
        return splitting.make_split(pack, config.split, folder)

    made = workspace.run_step("split", Split, make, {"pack": pack.digest})
    counts = ", ".join(f"{sum(classes.values()):,} {side}" for side, classes in made.counts.items())
    print(f"Split: {made.kind} ({counts}). {made.meaning}")
    return made
