"""The server that a command's flows use: the user's is checked in a sentence, a temporary one is the command's own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import psutil
import pytest
from prefect_server import clean_environment

ROOT = Path(__file__).parents[2]
USE = """
import os, signal, sys
from prefect import flow
from tasks.api_server import usable_server
from pcam_model.core.errors import PcamError

signal.signal(signal.SIGINT, signal.default_int_handler)  # in a script's background it is ignored

@flow
def hello():
    print("flow ran at", os.environ["PREFECT_API_URL"], "with home", os.environ.get("PREFECT_HOME"), flush=True)

try:
    with usable_server() as url:
        hello()
        for line in sys.stdin:
            pass
except PcamError as error:
    sys.exit(str(error))
"""


class Refusing(BaseHTTPRequestHandler):
    """Answers /401/... with that code, and everything else with a page."""

    def do_GET(self) -> None:
        code = int(self.path.split("/")[1]) if self.path[1:4].isdigit() else 200
        self.send_response(code)
        self.end_headers()
        self.wfile.write(b"<html>a page</html>")

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def refusing() -> Iterator[str]:
    web = HTTPServer(("127.0.0.1", 0), Refusing)
    thread = Thread(target=web.serve_forever, daemon=True, kwargs={"poll_interval": 0.1})
    thread.start()
    yield f"http://127.0.0.1:{web.server_port}"
    web.shutdown()
    web.server_close()
    thread.join()


def environment(home: Path, **changes: str) -> dict[str, str]:
    """As a user has it whose home is `home`."""
    home.mkdir(exist_ok=True)
    named = {name: value for name, value in clean_environment().items() if not name.lower().endswith("_proxy")}
    return named | {"HOME": str(home), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | changes


def use(home: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """A command that runs a flow, in a folder of the user's."""
    return subprocess.run(
        [sys.executable, "-c", USE], env=environment(home, **changes), cwd=home, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("path", "found", "remedy"),
    [
        ("/401/api", "answers 401", "PREFECT_API_AUTH_STRING"),
        ("/403/api", "answers 403", "PREFECT_API_AUTH_STRING"),
        ("/404", "answers 404", "ends in /api"),
        ("/500/api", "answers 500", "that server's log"),
        ("", "does not answer as Prefect's API does", "ends in /api"),
        (None, "does not answer (", "start that server"),
        ("localhost:4200/api", "is no web address", "http://HOST:4200/api"),
        ('"http://127.0.0.1:9/api"', "is no web address", "without quotes"),
        pytest.param("http://127.0.0.1:42OO/api", "is no web address", "http://HOST:4200/api", marks=pytest.mark.slow),
    ],
)
def test_an_address_that_cannot_be_used_is_one_sentence_within_seconds(
    tmp_path: Path, refusing: str, path: str | None, found: str, remedy: str
) -> None:
    url = "http://127.0.0.1:9/api" if path is None else path if ":" in path else refusing + path
    started = time.monotonic()
    done = use(tmp_path / "home", PREFECT_API_URL=url)
    assert time.monotonic() - started < 30
    assert done.returncode == 1
    assert done.stderr.startswith(f"Prefect's API at {url} (from PREFECT_API_URL) {found}")
    assert remedy in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_active_profile_is_named(tmp_path: Path) -> None:
    profiles = tmp_path / "home" / ".prefect" / "profiles.toml"
    profiles.parent.mkdir(parents=True)
    profiles.write_text('active = "work"\n[profiles.work]\nPREFECT_API_URL = "http://127.0.0.1:9/api"\n')
    done = use(tmp_path / "home")
    assert done.returncode == 1
    assert done.stderr.startswith("Prefect's API at http://127.0.0.1:9/api (from Prefect's profile 'work') does not")
    assert done.stderr.count("\n") == 1


def test_a_proxy_in_between_is_named(tmp_path: Path, refusing: str) -> None:
    for proxy in (f"{refusing}/503", "http://127.0.0.1:9"):
        done = use(tmp_path / "home", PREFECT_API_URL="http://prefect.example:4200/api", HTTP_PROXY=proxy)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        if proxy.endswith(":9"):
            assert "through the proxy of HTTP_PROXY" in done.stderr
            assert "add prefect.example to NO_PROXY" in done.stderr


def test_a_temporary_server_is_the_commands_own(tmp_path: Path) -> None:
    """A dead proxy, a broken database, a wrong key and stores of results concern it not, and it leaves nothing."""
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    (home / ".prefect").mkdir(parents=True)
    (home / ".prefect" / "prefect.db").write_bytes(b"a database of a newer Prefect" * 100)
    temporary.mkdir()
    home.chmod(0o500)
    changes = {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9", "TMPDIR": str(temporary)}
    wrong = {"PREFECT_API_KEY": "a key", "PREFECT_SERVER_DATABASE_CONNECTION_URL": "sqlite+aiosqlite:////no/x.db"}
    results = {"PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true", "PREFECT_DEFAULT_RESULT_STORAGE_BLOCK": "s3/none"}
    done = use(home, **changes, **wrong, **results, PREFECT_RESULTS_DEFAULT_SERIALIZER="none")
    home.chmod(0o700)
    assert done.returncode == 0, done.stderr
    assert f"with home {temporary}/pcam-prefect-" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in (home / ".prefect").iterdir()) == ["prefect.db"]
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("end", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_the_server_outlives_an_interrupt_of_the_terminal_and_ends_with_its_command(
    tmp_path: Path, end: signal.Signals
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", USE], env=environment(tmp_path / "home"), cwd=tmp_path, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout
        assert any("flow ran at" in line for line in iter(process.stdout.readline, ""))
        (server,) = psutil.Process(process.pid).children()
        os.killpg(process.pid, end)
        output = process.stdout.read()
    assert psutil.wait_procs([server], 20)[1] == []
    assert "Error logging to API" not in output
