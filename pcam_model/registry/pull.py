"""A published model on this machine: verified, resumable, and there as a whole or not at all."""

import os
import shutil
from pathlib import Path

from pcam_model.errors import BadModel, StoreError
from pcam_model.files import room_on_disk, write_whole
from pcam_model.registry.channels import read_channel
from pcam_model.registry.formats import refuse_pickle, refuse_unsafe_names
from pcam_model.registry.manifest import Manifest, Published, digest_of, parse_manifest, read_manifest
from pcam_model.registry.naming import NAME
from pcam_model.registry.store import Store
from pcam_model.registry.streams import alone_in, fetch_files, same_file

PARTS = ("model", "report")
MANIFEST = "manifest.json"


def resolve(store: Store, name: str) -> str:
    """The run that a name means: a channel's, where there is such a channel, else the run of that name."""
    channel = read_channel(store, name) if NAME.fullmatch(name) else None
    return channel.run if channel else name


def pull(store: Store, name: str, folder: Path, parts: tuple[str, ...] = PARTS) -> Published:
    """Fetch a published run into a folder, which appears whole.

    A pull that was broken off is gone on with; a folder that already holds the same is only checked.

    Args:
        store: Where it is.
        name: A channel or a run.
        folder: A new or empty folder; the run's layout goes into it, with its manifest.
        parts: Which folders of the run; () for everything.

    Raises:
        BadModel: It is not published, not whole, holds another size or digest, or a kind of file that may run code.
        StoreError: The folder holds something else.
        DiskFull: There is no room; nothing is left.
    """
    run = resolve(store, name)
    manifest, published = read_manifest(store, run)
    files = {path: file for path, file in manifest.files.items() if not parts or path.split("/")[0] in parts}
    refuse_unsafe_names(published.uri, list(files))
    folder = Path(os.path.abspath(folder))
    if _holds(folder, manifest.model_copy(update={"files": files}), published):
        return published
    part = folder.with_name(f".{folder.name}.{published.digest[:16]}.part")
    with alone_in(part):
        if _holds(folder, manifest.model_copy(update={"files": files}), published):
            return published
        try:
            fetch_files(store, f"runs/{run}/", files, part)
            for path in files:
                refuse_pickle(part / path, f"{published.uri}/{path}")
            with room_on_disk(folder):
                write_whole(part / MANIFEST, store.read(f"runs/{run}/{MANIFEST}"))
        except BadModel:
            shutil.rmtree(part, ignore_errors=True)
            raise
        _appear(part, folder)
    return published


def verify_folder(folder: Path) -> Manifest:
    """The manifest of a pulled folder, whose files are what it says; else `BadModel`."""
    content = (folder / MANIFEST).read_bytes()
    manifest = parse_manifest(content, str(folder / MANIFEST))
    for path, file in manifest.files.items():
        if (folder / path).exists() and not same_file(folder / path, file):
            raise BadModel(f"{folder / path} is not what was published; delete {folder} and pull again")
    return manifest


def _holds(folder: Path, manifest: Manifest, published: Published) -> bool:
    """Whether the folder has just this; a folder with anything else in it is refused."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    there = folder / MANIFEST
    if there.is_file() and digest_of(there.read_bytes()) == published.digest:
        if all(same_file(folder / path, file) for path, file in manifest.files.items()):
            return True
        raise StoreError(f"{folder} holds {manifest.run}, but damaged or in part; delete it and pull again")
    raise StoreError(f"{folder} holds something else; name a new folder, or empty this one")


def _appear(part: Path, folder: Path) -> None:
    (part / ".lock").unlink()
    if folder.exists():
        folder.rmdir()
    os.replace(part, folder)
