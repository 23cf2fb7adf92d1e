"""Stores to test: a folder, an S3 server of moto's, and a real one where the environment names it."""

import io
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pcam_model.registry.store import Store, open_store

REAL = ("AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "PCAM_TEST_BUCKET")
HERE = {name: os.environ.get(name, "") for name in REAL}


def real_environment() -> dict[str, str]:
    """The settings of the real server, or a skip that says what is missing."""
    missing = [name for name, value in HERE.items() if not value]
    if missing:
        pytest.skip(f"no S3 server to test on: {', '.join(missing)} not set")
    return HERE


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    """A server of moto's; one request at a time, since moto itself does not decide conditions in one step."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, *args: object) -> None:
            pass

    app, lock = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def one_at_a_time(environ: dict[str, Any], start: Any) -> list[bytes]:
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        with lock:
            return list(app(environ, start))

    server = make_server("127.0.0.1", 0, one_at_a_time, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="session")
def moto_bucket(moto_endpoint: str) -> str:
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=moto_endpoint,
        region_name="us-east-1",
        aws_access_key_id="tester",
        aws_secret_access_key="tester-secret",
    )
    client.create_bucket(Bucket="models")
    return "models"


@pytest.fixture
def moto_settings(moto_endpoint: str, moto_bucket: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """boto3's environment points to moto; returns the address of an empty place there."""
    settings(monkeypatch, moto_endpoint, "tester", "tester-secret")
    return f"s3://{moto_bucket}/{uuid.uuid4().hex}"


def settings(monkeypatch: pytest.MonkeyPatch, endpoint: str, key: str, secret: str) -> None:
    """boto3's environment, and nothing that the person who tests has set."""
    for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def real_settings(monkeypatch: pytest.MonkeyPatch) -> str:
    """As `moto_settings`, for the server that the environment names."""
    real = real_environment()
    settings(monkeypatch, real["AWS_ENDPOINT_URL_S3"], real["AWS_ACCESS_KEY_ID"], real["AWS_SECRET_ACCESS_KEY"])
    return f"s3://{real['PCAM_TEST_BUCKET']}/{uuid.uuid4().hex}"


ROOMS = ["directory", "moto", pytest.param("real", marks=pytest.mark.s3)]


@pytest.fixture(params=ROOMS)
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store's address, in each of the rooms."""
    if request.param == "directory":
        return (tmp_path / "store").as_uri()
    return str(request.getfixturevalue(f"{request.param}_settings"))


@pytest.fixture
def store(address: str) -> Store:
    return open_store(address)


@pytest.fixture
def folder_store(tmp_path: Path) -> Store:
    return open_store((tmp_path / "store").as_uri())
