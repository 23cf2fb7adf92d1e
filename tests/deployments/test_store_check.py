"""`deployments.store`: what it demands of a store, on a folder and on a server of moto's."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from deployments.store import check_store
from pcam_model.core.errors import StoreError
from pcam_model.registry.backends.base import Conflict
from pcam_model.registry.backends.directory import DirectoryStore
from pcam_model.registry.factory import open_store


class Racy(DirectoryStore):
    """A server that looks at the condition first and writes later."""

    def write(self, key: str, content: bytes, *, only_if_absent: bool = False, only_if: str | None = None) -> str:
        exists = self.stat(key) is not None
        if (only_if_absent and exists) or (only_if and (not exists or self.get(key)[1] != only_if)):
            raise Conflict(key)
        threading.Event().wait(0.2)
        return super().write(key, content)


class Blind(DirectoryStore):
    """A server that ignores conditions."""

    def write(self, key: str, content: bytes, **_: Any) -> str:
        return super().write(key, content)


def test_a_store_that_holds_its_conditions_is_accepted_and_left_clean(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    check_store(store)
    assert list(store.entries()) == []


def test_conditions_that_hold_alone_but_not_in_a_race_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="of 8 writers at once 8 won by If-Match, expected one"):
        check_store(Racy(tmp_path))
    assert list(Racy(tmp_path).entries()) == []


def test_a_server_that_ignores_conditions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="ignores conditional writes"):
        check_store(Blind(tmp_path))


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of a server of moto's, where the race is not tried: moto does not decide conditions in one step."""
    from moto.server import ThreadedMotoServer

    monkeypatch.setattr("deployments.store.ROUNDS", 0)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.get_host_and_port()[1]}")
        for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="confined")
        yield client
        client.delete_bucket(Bucket="confined")
    finally:
        server.stop()


def test_a_key_that_may_create_buckets_is_refused_and_leaves_none(bucket: Any) -> None:
    with pytest.raises(StoreError, match="may create buckets, expected one that may only use this bucket"):
        check_store(open_store("s3://confined"))
    names = [each["Name"] for each in bucket.list_buckets()["Buckets"]]  # of all servers of moto's in this process
    assert "confined" in names
    assert not [name for name in names if name.startswith("pcam-probe-")]


def test_a_key_that_may_use_its_bucket_only_is_accepted(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Confined:
        def create_bucket(self, **_: str) -> None:
            raise ClientError({"Error": {"Code": "AccessDenied"}}, "CreateBucket")

    monkeypatch.setattr("deployments.store.s3_client", lambda uri: Confined())
    check_store(open_store("s3://confined"))
