"""Is all of it still what was published?"""

import hashlib
from collections.abc import Callable, Iterator
from functools import partial

from pcam_model.core.errors import PcamError
from pcam_model.core.schema import Record
from pcam_model.registry.backends.base import NotFound, Store
from pcam_model.registry.channel_history import whole_history
from pcam_model.registry.channels import list_channels
from pcam_model.registry.datasets import LIST, read_dataset
from pcam_model.registry.manifest import RUNS, FileRecord, Files, read_manifest
from pcam_model.registry.score_tables import SCORES
from pcam_model.registry.transfer import run_parallel


class AuditFinding(Record):
    """Something in the store that is not what was published."""

    key: str
    problem: str


def verify(store: Store) -> Iterator[AuditFinding]:
    """Read every object that a manifest, a pack's list or a channel names, and tell what is missing or different."""
    for namespace in (RUNS, SCORES):
        for name in store.folders(f"{namespace}/"):
            yield from _verify_listed(
                store, f"{namespace}/{name}/", "manifest.json", partial(_files, store, name, namespace)
            )
    for digest in store.folders("datasets/"):
        yield from _verify_listed(store, f"datasets/{digest}/", LIST, partial(_pack_files, store, digest))
    try:
        for channel in list_channels(store):
            try:
                if read_manifest(store, channel.run)[1].digest != channel.history[-1].digest:
                    yield AuditFinding(
                        key=f"channels/{channel.name}.json", problem=f"run {channel.run} is another than promoted"
                    )
                whole_history(store, channel)
            except PcamError as error:
                yield AuditFinding(key=f"channels/{channel.name}.json", problem=str(error))
    except PcamError as error:
        yield AuditFinding(key="channels", problem=str(error))


def _files(store: Store, name: str, namespace: str) -> Files:
    return read_manifest(store, name, sizes_too=False, namespace=namespace)[0].files


def _pack_files(store: Store, digest: str) -> Files:
    return read_dataset(store, digest).files


def _verify_listed(store: Store, prefix: str, listing: str, read: Callable[[], Files]) -> Iterator[AuditFinding]:
    """The faults of what a list names; without its list a thing is unfinished, and no fault."""
    if store.stat(prefix + listing) is None:
        return
    try:
        files = read()
    except PcamError as error:
        yield AuditFinding(key=prefix + listing, problem=str(error))
        return

    def check(item: tuple[str, FileRecord]) -> AuditFinding | None:
        problem = _difference(store, prefix + item[0], item[1])
        return AuditFinding(key=prefix + item[0], problem=problem) if problem else None

    yield from (finding for finding in run_parallel(check, files.items()) if finding)


def _difference(store: Store, key: str, expected: FileRecord) -> str:
    digest, size = hashlib.sha256(), 0
    try:
        for block in store.blocks(key):
            digest.update(block)
            size += len(block)
    except NotFound:
        return "missing"
    if size != expected.size:
        return f"{size:,} bytes instead of {expected.size:,}"
    return "" if digest.hexdigest() == expected.sha256 else "another SHA-256 than published"
