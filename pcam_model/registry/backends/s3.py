"""The S3 room of the store: any S3-compatible server, through boto3."""

import base64
import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from pcam_model.core.errors import StoreError
from pcam_model.core.files import sha256
from pcam_model.registry.backends.base import Conflict, Entry, StoreUnavailable, validate_key
from pcam_model.registry.backends.s3_client import BLOCK, STREAMS, client
from pcam_model.registry.backends.s3_errors import code_of, speaking
from pcam_model.registry.transfer import save_blocks

PART = 8 << 20
TRIES = 4
TRANSFER = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART, max_concurrency=STREAMS)
FAILED_CONDITIONS = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}


class S3Store:
    """A bucket, or what is under a prefix of it."""

    def __init__(self, bucket: str, prefix: str = "") -> None:
        """`prefix` has no slash at either end. Credentials and endpoint come from boto3's own chain."""
        self.bucket = bucket
        self.prefix = f"{prefix}/" if prefix else ""
        self.client = client(self.uri)

    @property
    def uri(self) -> str:
        """The address as `s3://bucket/prefix`."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def read(self, key: str) -> bytes:
        """See `Store.read`."""
        return self.get(key)[0]

    def get(self, key: str) -> tuple[bytes, str]:
        """See `Store.get`."""
        return self._get(key)

    def blocks(self, key: str, start: int = 0) -> Iterator[bytes]:
        """See `Store.blocks`; several blocks are fetched ahead, all of one version of the object."""
        with self._speaking(key, "read"):
            head = self.client.head_object(**self._place(key))
        places = iter(range(start, head["ContentLength"], BLOCK))
        with ThreadPoolExecutor(STREAMS) as pool:
            pending: deque[Future[tuple[bytes, str]]] = deque()
            try:
                for place in places:
                    wanted = f"bytes={place}-{place + BLOCK - 1}"
                    pending.append(pool.submit(self._get, key, Range=wanted, IfMatch=head["ETag"]))
                    if len(pending) > STREAMS:
                        yield pending.popleft().result()[0]
                while pending:
                    yield pending.popleft().result()[0]
            finally:
                for future in pending:
                    future.cancel()

    def write(self, key: str, content: bytes, *, only_if_absent: bool = False, only_if: str | None = None) -> str:
        """See `Store.write`; the server decides the conditions, in one step."""
        if only_if_absent:
            return self._put(key, content, IfNoneMatch="*")
        if only_if is None:
            return self._put(key, content)
        try:
            return self._put(key, content, IfMatch=f'"{only_if}"')
        except Conflict:
            # Ceph compares the quotes too: a refusal while the etag is the right one means that it wants none.
            there = self.stat(key)
            if there is None or there.etag != only_if:
                raise
            return self._put(key, content, IfMatch=only_if)

    def upload(self, key: str, path: Path) -> str:
        """See `Store.upload`; large files go in parts, several at a time, while the digest is taken."""
        with ThreadPoolExecutor(1) as pool:
            digest = pool.submit(sha256, path)
            with self._speaking(key, "write"):
                place = self._place(key)
                self.client.upload_file(str(path), place["Bucket"], place["Key"], Config=TRANSFER)
            return digest.result()

    def matches(self, key: str, path: Path) -> bool:
        """See `Store.holds`; by the MD5 that servers give as the etag of what is not encrypted with a key service."""
        there = self.stat(key)
        return there is not None and there.size == path.stat().st_size and there.etag == _etag(path)

    def download(self, key: str, path: Path) -> str:
        """See `Store.download`."""
        return save_blocks(self.blocks(key), path)

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """See `Store.entries`."""
        for page in self._pages(prefix):
            for item in page.get("Contents", ()):
                key = item["Key"].removeprefix(self.prefix)
                if not key.endswith("/"):
                    yield Entry(key, item["Size"], item["ETag"].strip('"'), item["LastModified"].timestamp())

    def folders(self, prefix: str = "") -> Iterator[str]:
        """See `Store.folders`."""
        for page in self._pages(prefix, Delimiter="/"):
            for item in page.get("CommonPrefixes", ()):
                yield item["Prefix"].removeprefix(self.prefix + prefix).rstrip("/")

    def stat(self, key: str) -> Entry | None:
        """See `Store.stat`."""
        with self._speaking(key, "read"):
            try:
                head = self.client.head_object(**self._place(key))
            except ClientError as error:
                if code_of(error) in ("404", "NoSuchKey"):
                    return None
                raise
        return Entry(key, head["ContentLength"], head["ETag"].strip('"'), head["LastModified"].timestamp())

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        with self._speaking(key, "delete"):
            self.client.delete_object(**self._place(key))

    def _place(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.prefix + validate_key(key)}

    def _speaking(self, key: str, doing: str) -> AbstractContextManager[None]:
        return speaking(f"{self.uri}/{key}", self.client.meta.endpoint_url, doing)

    def _get(self, key: str, **wanted: str) -> tuple[bytes, str]:
        """One request; boto3 tries it again where it fails, but not an answer that breaks off."""
        for rest in reversed(range(TRIES)):
            try:
                with self._speaking(key, "read"):
                    answer = self.client.get_object(**self._place(key), **wanted)
                    return answer["Body"].read(), answer["ETag"].strip('"')
            except StoreUnavailable:
                if not rest:
                    raise
            except StoreError as error:
                if isinstance(error.__cause__, ClientError) and code_of(error.__cause__) in FAILED_CONDITIONS:
                    raise StoreError(f"{self.uri}/{key} was replaced while it was read; read it again") from error
                raise
        raise AssertionError("every try returns or raises")

    def _put(self, key: str, content: bytes, **condition: str) -> str:
        digest = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
        try:
            with self._speaking(key, "write"):
                answer = self.client.put_object(**self._place(key), Body=content, ContentMD5=digest, **condition)
                return str(answer["ETag"].strip('"'))
        except StoreError as error:
            refused = error.__cause__
            if not isinstance(refused, ClientError) or code_of(refused) not in FAILED_CONDITIONS:
                raise
            raise Conflict(
                f"{self.uri}/{key} is already there or has changed; somebody else was quicker, read it again"
            ) from error

    def _pages(self, prefix: str, **options: str) -> Iterator[dict[str, Any]]:
        with self._speaking(prefix, "list"):
            pages = self.client.get_paginator("list_objects_v2")
            yield from pages.paginate(Bucket=self.bucket, Prefix=self.prefix + prefix, **options)


def _etag(path: Path) -> str:
    """What a server makes of a file that `upload` sends: its MD5, or the MD5 of the MD5s of its parts."""
    with path.open("rb") as file:
        if path.stat().st_size < PART:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        parts = [hashlib.md5(part, usedforsecurity=False).digest() for part in iter(lambda: file.read(PART), b"")]
    return f"{hashlib.md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"
