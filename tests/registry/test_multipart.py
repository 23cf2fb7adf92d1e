"""Uploads in parts that are not finished: aborted where they fail, and a day later by `pcam prune --delete`."""

import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pcam_model.cli.main import app
from pcam_model.core.errors import StoreError
from pcam_model.registry.backends.s3 import UPLOAD_S, S3Store
from pcam_model.registry.factory import open_store

INITIATED = 1_289_422_113.0  # of every upload in parts on moto


@pytest.fixture
def store(moto_settings: str) -> S3Store:
    store = open_store(moto_settings)
    assert isinstance(store, S3Store)
    return store


def begin(store: S3Store, key: str) -> str:
    upload: str = store.client.create_multipart_upload(Bucket=store.bucket, Key=store.prefix + key)["UploadId"]
    store.client.upload_part(
        Bucket=store.bucket, Key=store.prefix + key, UploadId=upload, PartNumber=1, Body=bytes(5 << 20)
    )
    return upload


def unfinished(store: S3Store) -> list[str]:
    listing: dict[str, Any] = store.client.list_multipart_uploads(Bucket=store.bucket)
    uploads = [upload["Key"] for upload in listing.get("Uploads", ())]
    return sorted(key.removeprefix(store.prefix) for key in uploads if key.startswith(store.prefix))


def prune(store: S3Store, *words: str) -> None:
    done = CliRunner().invoke(app, ["prune", *words, "--store", store.uri], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def test_an_upload_that_fails_leaves_no_parts(store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(bytes(20 << 20))
    call = store.client._make_api_call

    def fail(operation: str, arguments: dict[str, Any]) -> Any:
        if operation == "UploadPart" and arguments["PartNumber"] == 2:
            arguments = arguments | {"UploadId": "another"}
        return call(operation, arguments)

    monkeypatch.setattr(store.client, "_make_api_call", fail)
    with pytest.raises(StoreError):
        store.upload("runs/a/model/file", tmp_path / "file")
    assert unfinished(store) == []
    assert store.stat("runs/a/model/file") is None


def test_prune_aborts_uploads_of_more_than_a_day(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("runs/a/model/file", "other/file"):
        begin(store, key)
    with monkeypatch.context() as clock:
        clock.setattr(time, "time", lambda: INITIATED + UPLOAD_S - 60)
        store.sweep("runs/")
    assert unfinished(store) == ["other/file", "runs/a/model/file"]
    prune(store)
    assert unfinished(store) == ["other/file", "runs/a/model/file"]
    prune(store, "--delete")
    assert unfinished(store) == ["other/file"]


def test_a_server_that_does_not_list_uploads_is_pruned_all_the_same(
    store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write("runs/a/config.json", b"{}")
    monkeypatch.setattr(store, "bucket", "of-another")
    store.sweep("runs/")
