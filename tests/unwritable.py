"""Folders that cannot be written to, each for another reason, and `pcam` as a user whom the file system refuses."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

LIBRARIES = ("torchinductor",)  # whose caches stay in the folder for temporary files
OTHER_USER = 54321  # a number that no user has
# root as a user whom modes and owners concern
UNPRIVILEGED = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"] if os.geteuid() == 0 else []
ROOT = Path(__file__).parents[1]
# Runs commands in one process, which imports torch once: [[environment, words], ...] -> [[exit code, stderr], ...]
COMMANDS = """
import contextlib, io, json, os, sys
from pcam_model.cli.main import main
from pcam_model.core.optional_cache import _temporary_cache
results = []
for environment, words in json.load(sys.stdin):
    os.environ.update(environment)
    _temporary_cache.cache_clear()
    sys.argv, errors, code = ["pcam", *words], io.StringIO(), 0
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        except BaseException as error:
            code, _ = 99, errors.write("".join(__import__("traceback").format_exception(error)))
    results.append([code, errors.getvalue()])
print(json.dumps(results))
"""


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    stderr: str


def run_commands(commands: list[tuple[dict[str, str], list[str]]], folder: Path) -> list[Outcome]:
    """Run `pcam` with each environment and words, without the rights of root; `folder` is the home folder."""
    temporary = folder / "tmp"
    temporary.mkdir()
    variables = {"HOME": str(folder), "TMPDIR": str(temporary), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*UNPRIVILEGED, sys.executable, "-c", COMMANDS],
        input=json.dumps(commands), env=variables, cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    left = [path.name for path in temporary.iterdir() if not path.name.startswith(LIBRARIES)]
    assert not left, "temporary files are left"
    return [Outcome(code, stderr) for code, stderr in json.loads(done.stdout)]


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """A file system in memory at `folder`; the test is skipped where none may be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", ",".join(("size=1m", *options)), "tmpfs", folder]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a small file system here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@contextmanager
def unwritable(reason: str, folder: Path) -> Iterator[Path]:
    """A folder below the empty `folder` that cannot be written to, for one of the REASONS."""
    target = folder / "target"
    if reason == "file in its place":
        target.touch()
    elif reason == "file above it":
        target.touch()
        target /= "cache"
    elif reason == "dangling link":
        target.symlink_to(folder / "gone")
    elif reason == "mode":
        target.mkdir(mode=0o555)
    elif reason == "owner":
        target.mkdir(mode=0o755)
        _chown(target)
    elif reason == "owner of a shared folder's part":
        target.mkdir()
        target.chmod(0o1777)
        for name in ("packs", "models", "manifests", "files", "downloads", "runs", "channels"):
            (target / name).mkdir()
            _chown(target / name)
    elif reason in ("read-only", "full"):
        with mounted(target, *(["ro"] if reason == "read-only" else [])):
            if reason == "full":
                _fill(target / "file")
            yield target / "cache"
        return
    yield target


REASONS = {
    "file in its place": "is a file, expected a folder",
    "file above it": "is a file, expected a folder",
    "dangling link": "which does not exist",
    "mode": "may not write to",
    "owner": f"which is uid {OTHER_USER}'s",
    "owner of a shared folder's part": f"which is uid {OTHER_USER}'s",
    "read-only": "its file system is read-only",
    "full": "the disk is full",
}
"""The reasons, each with words of its message."""


def _chown(path: Path) -> None:
    if os.geteuid():
        pytest.skip("only root gives a file to another user")
    os.chown(path, OTHER_USER, OTHER_USER)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            return
