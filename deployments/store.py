"""`python -m deployments.store`: try the store of `PCAM_STORE` with the credentials that the jobs get.

Channels rest on conditional writes: of several writers at once one may win. An S3 server can honour the condition of
one writer and let several through at once, which `pcam check` does not see; so it is tried here, before the first job.
"""

import os
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any

from botocore.exceptions import ClientError

from pcam_model.core.errors import PcamError, StoreError
from pcam_model.registry.backends.base import Conflict, Store
from pcam_model.registry.backends.s3_client import s3_client
from pcam_model.registry.capabilities import probe
from pcam_model.registry.factory import open_store

WRITERS = 8
ROUNDS = 5  # a race can be won by luck


def check_store(store: Store) -> None:
    """Raise StoreError where conditional writes do not hold, alone or in a race, or the credentials reach too far."""
    if not probe(store).conditional_writes:
        raise StoreError(
            f"{store.uri}: the server ignores conditional writes, expected If-None-Match and If-Match of PutObject to "
            "hold; take another S3 server"
        )
    for _ in range(ROUNDS):
        _race(store, f"probe/{uuid.uuid4().hex}")
    if store.uri.startswith("s3://"):
        _check_confined(store.uri)


def _race(store: Store, key: str) -> None:
    store.write(key, b"first")
    etag = store.write(key, b"second")
    try:
        _expect_one_winner(store, partial(store.write, key, only_if=etag), "If-Match")
        store.delete(key)
        _expect_one_winner(store, partial(store.write, key, only_if_absent=True), "If-None-Match")
    finally:
        store.delete(key)


def _expect_one_winner(store: Store, write: Callable[[bytes], Any], condition: str) -> None:
    start = Barrier(WRITERS)

    def wins(content: bytes) -> bool:
        start.wait()
        try:
            write(content)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(WRITERS) as pool:
        winners = sum(pool.map(wins, (uuid.uuid4().bytes for _ in range(WRITERS))))
    if winners != 1:
        raise StoreError(
            f"{store.uri}: of {WRITERS} writers at once {winners} won by {condition}, expected one; two promotions at "
            "once could both succeed: take another S3 server, or another version of it"
        )


def _check_confined(uri: str) -> None:
    """Raise StoreError where the credentials may create buckets; one that was created is deleted."""
    client, bucket = s3_client(uri), f"pcam-probe-{uuid.uuid4().hex}"
    try:
        client.create_bucket(Bucket=bucket)
    except ClientError:
        return
    client.delete_bucket(Bucket=bucket)
    raise StoreError(
        f"{uri}: the key in AWS_ACCESS_KEY_ID may create buckets, expected one that may only use this bucket; give the "
        "jobs a key of their own"
    )


if __name__ == "__main__":
    try:
        check_store(open_store(os.environ.get("PCAM_STORE", "")))
    except PcamError as _error:
        sys.exit(str(_error))
    print("The store holds its conditions, and the key is confined to it")
