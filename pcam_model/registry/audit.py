"""Verification of a whole store against its manifests."""

import hashlib
from collections.abc import Callable, Iterator
from functools import partial

from pcam_model.core.errors import ModelError, PcamError, StoreError
from pcam_model.core.schema import Record
from pcam_model.registry.backends.base import NotFound, Store, StoreUnavailable
from pcam_model.registry.channel_history import Channel, full_history
from pcam_model.registry.channels import list_channels
from pcam_model.registry.datasets import DATASETS, LISTING_FILE, read_dataset
from pcam_model.registry.manifest import RUNS, FileRecord, Files, read_manifest
from pcam_model.registry.score_tables import SCORES
from pcam_model.registry.transfer import map_parallel


class AuditFinding(Record):
    """An object of the store that is missing or damaged."""

    key: str
    problem: str


def verify(store: Store) -> Iterator[AuditFinding]:
    """Read every object that a manifest, a pack's listing or a channel names, and yield those missing or damaged."""
    for namespace in (RUNS, SCORES):
        for name in store.folders(f"{namespace}/"):
            read_files = partial(_published_files, store, name, namespace)
            yield from _verify_files(store, f"{namespace}/{name}/", "manifest.json", read_files)
    for digest in store.folders(f"{DATASETS}/"):
        yield from _verify_files(store, f"datasets/{digest}/", LISTING_FILE, partial(_dataset_files, store, digest))
    try:
        channels = list_channels(store)
    except PcamError as error:
        yield AuditFinding(key="channels", problem=str(error))
        return
    for channel in channels:
        try:
            _verify_channel(store, channel)
        except PcamError as error:
            yield AuditFinding(key=f"channels/{channel.name}.json", problem=str(error))


def is_empty(store: Store) -> bool:
    """Whether a store has no run, no table of scores and no pack, as where its address is mistyped."""
    return not any(list(store.folders(f"{namespace}/")) for namespace in (RUNS, SCORES, DATASETS))


def _published_files(store: Store, name: str, namespace: str) -> Files:
    return read_manifest(store, name, check_files=False, namespace=namespace)[0].files


def _dataset_files(store: Store, digest: str) -> Files:
    return read_dataset(store, digest).files


def _verify_channel(store: Store, channel: Channel) -> None:
    """Raise PcamError where the channel's run is not the promoted one, or its history is damaged."""
    if read_manifest(store, channel.run)[1].digest != channel.history[-1].digest:
        raise ModelError(f"run {channel.run} has another manifest than when it was promoted")
    full_history(store, channel)


def _verify_files(store: Store, prefix: str, listing: str, read_files: Callable[[], Files]) -> Iterator[AuditFinding]:
    """Missing and damaged files of a listing; none where there is no listing, as then the upload is unfinished."""
    try:
        if store.stat(prefix + listing) is None:
            return
        files = read_files()
    except PcamError as error:
        yield AuditFinding(key=prefix + listing, problem=str(error))
        return

    def check(item: tuple[str, FileRecord]) -> AuditFinding | None:
        path, expected = item
        problem = _difference(store, prefix + path, expected)
        return AuditFinding(key=prefix + path, problem=problem) if problem else None

    yield from (finding for finding in map_parallel(check, files.items()) if finding)


def _difference(store: Store, key: str, expected: FileRecord) -> str:
    """How an object differs from its record; empty where it does not."""
    digest, size = hashlib.sha256(), 0
    try:
        for block in store.blocks(key):
            digest.update(block)
            size += len(block)
            if size > expected.size:
                return f"more than its {expected.size:,} bytes"
    except NotFound:
        return "missing"
    except StoreUnavailable:
        raise
    except StoreError as error:
        return str(error)
    if size != expected.size:
        return f"{size:,} bytes instead of {expected.size:,}"
    return "" if digest.hexdigest() == expected.sha256 else "another SHA-256 than published"
