"""Run the tests that need a real S3 server: on the one that the environment names, else on one that is started here.

    python tests/with_s3.py [--if-there | --or-without] [pytest's own words]

PCAM_S3_SERVER names a script that starts a server: it takes a port and a folder, prints ENDPOINT=, ACCESS_KEY= and
SECRET_KEY=, and leaves a pid file a process in FOLDER/run. Where no server can be had, --if-there runs nothing and is
content, and --or-without runs the tests all the same. `-m container` chooses the container tests, not the store's.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import boto3

ROOT = Path(__file__).parents[1]
NAMES = {"ENDPOINT": "AWS_ENDPOINT_URL_S3", "ACCESS_KEY": "AWS_ACCESS_KEY_ID", "SECRET_KEY": "AWS_SECRET_ACCESS_KEY"}


def script() -> Path | None:
    known = os.environ.get("PCAM_S3_SERVER")
    found = Path(known) if known else ROOT.parent / "shared" / "tools" / "start-ceph-rgw.sh"
    return found if found.is_file() else None


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


def start(server: Path, folder: Path) -> dict[str, str]:
    """Start it, make a bucket, and return the environment that the tests want."""
    command = [str(server), str(free_port()), str(folder), "memstore"]
    environment = os.environ | {"MONPORT": str(free_port())}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    settings = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    found = {NAMES[name]: settings[name] for name in NAMES} | {"PCAM_TEST_BUCKET": "pcam-test"}
    boto3.client(
        "s3", endpoint_url=settings["ENDPOINT"], region_name="us-east-1",
        aws_access_key_id=settings["ACCESS_KEY"], aws_secret_access_key=settings["SECRET_KEY"],
    ).create_bucket(Bucket="pcam-test")  # fmt: skip
    return found | {"PCAM_TEST_S3_START": "\n".join(command), "MONPORT": environment["MONPORT"]}


def stop(folder: Path) -> None:
    for pid in folder.glob("run/*.pid"):
        try:
            os.kill(int(pid.read_text()), signal.SIGKILL)
        except (ProcessLookupError, ValueError):
            continue


def tests(words: list[str], found: dict[str, str]) -> int:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-m", "s3", *words], env=os.environ | found, cwd=ROOT
    ).returncode


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped
    words = [word for word in sys.argv[1:] if word not in ("--if-there", "--or-without")]
    if all(os.environ.get(name) for name in (*NAMES.values(), "PCAM_TEST_BUCKET")):
        return tests(words, {})
    server = script()
    if server is None:
        print(f"No S3 server: set {', '.join(NAMES.values())} and PCAM_TEST_BUCKET, or PCAM_S3_SERVER", file=sys.stderr)
        return tests(words, {}) if "--or-without" in sys.argv else int("--if-there" not in sys.argv)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            return tests(words, start(server, Path(folder)))
        finally:
            stop(Path(folder))


if __name__ == "__main__":
    sys.exit(main())
