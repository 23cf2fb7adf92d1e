"""What can be wrong with an S3 server ends in one sentence that says what to do."""

import datetime
import http.server
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from email.utils import format_datetime
from pathlib import Path

import pytest
from s3_settings import real_environment, settings

from pcam_model.core.errors import PcamError, StoreError
from pcam_model.registry.backends.base import StoreUnavailable
from pcam_model.registry.factory import open_store
from pcam_model.registry.retry import retry_while_unavailable
from pcam_model.registry.workspace import Workspace

Answering = Callable[[int, str], str]


class Answer(http.server.BaseHTTPRequestHandler):
    status, code, late = 403, "AccessDenied", 0.0

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = f"<Error><Code>{self.code}</Code><Message>no</Message></Error>".encode() if self.code else b""
        self.send_response_only(self.status)
        stamp = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=self.late)
        self.send_header("Date", format_datetime(stamp, usegmt=True))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _answer

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Start a server with one answer to everything: serving(status, code, late=0, context=None)."""
    servers = []

    def start(status: int, code: str, late: float = 0.0, context: ssl.SSLContext | None = None) -> str:
        handler = type("Fixed", (Answer,), {"status": status, "code": code, "late": late})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that hangs up is what we test
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        servers.append((server, thread))
        endpoint = f"http{'s' if context else ''}://localhost:{server.server_port}"
        settings(monkeypatch, endpoint, "key", "a-secret-key")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        return endpoint

    yield start
    for server, thread in servers:
        server.shutdown()
        server.server_close()
        thread.join()


def error_message(ask: Callable[[], object]) -> str:
    """The one sentence that a person is told; never with the secret."""
    with pytest.raises(PcamError) as caught:
        ask()
    text = str(caught.value)
    assert "\n" not in text
    assert "a-secret-key" not in text
    assert "Traceback" not in text
    assert "0x" not in text
    return text


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (403, "InvalidAccessKeyId", "does not accept the credentials"),
        (403, "SignatureDoesNotMatch", "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"),
        (400, "ExpiredToken", "AWS_SESSION_TOKEN"),
        (403, "AccessDenied", "may not write there; ask the bucket's owner"),
        (404, "NoSuchBucket", "s3://models: .* has no such bucket; create it"),
        (403, "QuotaExceeded", "the store is full"),
        (501, "NotImplemented", "refuses to write"),
    ],
)
def test_a_refusal_to_write_says_what_to_do(serving: Callable[..., str], status: int, code: str, expected: str) -> None:
    endpoint = serving(status, code)
    text = error_message(lambda: open_store("s3://models/here").write("key", b"x"))
    assert re.search(expected, text), text
    assert endpoint in text or "s3://models" in text


def test_a_refused_upload_speaks_the_same(serving: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    serving(403, "AccessDenied")
    assert "may not write there" in error_message(
        lambda: open_store("s3://models/here").upload("key", tmp_path / "file")
    )


def test_a_store_that_may_not_be_written_is_said_before_a_run_begins(serving: Callable[..., str]) -> None:
    serving(403, "AccessDenied")
    place = Workspace(run="a", store="s3://models/here", folder="/nonexistent")
    assert "may not write there; ask the bucket's owner" in error_message(place.exists_in_store)


def test_a_proxy_is_honoured(serving: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = serving(404, "NoSuchBucket")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://storage.example:9000")
    monkeypatch.setenv("HTTP_PROXY", proxy)
    assert "http://storage.example:9000 has no such bucket" in error_message(
        lambda: open_store("s3://models").read("key")
    )
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert "the proxy does not answer; check HTTPS_PROXY" in error_message(
        lambda: open_store("s3://models").read("key")
    )


def test_a_refusal_without_words_is_said_too(serving: Callable[..., str]) -> None:
    serving(403, "")
    assert "forbids to read; check AWS_ACCESS_KEY_ID" in error_message(
        lambda: open_store("s3://models/here").stat("key")
    )


def test_a_server_that_speaks_no_s3_is_said_to_be_none(serving: Callable[..., str]) -> None:
    serving(404, "")
    assert "no such bucket or does not speak S3" in error_message(
        lambda: list(open_store("s3://models/here").entries())
    )


@pytest.mark.parametrize(("late", "expected"), [(3600.0, "60 minutes behind"), (-1800.0, "30 minutes ahead")])
def test_a_wrong_clock_is_said_with_how_wrong_it_is(serving: Callable[..., str], late: float, expected: str) -> None:
    serving(403, "RequestTimeTooSkewed", late)
    text = error_message(lambda: open_store("s3://models/here").read("key"))
    assert "clock" in text
    assert any(f"{int(expected[:2]) + d}{expected[2:]}" in text for d in (-1, 0, 1))


def test_an_overloaded_server_may_be_waited_for(serving: Callable[..., str]) -> None:
    serving(503, "SlowDown")
    with pytest.raises(StoreUnavailable, match="overloaded"):
        open_store("s3://models/here").read("key")


def test_a_store_that_comes_back_is_used(caplog: pytest.LogCaptureFixture) -> None:
    answers = iter([StoreUnavailable("away"), "content"])

    def work() -> str:
        answer = next(answers)
        if isinstance(answer, StoreUnavailable):
            raise answer
        return answer

    assert retry_while_unavailable(work, 60.0) == "content"
    assert [record.message.split(" in ")[0] for record in caplog.records] == ["away; next attempt"]


def test_a_store_that_stays_away_is_given_up() -> None:
    def work() -> None:
        raise StoreUnavailable("away")

    with pytest.raises(StoreUnavailable):
        retry_while_unavailable(work, 0.0)


def test_a_server_that_is_down_is_said_to_be_down(monkeypatch: pytest.MonkeyPatch) -> None:
    settings(monkeypatch, "http://127.0.0.1:9", "key", "a-secret-key")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StoreUnavailable):
        open_store("s3://models").read("key")
    text = error_message(lambda: open_store("s3://models").read("key"))
    assert "http://127.0.0.1:9 does not answer (" in text
    assert "refused" in text
    assert "AWS_ENDPOINT_URL_S3" in text


def test_missing_credentials_are_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    settings(monkeypatch, "http://127.0.0.1:9", "", "")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "no complete credentials; set AWS_ACCESS_KEY_ID" in error_message(
        lambda: open_store("s3://models").read("key")
    )


def test_an_address_that_is_none_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    settings(monkeypatch, "not an address", "key", "a-secret-key")
    assert "refuses the AWS settings" in error_message(lambda: open_store("s3://models"))


def test_a_certificate_that_nobody_vouches_for_is_said(serving: Callable[..., str], tmp_path: Path) -> None:
    endpoint = serving(200, "", context=_certificate(tmp_path))
    text = error_message(lambda: open_store("s3://models").read("key"))
    assert text.startswith(f"{endpoint}: its certificate is not trusted (")
    assert "AWS_CA_BUNDLE" in text


def _certificate(folder: Path) -> ssl.SSLContext:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    signed = made.sign(key, hashes.SHA256())
    form = serialization.Encoding.PEM
    plain = key.private_bytes(form, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "pair.pem").write_bytes(plain + signed.public_bytes(form))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "pair.pem")
    return context


@pytest.mark.s3
def test_a_real_server_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    real = real_environment()
    endpoint, key, bucket = real["AWS_ENDPOINT_URL_S3"], real["AWS_ACCESS_KEY_ID"], real["PCAM_TEST_BUCKET"]
    for wrong in (("nobody", "a-secret-key"), (key, "a-secret-key")):
        settings(monkeypatch, endpoint, *wrong)
        assert "does not accept the credentials" in error_message(
            lambda: open_store(f"s3://{bucket}").write("key", b"x")
        )
    settings(monkeypatch, endpoint, key, real["AWS_SECRET_ACCESS_KEY"])
    for ask in (lambda s: s.write("key", b"x"), lambda s: s.read("key"), lambda s: list(s.entries())):
        with pytest.raises(StoreError, match="has no such bucket"):
            ask(open_store("s3://there-is-none-of-this-name"))
