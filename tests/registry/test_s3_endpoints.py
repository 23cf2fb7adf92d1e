"""Whatever else than an S3 server answers, and settings with a line end, are named; only what may pass is retried."""

import http.server
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from s3_settings import settings
from test_s3_errors import _certificate
from test_s3_errors import error_message as sentence_of

from pcam_model.core.errors import StoreError
from pcam_model.registry.backends.base import Store, StoreUnavailable
from pcam_model.registry.factory import open_store

PAGE = b"<html><body>Please sign in</body></html>"
OPERATIONS: dict[str, Callable[[Store], object]] = {
    "read": lambda store: store.read("key"),
    "write": lambda store: store.write("key", b"x"),
    "entries": lambda store: list(store.entries()),
    "folders": lambda store: list(store.folders()),
    "stat": lambda store: store.stat("key"),
    "blocks": lambda store: list(store.blocks("key")),
}
Serving = Callable[..., str]


class Handler(http.server.BaseHTTPRequestHandler):
    status, headers_sent, body = 200, dict[str, str](), PAGE

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(self.status)
        for name, value in {"Content-Length": str(len(self.body)), **self.headers_sent}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(self.body)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    """Start a server that gives one answer to everything; its port. boto3's environment points to it."""
    servers = []

    def start(status: int = 200, body: bytes = PAGE, context: ssl.SSLContext | None = None, **headers: str) -> int:
        handler = type("Fixed", (Handler,), {"status": status, "body": body, "headers_sent": headers})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        use(monkeypatch, f"http{'s' if context else ''}://localhost:{server.server_port}")
        return server.server_port

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


def use(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    settings(monkeypatch, endpoint, "AKIDEXAMPLE", "a-secret-key")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


def error_message(ask: Callable[[], object], expected: str) -> str:
    """The one sentence of an error that is not taken for a server that is away."""
    with pytest.raises(StoreError) as caught:
        ask()
    assert not isinstance(caught.value, StoreUnavailable)
    text = sentence_of(ask)
    assert re.search(expected, text), text
    return text


def error(code: str, more: str = "") -> bytes:
    return f"<Error><Code>{code}</Code><Message>no</Message>{more}</Error>".encode()


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (200, {}, "not as an S3 server does"),
        (302, {"Location": "http://sign-in.example/"}, r"redirects elsewhere \(302\)"),
        (307, {"Location": "http://sign-in.example/"}, r"redirects elsewhere \(307\)"),
    ],
)
def test_a_page_is_no_store(
    serving: Serving, status: int, headers: dict[str, str], expected: str, operation: str
) -> None:
    serving(status, **headers)
    store = open_store("s3://models/here")
    text = error_message(lambda: OPERATIONS[operation](store), expected)
    assert "AWS_ENDPOINT_URL_S3" in text


def test_https_to_a_plain_server_is_no_question_of_trust(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, f"https://localhost:{serving()}")
    text = error_message(lambda: open_store("s3://models").read("key"), "speaks plain HTTP there, no TLS")
    assert "write http:// in AWS_ENDPOINT_URL_S3" in text
    assert "trusted" not in text


def test_http_to_a_tls_server_names_https(serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, f"http://localhost:{serving(context=_certificate(tmp_path))}")
    with pytest.raises(StoreUnavailable, match="begins with http:// or https:// as the server wants it"):
        open_store("s3://models").read("key")


@pytest.mark.parametrize(
    ("bundle", "host", "expected"),
    [
        ("pair.pem", "127.0.0.1", "certificate is for another name"),
        ("none.pem", "localhost", "file that does not exist"),
    ],
)
def test_a_certificate_of_another_name_or_a_missing_bundle_is_named(
    bundle: str, host: str, expected: str, serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, f"https://{host}:{serving(context=_certificate(tmp_path))}")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / bundle))
    error_message(lambda: open_store("s3://models").read("key"), expected)


def test_a_token_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a pod outside of its cluster: boto3 raises what is no error of its own."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::1:role/a")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/none/token")
    error_message(
        lambda: open_store("s3://models").read("key"),
        "AWS_WEB_IDENTITY_TOKEN_FILE names /none/token, which is not there",
    )


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"])
@pytest.mark.parametrize("end", ["\n", "\r", " "])
def test_a_setting_with_a_line_end_is_named_without_its_value(
    name: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setenv(name, f"AKIDEXAMPLE{end}")
    text = error_message(
        lambda: open_store("s3://models").read("key"), f"{name} begins or ends with a blank or a line end"
    )
    assert "AKIDEXAMPLE" not in text


def test_a_line_end_in_a_profile_prints_no_signature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, "http://127.0.0.1:9")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    program = tmp_path / "credentials.sh"
    program.write_text(
        "#!/bin/sh\n"
        """printf '%s' '{"Version": 1, "AccessKeyId": "AKIDEXAMPLE\\r", "SecretAccessKey": "a-secret-key"}'\n"""
    )
    program.chmod(0o755)
    (tmp_path / "config").write_text(f"[default]\ncredential_process = {program}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    text = error_message(
        lambda: open_store("s3://models").read("key"), "credentials hold a line end or another character"
    )
    assert "Signature" not in text
    assert "AKIDEXAMPLE" not in text


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, error("AuthorizationHeaderMalformed", "<Region>eu-central-1</Region>"), "set AWS_REGION=eu-central-1"),
        (301, error("PermanentRedirect"), "check AWS_ENDPOINT_URL_S3 and AWS_REGION"),
        (401, PAGE, r"does not accept the credentials \(401\)"),
        (400, error("TokenRefreshRequired"), "AWS_SESSION_TOKEN"),
        (403, PAGE, "forbids to read"),
        (407, PAGE, "the proxy wants a user name"),
        (405, PAGE, "refuses to read"),
    ],
)
def test_a_refusal_says_which_setting_is_wrong(serving: Serving, status: int, body: bytes, expected: str) -> None:
    serving(status, body)
    error_message(lambda: open_store("s3://models").read("key"), expected)


@pytest.mark.parametrize(
    ("status", "body"),
    [(429, error("TooManyRequests")), (502, PAGE), (503, PAGE), (500, error("InternalError")), (503, b"")],
)
def test_what_may_pass_is_unavailable(serving: Serving, status: int, body: bytes) -> None:
    serving(status, body)
    with pytest.raises(StoreUnavailable, match="overloaded or out of order"):
        open_store("s3://models").read("key")


def test_the_bucket_in_the_endpoint_is_pointed_out(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    port = serving(404, error("NoSuchBucket"))
    use(monkeypatch, "http://models.storage.example")
    monkeypatch.setenv("HTTP_PROXY", f"http://localhost:{port}")
    error_message(lambda: open_store("s3://models").read("key"), "names the server alone, without models")


def test_a_server_of_another_protocol_is_not_away(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        use(monkeypatch, f"http://127.0.0.1:{server.getsockname()[1]}")

        def greet() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        def ask() -> None:
            thread = threading.Thread(target=greet)
            thread.start()
            try:
                open_store("s3://models").read("key")
            finally:
                thread.join()

        error_message(ask, "answers, but not in HTTP; check the port")
