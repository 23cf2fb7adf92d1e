"""Whether a store honours conditional writes, tried on an object of its own."""

import uuid

from pcam_model.core.errors import StoreError
from pcam_model.core.schema import Record
from pcam_model.registry.backends.base import Conflict, Store


class StoreCapabilities(Record):
    """Which conditions of `Store.write` a store honours."""

    if_absent: bool
    """`only_if_absent` refuses to overwrite an object."""
    if_match: bool
    """`only_if` accepts the right etag and refuses a wrong one."""

    @property
    def conditional_writes(self) -> bool:
        """Whether concurrent writers cannot lose each other's writes."""
        return self.if_absent and self.if_match


_CACHE: dict[str, StoreCapabilities] = {}


def probe(store: Store) -> StoreCapabilities:
    """Which conditions the store honours, tried once per process on an object that is deleted afterwards.

    Raises:
        StoreError: the store cannot be read from, written to or deleted in.
    """
    if store.uri not in _CACHE:
        _CACHE[store.uri] = _probe(store, f"probe/{uuid.uuid4().hex}")
    return _CACHE[store.uri]


def _probe(store: Store, key: str) -> StoreCapabilities:
    old_etag = store.write(key, b"first")
    try:
        if_absent = _refuses(store, key, if_absent=True) and store.read(key) == b"first"
        etag = store.write(key, b"second")
        refuses_wrong = _refuses(store, key, etag=old_etag) and store.read(key) == b"second"
        accepts_right = refuses_wrong and not _refuses(store, key, etag=etag)
        return StoreCapabilities(if_absent=if_absent, if_match=refuses_wrong and accepts_right)
    finally:
        store.delete(key)


def _refuses(store: Store, key: str, if_absent: bool = False, etag: str | None = None) -> bool:
    try:
        store.write(key, b"third", only_if_absent=if_absent, only_if=etag)
    except Conflict:
        return True
    except StoreError as error:
        if "NotImplemented" in str(error) or "501" in str(error):
            return False
        raise
    return False
