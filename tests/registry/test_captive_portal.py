"""A web page in place of an S3 server's answer is said at once, whatever is asked."""

import http.server
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from s3_settings import settings

from pcam_model.core.errors import StoreError
from pcam_model.registry.backends.base import Store, StoreUnavailable
from pcam_model.registry.factory import open_store

PAGES = {
    "a page": b"<!DOCTYPE html><html><body>Sign in<br></body></html>",
    "a page that is XML": b"<html><body>ok</body></html>",
    "nothing": b"",
}
REQUESTS: dict[str, Callable[[Store, Path], object]] = {
    "read": lambda store, _: store.read("key"),
    "blocks": lambda store, _: list(store.blocks("key")),
    "stat": lambda store, _: store.stat("key"),
    "list": lambda store, _: list(store.entries()),
    "write": lambda store, _: store.write("key", b"x"),
    "upload": lambda store, path: store.upload("key", path),
    "upload in parts": lambda store, path: store.upload("key", _large(path)),
}


def _large(path: Path) -> Path:
    path.write_bytes(bytes(20 << 20))
    return path


class Portal(http.server.BaseHTTPRequestHandler):
    page = b""

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(self.page)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(self.page)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _answer

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(params=PAGES.values(), ids=PAGES)
def portal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("Fixed", (Portal,), {"page": request.param}))
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that hangs up
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    settings(monkeypatch, f"http://127.0.0.1:{server.server_port}", "key", "a-secret-key")
    yield open_store("s3://models/here")
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("ask", REQUESTS.values(), ids=REQUESTS)
def test_a_web_page_is_said_to_be_none_of_s3_at_once(
    portal: Store, ask: Callable[[Store, Path], object], tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"x")
    start = time.monotonic()
    with pytest.raises(StoreError, match="answers, but not as an S3 server does") as caught:
        ask(portal, tmp_path / "file")
    assert not isinstance(caught.value, StoreUnavailable)  # which is waited for
    assert time.monotonic() - start < 10
