"""A published model on this machine: verified, resumable, and there as a whole or not at all."""

import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from pcam_model.core.errors import ModelError, StoreError
from pcam_model.core.files import disk_space_guard, write_atomic
from pcam_model.registry.backends.base import NotFound, Store, StoreUnavailable
from pcam_model.registry.cache import Cache
from pcam_model.registry.channels import read_channel
from pcam_model.registry.manifest import Files, Manifest, PublishedRun, check_sizes, parse_manifest, sha256_hex
from pcam_model.registry.run_names import NAME, validate_run_name
from pcam_model.registry.safe_formats import refuse_pickle, refuse_unsafe_names
from pcam_model.registry.transfer import exclusive_dir, fetch_files, same_file

DEFAULT_FOLDERS = ("model", "report")
MANIFEST = "manifest.json"


class ResolvedRun(NamedTuple):
    """The run that a name stands for."""

    manifest: Manifest
    published: PublishedRun
    content: bytes
    """The manifest's bytes."""


def resolve(store: Store, name: str) -> str:
    """The run that a name means: a channel's, where there is such a channel, else the run of that name.

    `runs/<run>` is the run, even where a channel has its name.
    """
    if name.startswith("runs/"):
        return validate_run_name(name.removeprefix("runs/"))
    channel = read_channel(store, name) if NAME.fullmatch(name) else None
    return channel.run if channel else name


def resolve_run(store: Store, name: str, cache: Cache | None = None) -> ResolvedRun:
    """The published run that a channel or a run's name stands for; what it was last, while the store does not answer.

    Raises:
        ModelError: It is not published, or files of it are missing or have another size.
        StoreUnavailable: The store does not answer, and the cache never saw this name.
    """
    try:
        run = resolve(store, name)
        try:
            content = store.read(f"runs/{run}/{MANIFEST}")
        except NotFound:
            raise ModelError(f"{store.uri}: run {run!r} is not published; `pcam runs` shows what is") from None
        found = _meant(store, content, run)
        check_sizes(store, run, found.manifest.files)
    except StoreUnavailable as error:
        kept = cache.recall(store.uri, name) if cache else None
        if kept is None:
            raise
        found = _meant(store, kept, None)
        manifest = found.manifest
        print(f"{error}. Using what {name!r} was last: run {manifest.run}, {manifest.published}", file=sys.stderr)
    if cache:
        cache.remember(store.uri, name, found.content)
    return found


def pull(
    store: Store, name: str, folder: Path, folders: tuple[str, ...] = DEFAULT_FOLDERS, cache: Cache | None = None
) -> PublishedRun:
    """Fetch a published run into a folder, which appears whole.

    A pull that was broken off is gone on with; a folder that already holds the same is only checked.

    Args:
        store: Where it is.
        name: A channel or a run.
        folder: A new or empty folder; the run's layout goes into it, with its manifest.
        parts: Which folders of the run; () for everything.
        cache: What is in it is not fetched again, and while the store is away it is used alone.

    Raises:
        ModelError: It is not published, not whole, holds another size or digest, or a kind of file that may run code.
        StoreError: The folder holds something else.
        DiskFullError: There is no room; nothing is left.
    """
    return materialize(store, resolve_run(store, name, cache), folder, folders, cache)


def materialize(
    store: Store, found: ResolvedRun, folder: Path, folders: tuple[str, ...], cache: Cache | None
) -> PublishedRun:
    """Fetch these parts of a run that was found; see `pull`."""
    manifest, published, _ = found
    files = {path: file for path, file in manifest.files.items() if not folders or path.split("/")[0] in folders}
    refuse_unsafe_names(published.uri, list(files))
    folder = Path(os.path.abspath(folder))
    if _holds(folder, manifest.run, files, published):
        return published
    part = folder.with_name(f".{folder.name}.{published.digest[:16]}.part")
    with exclusive_dir(part):
        if _holds(folder, manifest.run, files, published):
            return published
        try:
            with disk_space_guard(folder):
                _fill(store, found, files, part, cache)
        except ModelError:
            shutil.rmtree(part, ignore_errors=True)
            raise
        _appear(part, folder)
    return published


def verify_folder(folder: Path, *folders: str) -> Manifest:
    """The manifest of a pulled folder, whose files (or only those of some parts) are what it says; else `ModelError`."""
    manifest = parse_manifest((folder / MANIFEST).read_bytes(), str(folder / MANIFEST))
    for path, file in manifest.files.items():
        wanted = path.split("/")[0] in folders if folders else (folder / path).exists()
        if wanted and not same_file(folder / path, file):
            raise ModelError(f"{folder / path} is not what was published; delete {folder} and pull again")
    return manifest


def _meant(store: Store, content: bytes, run: str | None) -> ResolvedRun:
    manifest = parse_manifest(content, f"{store.uri}/runs/{run or ''}/{MANIFEST}", run)
    return ResolvedRun(
        manifest, PublishedRun(uri=f"{store.uri}/runs/{manifest.run}", digest=sha256_hex(content)), content
    )


def _fill(store: Store, found: ResolvedRun, files: Files, part: Path, cache: Cache | None) -> None:
    if cache:
        cache.take(files, part)
    fetch_files(store, f"runs/{found.manifest.run}/", files, part)
    for path in files:
        refuse_pickle(part / path, f"{found.published.uri}/{path}")
    write_atomic(part / MANIFEST, found.content)
    if cache:
        cache.keep(files, part)


def _holds(folder: Path, run: str, files: Files, published: PublishedRun) -> bool:
    """Whether the folder has just this; a folder with anything else in it is refused."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    there = folder / MANIFEST
    if there.is_file() and sha256_hex(there.read_bytes()) == published.digest:
        if all(same_file(folder / path, file) for path, file in files.items()):
            return True
        raise StoreError(f"{folder} holds {run}, but damaged or in part; delete it and pull again")
    raise StoreError(f"{folder} holds something else; name a new folder, or empty this one")


def _appear(part: Path, folder: Path) -> None:
    (part / ".lock").unlink()
    if folder.exists():
        folder.rmdir()
    os.replace(part, folder)
