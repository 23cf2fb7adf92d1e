"""The store: one interface, and the rooms behind it."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from pcam_model.core.errors import BusyError, StoreError
from pcam_model.core.schema import Config


class StoreConfig(Config):
    """Where what lasts is kept."""

    uri: str = ""
    """`file:///folder`, a folder's path, or `s3://bucket/prefix`; empty means PCAM_STORE, else .pcam/store here."""


class NotFound(StoreError):
    """The store has no such object."""


class StoreUnavailable(StoreError):
    """The store does not answer, or says that it is overloaded: it may well come back."""


class Conflict(BusyError):
    """A condition on a write did not hold: somebody else was quicker.

    Where an answer was lost on the way and the write was tried again, the quicker one may be the writer itself: who has
    to know writes something unique and reads it back.
    """


@dataclass(frozen=True)
class Entry:
    """One object of a store.

    `size` in bytes; `etag` changes with the content and is only meant for `only_if`; `modified` in seconds since 1970.
    """

    key: str
    size: int
    etag: str
    modified: float


class Store(Protocol):
    """Objects by key. A key is a relative path of plain parts; an object is whole or not there.

    Every method may raise `StoreError` (cannot be reached, or refuses) with a sentence that names the place.
    """

    @property
    def uri(self) -> str:
        """The address that `open_store` takes."""

    def read(self, key: str) -> bytes:
        """The content of a small object; `NotFound` where there is none."""

    def get(self, key: str) -> tuple[bytes, str]:
        """A small object's content and, of just that content, the etag; `NotFound` where there is none."""

    def blocks(self, key: str, start: int = 0) -> Iterator[bytes]:
        """The content of an object of any size from byte `start` on, in order; `NotFound` where there is none."""

    def write(self, key: str, content: bytes, *, only_if_absent: bool = False, only_if: str | None = None) -> str:
        """Write a small object and return its etag.

        Args:
            key: Where to write.
            content: The whole object.
            only_if_absent: Raise `Conflict` where the object is already there.
            only_if: Raise `Conflict` unless the object is there and has this etag.
        """

    def upload(self, key: str, path: Path) -> str:
        """Store a file of any size; returns the SHA-256 of what was sent, in hexadecimal."""

    def holds(self, key: str, path: Path) -> bool:
        """Whether the object surely has the content of this file, so that it need not be sent; False when in doubt."""

    def download(self, key: str, path: Path) -> str:
        """Fetch an object into a file, which appears whole; returns the SHA-256 of what came."""

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """All objects whose key begins with `prefix`, in the order of their keys."""

    def folders(self, prefix: str = "") -> Iterator[str]:
        """The names directly under `prefix` (empty, or ending in `/`) that have objects below them."""

    def stat(self, key: str) -> Entry | None:
        """The object's size and etag, or None."""

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens where there is none."""


def open_store(uri: str) -> Store:
    """The store at `uri`: `file:///folder`, a folder's path, or `s3://bucket/prefix`."""
    if "://" not in uri:
        if not uri:
            raise StoreError("no store is named; give file:///folder, a folder's path or s3://bucket/prefix")
        return _directory(Path(uri).expanduser())
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        return _directory(Path(unquote(parts.path)))
    if parts.scheme == "file":
        raise StoreError(f"{uri}: a file address has an absolute path and three slashes, as in file:///srv/store")
    if parts.scheme == "s3" and "@" not in parts.netloc:
        return _bucket(parts.netloc, parts.path)
    if parts.scheme == "s3":
        raise StoreError("an s3:// address holds no credentials; write s3://bucket/prefix, and set AWS_ACCESS_KEY_ID")
    raise StoreError(f"{uri}: unknown kind of store; expected file:///folder, a folder's path or s3://bucket/prefix")


def checked_key(key: str) -> str:
    """The key itself, where it is one: plain parts with single slashes, none hidden, nothing that climbs out."""
    parts = key.split("/")
    if any(not part or part.startswith(".") for part in parts) or any(c in key for c in "\\\0\n") or len(key) > 900:
        raise StoreError(
            f"{key!r} is no name for an object of the store; expected a relative path like runs/a/model.json, "
            "without empty or hidden parts and without .."
        )
    return key


def _directory(root: Path) -> Store:
    from pcam_model.registry.backends.directory import DirectoryStore

    return DirectoryStore(Path(os.path.abspath(root)))


def _bucket(bucket: str, path: str) -> Store:
    from pcam_model.registry.backends.s3 import S3Store

    prefix = path.strip("/")
    if not bucket:
        raise StoreError("an s3:// address names a bucket, as in s3://models/pcam")
    return S3Store(bucket, checked_key(prefix) if prefix else "")
