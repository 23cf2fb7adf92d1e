"""Downloads go through the proxy that the environment names, and say so where it refuses."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from pcam_model.core.errors import ConfigError, SourceError, TransientError
from pcam_model.core.proxies import find_proxy
from pcam_model.data.http_download import download

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


class Proxy(BaseHTTPRequestHandler):
    """Answers for every server, to who has a login; other requests get 407."""

    requested: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.requested.append(self.path)
        is_known = self.headers.get("Proxy-Authorization") == "Basic dTpwQHNz"  # u:p@ss
        self.send_response(200 if is_known else 407)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"bytes")

    def do_CONNECT(self) -> None:
        self.send_error(407)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def proxy(no_proxies: None) -> Iterator[str]:
    """The address of a proxy, without its scheme."""
    Proxy.requested.clear()
    server = HTTPServer(("127.0.0.1", 0), Proxy)
    thread = Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_download_goes_through_the_proxy_with_its_login(
    tmp_path: Path, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://u:p%40ss@{proxy}")
    assert download("http://data.example/x.h5", tmp_path / "x.h5")
    assert (tmp_path / "x.h5").read_bytes() == b"bytes"
    assert Proxy.requested == ["http://data.example/x.h5"]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_asks_for_a_login_is_named_at_once(
    tmp_path: Path, proxy: str, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    variable = f"{scheme.upper()}_PROXY"
    monkeypatch.setenv(variable, proxy)
    with pytest.raises(SourceError, match=rf"the proxy of {variable} asks for a login \(407\); write {variable} as"):
        download(f"{scheme}://data.example/x.h5", tmp_path / "x.h5")


def test_a_proxy_that_is_none_and_one_that_is_away_are_named(
    tmp_path: Path, no_proxies: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pcam_model.data.http_download.MAX_FAILURES", 1)
    for address, error, message in (
        ("http://user:secret@proxy:port", ConfigError, "HTTP_PROXY is no address of an HTTP proxy"),
        ("socks5://127.0.0.1:9", ConfigError, "HTTP_PROXY is no address of an HTTP proxy"),
        ("127.0.0.1:9", TransientError, "cannot be reached through the proxy of HTTP_PROXY, or breaks off"),
    ):
        monkeypatch.setenv("HTTP_PROXY", address)
        with pytest.raises(error, match=message) as caught:
            download("http://data.example/x.h5", tmp_path / "x.h5")
        assert "secret" not in str(caught.value)


def test_exempted_addresses_are_reached_without_a_proxy(no_proxies: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "localhost,inner.example")
    assert find_proxy("http://data.example/x") == ("HTTP_PROXY", "http://proxy.example:3128")
    for url in ("http://inner.example/x", "http://sub.inner.example:8080/x", "https://data.example/x"):
        assert find_proxy(url) is None
