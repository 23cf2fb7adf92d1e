"""Stores to test: a folder, an S3 server of moto's, and a real one where the environment names it."""

import io
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from s3_settings import real_environment, settings

from pcam_model.registry.backends.base import Store
from pcam_model.registry.factory import open_store


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
