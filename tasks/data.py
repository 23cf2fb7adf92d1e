"""Tasks of the data wing: download, pack, split."""

from pathlib import Path

from prefect import task

from pcam_model.data import pack as packing
from pcam_model.data import source as sources
from pcam_model.data import split as splitting
from pcam_model.data.pack_identity import asked
from pcam_model.data.quality import SHEET, Look, LookPlan, look_at
from pcam_model.data.pack import Pack
from pcam_model.data.source import Archive, SourcePlan
from pcam_model.data.split import Split, SplitPlan
from pcam_model.data.pack_verification import verify_as
from pcam_model.core.errors import BadModel
from pcam_model.core.files import room_on_disk
from pcam_model.core.paths import cache_folder
from pcam_model.registry.datasets import dataset_of, fetch_dataset, keep_dataset
from pcam_model.registry.backends.base import StoreAway
from pcam_model.registry.workspace import Workspace
from tasks.policy import within
from tasks.progress import progress, show_picture, show_table


@task(**within(hours=12))
def kept(place: Workspace, plan: SourcePlan, seed: int) -> Pack | None:
    """The pack of a source that is downloaded, where this machine or the store has it: nobody is asked twice."""
    known = asked(plan, seed)
    if known is None:
        return None
    packs = cache_folder() / "packs"
    try:
        digest = dataset_of(place.run_store.store, known)
        if digest is None:
            return None
        found = packing.find_pack(packs, digest)
        if found is None:
            print(f"Pack: taking {digest[:12]} from {place.store}")
            fetch_dataset(place.run_store.store, digest, packs / digest, lambda folder: verify_as(digest, folder))
            found = packing.open_pack(packs / digest)
    except (StoreAway, BadModel) as error:
        print(f"{error}. Going on: the source is asked instead")
        return None
    print(f"Pack: {found.count:,} patches of {found.source}, made before, digest {digest[:12]}, in {found.folder}")
    return found


@task(**within(hours=12))
def keep(place: Workspace, pack: Pack, plan: SourcePlan, seed: int) -> None:
    """A pack of what was downloaded goes to the store, for the next machine; own patches stay where they are."""
    known = asked(plan, seed)
    if known is None:
        return
    try:
        keep_dataset(place.run_store.store, known, pack.digest, Path(pack.folder))
    except StoreAway as error:
        print(f"{error}. Going on: the pack is on this machine only, in {pack.folder}")


@task(**within(hours=24))
def download(plan: SourcePlan, seed: int) -> Archive:
    """Find the source, and take its digest."""
    downloads = cache_folder() / "downloads"
    if plan.kind == "kaggle":
        # Kaggle's client signs in at its import, so it is imported where it is asked for.
        from tasks.kaggle.client import download_competition

        archive = download_competition(downloads)
    else:
        archive = sources.fetch(plan, seed, downloads)
    print(f"Source: {archive.source}, sha256 {archive.sha256[:12]}")
    return archive


@task(**within(hours=6))
def pack(archive: Archive, plan: SourcePlan, seed: int) -> Pack:
    """One uint8 array of all patches, made once a machine."""
    packs = cache_folder() / "packs"
    with room_on_disk(packs), progress("packing") as tell:
        made = packing.build_pack(archive, plan, packs, seed, tell)
    print(f"Pack: {made.count:,} patches ({made.labelled:,} labelled), digest {made.digest[:12]}, in {made.folder}")
    if made.quarantined:
        first = packing.quarantine(made)[0]
        print(f"Quarantine: {made.quarantined:,} images set aside (first: {first['id']}, {first['reason']})")
    return made


@task(**within(hours=2))
def look(place: Workspace, pack: Pack, plan: LookPlan, seed: int) -> Look:
    """A look at the data before the expensive part starts: what would spoil the run stops it here."""

    def make(folder: Path) -> Look:
        return look_at(pack, plan, folder, seed)

    seen = place.once("look", Look, make, {"pack": pack.digest})
    for said in (seen.described(), *seen.warnings):
        print(f"Look: {said}")
    show_table("colours", seen.colours(), "Mean and standard deviation of each channel, beside those of Kaggle's set")
    show_picture("patches", place.room("look") / SHEET, "Patches of each class, drawn at random")
    return seen


@task(**within(hours=2))
def split(place: Workspace, pack: Pack, plan: SplitPlan) -> Split:
    """Who is train, valid or test, with the proof that nobody is on two sides."""

    def make(folder: Path) -> Split:
        return splitting.make_split(pack, plan, folder)

    made = place.once("split", Split, make, {"pack": pack.digest})
    counts = ", ".join(f"{sum(classes.values()):,} {side}" for side, classes in made.counts.items())
    print(f"Split: {made.kind} ({counts}). {made.meaning}")
    return made
