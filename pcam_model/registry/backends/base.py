"""The interface of a store, and its errors."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pcam_model.core.errors import BusyError, StoreError

MAX_KEY_LENGTH = 900
MAX_READ_BYTES = 1 << 28  # of an object that is read whole: a record, a manifest, a stage's metrics


class NotFound(StoreError):
    """The store has no such object."""


class StoreUnavailable(StoreError):
    """The store does not answer, or says that it is overloaded; a later try may succeed."""


class Conflict(BusyError):
    """The condition of a write does not hold: the object was written by another writer, or is there already.

    Where the answer to a write was lost and the client sent it again, the other writer may be the same one: a caller to
    whom this matters writes a unique token and reads it back.
    """


@dataclass(frozen=True)
class Entry:
    """An object in a listing."""

    key: str
    size: int
    """In bytes."""
    etag: str
    """Changes with the content; for `write(only_if=...)`."""
    modified: float
    """Seconds since 1970."""


class Store(Protocol):
    """Objects by key. A key is a relative path without hidden parts; an object is complete or not there.

    Every method may raise `StoreUnavailable` or another `StoreError`, which names the object; those that write to a
    folder, `UnwritableError`.
    """

    @property
    def uri(self) -> str:
        """The address that `open_store` takes."""

    def read(self, key: str) -> bytes:
        """The content of a small object. Raises NotFound, StoreError for more than MAX_READ_BYTES."""

    def get(self, key: str) -> tuple[bytes, str]:
        """The content of a small object and its etag. Raises NotFound, StoreError for more than MAX_READ_BYTES."""

    def blocks(self, key: str, start: int = 0) -> Iterator[bytes]:
        """The content of an object of any size in blocks, from byte `start` on. Raises NotFound."""

    def write(self, key: str, content: bytes, *, only_if_absent: bool = False, only_if: str | None = None) -> str:
        """Write a small object and return its etag.

        Args:
            key: the object's key.
            content: all of its content.
            only_if_absent: write only where the object does not exist (S3's If-None-Match).
            only_if: write only where the object exists and has this etag (S3's If-Match).

        Raises:
            Conflict: the condition does not hold.
        """

    def upload(self, key: str, path: Path) -> str:
        """Write an object from a file of any size; returns the SHA-256 of what was sent, in hexadecimal."""

    def matches(self, key: str, path: Path) -> bool:
        """Whether the object is known to have the content of this file; False when in doubt."""

    def download(self, key: str, path: Path) -> str:
        """Write an object's content to a file atomically; returns its SHA-256, in hexadecimal. Raises NotFound."""

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """All objects whose key begins with `prefix`, sorted by key."""

    def folders(self, prefix: str = "") -> Iterator[str]:
        """The names directly under `prefix` (empty, or ending in `/`) that have objects below them."""

    def stat(self, key: str) -> Entry | None:
        """The object's entry, or None."""

    def delete(self, key: str) -> None:
        """Delete an object; no error where there is none."""

    def sweep(self, prefix: str) -> None:
        """Remove what killed writers left below a folder of the store, `prefix` ending with `/`; objects stay."""


def validate_key(key: str) -> str:
    """The key itself. Raises StoreError where it is no relative path, or has empty, hidden or `..` parts."""
    parts = key.split("/")
    bad_part = any(not part or part.startswith(".") for part in parts)
    if bad_part or any(character in key for character in "\\\0\n") or len(key) > MAX_KEY_LENGTH:
        raise StoreError(
            f"{key!r} is no key of the store; expected a relative path like runs/a/model.json, without empty or hidden "
            "parts and without .."
        )
    return key


def too_large(address: str) -> StoreError:
    """The error of an object that is read whole and has more than MAX_READ_BYTES."""
    return StoreError(
        f"{address} has more than {MAX_READ_BYTES:,} bytes, expected a small record; it was not read: it is damaged, "
        "or not written by pcam; restore it from a backup, or delete it"
    )
