"""Open a store by its address."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pcam_model.core.errors import StoreError
from pcam_model.registry.backends.base import Store, validate_key

FILE_URI = re.compile(r"file:/(?!/)")  # RFC 8089's short form of file:///
MISTYPED_SCHEME = re.compile(r"(s3|file|gs|az|https?)(:|//)|[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
EXPECTED = "expected file:///folder, s3://bucket/prefix, or a folder's path"


def open_store(uri: str) -> Store:
    """The store at `uri`: `file:///folder`, a folder's path, or `s3://bucket/prefix`.

    Raises:
        StoreError: the address is malformed, or of an unknown scheme.
    """
    if not uri:
        raise StoreError(f"the store's address is empty; {EXPECTED}")
    if FILE_URI.match(uri):
        uri = f"file://{uri.removeprefix('file:')}"
    if "://" not in uri:
        if MISTYPED_SCHEME.match(uri):
            raise StoreError(
                f"{uri} looks like an address and is none; {EXPECTED} (a folder's path begins with / or ./)"
            )
        return _open_directory(Path(uri).expanduser())
    parts = urlsplit(uri)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        return _open_directory(Path(unquote(parts.path)))
    if parts.scheme == "file":
        raise StoreError(f"{uri}: a file address has an absolute path and three slashes, as in file:///srv/store")
    if parts.scheme == "s3" and "@" not in parts.netloc:
        return _open_bucket(parts.netloc, parts.path)
    if parts.scheme == "s3":
        raise StoreError("an s3:// address holds no credentials; write s3://bucket/prefix, and set AWS_ACCESS_KEY_ID")
    raise StoreError(f"{uri}: unknown kind of store; {EXPECTED}")


def _open_directory(root: Path) -> Store:
    from pcam_model.registry.backends.directory import SETTING, DirectoryStore

    if root.is_file():
        raise StoreError(f"{root} is a file, expected a folder; set {SETTING} to a folder")
    return DirectoryStore(root)


def _open_bucket(bucket: str, path: str) -> Store:
    from pcam_model.registry.backends.s3 import S3Store  # boto3 takes long to import

    prefix = path.strip("/")
    if not bucket:
        raise StoreError("an s3:// address names a bucket, as in s3://models/pcam")
    return S3Store(bucket, validate_key(prefix) if prefix else "")
