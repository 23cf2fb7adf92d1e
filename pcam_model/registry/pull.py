"""Download of a published run: verified, resumed where it broke off, and complete or not there."""

import shutil
from pathlib import Path
from typing import NamedTuple

from pcam_model.core.atomic_dir import build_dir
from pcam_model.core.errors import ModelError, StoreError
from pcam_model.core.files import write_atomic
from pcam_model.core.log import log
from pcam_model.core.write_guard import write_guard
from pcam_model.registry.backends.base import NotFound, Store, StoreUnavailable
from pcam_model.registry.cache import Cache
from pcam_model.registry.channels import read_channel
from pcam_model.registry.manifest import (
    Files,
    Manifest,
    PublishedRun,
    check_sizes,
    not_published,
    parse_manifest,
    sha256_hex,
)
from pcam_model.registry.run_names import NAME_PATTERN, validate_run_name
from pcam_model.registry.safe_formats import refuse_pickle, refuse_unsafe_names
from pcam_model.registry.transfer import fetch_files, is_same_file

DEFAULT_FOLDERS = ("model", "report")
MANIFEST_FILE = "manifest.json"


class ResolvedRun(NamedTuple):
    """The published run that a name stands for."""

    manifest: Manifest
    published: PublishedRun
    manifest_bytes: bytes
    """The manifest as it is in the store."""


def resolve_name(store: Store, name: str) -> str:
    """The run that a name stands for: the run of the channel of that name, where there is one, else the run itself.

    `runs/<run>` is the run, also where a channel has its name.
    """
    if name.startswith("runs/"):
        return validate_run_name(name.removeprefix("runs/"))
    channel = read_channel(store, name) if NAME_PATTERN.fullmatch(name) else None
    return channel.run if channel else name


def resolve_run(store: Store, name: str, cache: Cache | None = None) -> ResolvedRun:
    """The published run that a run's or channel's name stands for; the cached one while the store is unavailable.

    Raises:
        ModelError: it is not published, or files of it are missing or have another size.
        StoreUnavailable: the store is unavailable, and the cache does not have this name.
    """
    try:
        resolved = _resolve(store, name)
    except StoreUnavailable as error:
        content = cache.read_manifest(store.uri, name) if cache else None
        if content is None:
            raise
        resolved = _parse_run(store, content, None)
        run, time = resolved.manifest.run, resolved.manifest.published_at
        log.warning("%s. Using the cached run of %r: %s, published %s", error, name, run, time)
    if cache:
        cache.write_manifest(store.uri, name, resolved.manifest_bytes)
    return resolved


def pull(
    store: Store, name: str, folder: Path, folders: tuple[str, ...] = DEFAULT_FOLDERS, cache: Cache | None = None
) -> PublishedRun:
    """Download a published run into a folder, which appears complete; an interrupted download is resumed.

    Args:
        store: the run's store.
        name: a channel or a run.
        folder: a new or empty folder, which gets the run's layout and manifest; one that has this run is only verified.
        folders: the folders of the run to download; empty: all files.
        cache: files in it are not downloaded again; while the store is unavailable, it is used alone.

    Raises:
        ModelError: the run is not published, is damaged, or has a file of a format that may run code.
        StoreError: the folder has other content.
        DiskFullError: the disk is full; nothing is left.
    """
    return materialize(store, resolve_run(store, name, cache), folder, folders, cache)


def materialize(
    store: Store, run: ResolvedRun, folder: Path, folders: tuple[str, ...], cache: Cache | None
) -> PublishedRun:
    """Download folders of a resolved run; see `pull`."""
    files = {path: file for path, file in run.manifest.files.items() if not folders or path.split("/")[0] in folders}
    refuse_unsafe_names(run.published.uri, list(files))
    target = folder.resolve()

    def is_complete(path: Path) -> bool:
        return _has_run(path, run, files)

    if is_complete(target):
        return run.published
    part = target.with_name(f".{target.name}.{run.published.digest[:16]}.part")
    with write_guard(target), build_dir(target, is_complete, part=part, resume=True) as building:
        if building is not None:
            try:
                _download(store, run, files, building, cache)
            except ModelError:
                shutil.rmtree(building, ignore_errors=True)
                raise
    return run.published


def verify_folder(folder: Path, *folders: str) -> Manifest:
    """The manifest of a pulled folder. Raises ModelError where a file, of these subfolders or of all, is damaged."""
    manifest = parse_manifest((folder / MANIFEST_FILE).read_bytes(), str(folder / MANIFEST_FILE))
    for path, file in manifest.files.items():
        is_expected = path.split("/")[0] in folders if folders else (folder / path).exists()
        if is_expected and not is_same_file(folder / path, file):
            raise ModelError(f"{folder / path} is not what was published; delete {folder} and pull again")
    return manifest


def _resolve(store: Store, name: str) -> ResolvedRun:
    run = resolve_name(store, name)
    try:
        content = store.read(f"runs/{run}/{MANIFEST_FILE}")
    except NotFound:
        raise not_published(store, run) from None
    resolved = _parse_run(store, content, run)
    check_sizes(store, run, resolved.manifest.files)
    return resolved


def _parse_run(store: Store, content: bytes, run: str | None) -> ResolvedRun:
    manifest = parse_manifest(content, f"{store.uri}/runs/{run or ''}/{MANIFEST_FILE}", run)
    published = PublishedRun(uri=f"{store.uri}/runs/{manifest.run}", digest=sha256_hex(content))
    return ResolvedRun(manifest, published, content)


def _download(store: Store, run: ResolvedRun, files: Files, folder: Path, cache: Cache | None) -> None:
    if cache:
        cache.copy_to(files, folder)
    fetch_files(store, f"runs/{run.manifest.run}/", files, folder)
    for path in files:
        refuse_pickle(folder / path, f"{run.published.uri}/{path}")
    write_atomic(folder / MANIFEST_FILE, run.manifest_bytes)
    if cache:
        cache.add(files, folder)


def _has_run(folder: Path, run: ResolvedRun, files: Files) -> bool:
    """Whether the folder has these files of the run; False where it is new or empty, StoreError where it has others."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    manifest = folder / MANIFEST_FILE
    if manifest.is_file() and sha256_hex(manifest.read_bytes()) == run.published.digest:
        if all(is_same_file(folder / path, file) for path, file in files.items()):
            return True
        raise StoreError(f"{folder} has run {run.manifest.run}, but damaged or incomplete; delete it and pull again")
    raise StoreError(f"{folder} has other content; expected a new or empty folder; name another one, or empty it")
