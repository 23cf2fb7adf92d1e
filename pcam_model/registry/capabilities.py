"""Does this store keep its word on conditional writes? Asked with a real object, never assumed."""

import uuid

from pcam_model.core.errors import StoreError
from pcam_model.core.schema import Record
from pcam_model.registry.backends.base import Conflict, Store


class StoreCapabilities(Record):
    """What a store does with the conditions of `Store.write`."""

    if_absent: bool
    """`only_if_absent` refuses to write over what is there."""
    if_match: bool
    """`only_if` takes the right etag and refuses a wrong one."""

    @property
    def conditional_writes(self) -> bool:
        """Whether several writers are safe from each other here."""
        return self.if_absent and self.if_match


_known: dict[str, StoreCapabilities] = {}


def probe(store: Store) -> StoreCapabilities:
    """Try the conditions on an object of our own, which is removed again; remembered for this process.

    Raises:
        StoreError: The store cannot be read, written or deleted in.
    """
    if store.uri not in _known:
        _known[store.uri] = _probe(store, f"probe/{uuid.uuid4().hex}")
    return _known[store.uri]


def _probe(store: Store, key: str) -> StoreCapabilities:
    first = store.write(key, b"first")
    try:
        absent = _refused(store, key, absent=True) and store.read(key) == b"first"
        etag = store.write(key, b"second")
        wrong = _refused(store, key, etag=first) and store.read(key) == b"second"
        right = wrong and not _refused(store, key, etag=etag)
        return StoreCapabilities(if_absent=absent, if_match=wrong and right)
    finally:
        store.delete(key)


def _refused(store: Store, key: str, absent: bool = False, etag: str | None = None) -> bool:
    try:
        store.write(key, b"third", only_if_absent=absent, only_if=etag)
    except Conflict:
        return True
    except StoreError as error:
        if "NotImplemented" in str(error) or "501" in str(error):
            return False
        raise
    return False
