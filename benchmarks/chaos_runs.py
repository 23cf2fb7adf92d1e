"""Commands that a campaign breaks, by default the smallest real `pcam train`, each in a home of its own."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import psutil

from benchmarks.chaos_proxy import FaultProxy
from benchmarks.chaos_web import WebSource
from pcam_model.registry.backends.base import NotFound
from pcam_model.registry.factory import open_store

NAME = "chaos"
PCAM = "from pcam_model.cli.main import main; main()"
CONFIG = (
    "source.max_patches=240", "model.arch=resnet18", "model.weights=none", "model.image_size=32", "frozen.epochs=1",
    "frozen.batch_size=16", "frozen.lr=1e-3", "finetune.epochs=2", "finetune.batch_size=16", "finetune.lr=1e-3",
)  # fmt: skip
TRAIN = ("train", "--source", "sample", "--run", NAME, *(word for key in CONFIG for word in ("--set", key)))
LIMIT_S, SLOWNESS = 300.0, 6
"""Seconds after which a command hangs, on a busy machine so many times what an unbroken one took."""


class Ended(NamedTuple):
    """How a command ended."""

    code: int | None
    """Its exit code, the negative signal, or None where it hung."""
    output: str
    seconds: float


class Job(NamedTuple):
    """A command that is broken, and what it publishes."""

    words: tuple[str, ...] = TRAIN
    program: str = PCAM
    """Python that runs the words."""
    result: str = f"runs/{NAME}/model/model.safetensors"
    """The file of the store that has to be the same after a fault."""
    manifest: str = f"runs/{NAME}/manifest.json"
    """The file of the store that is written last."""


TRAIN_JOB = Job()


class S3Store(NamedTuple):
    """A store in a bucket, behind a proxy that misbehaves."""

    uri: str
    environment: dict[str, str]
    proxy: FaultProxy


class Servers(NamedTuple):
    """What a campaign has started for its homes."""

    api_url: str = ""
    """Of a Prefect server; without one a command starts its own."""
    bucket: S3Store | None = None
    """The store; by default a folder of the home."""
    web: WebSource | None = None


class Home:
    """The folders of one run: store, cache and all else that the command writes."""

    def __init__(self, folder: Path, servers: Servers, job: Job = TRAIN_JOB) -> None:
        self.folder, self.cache, self.job, self.servers = folder, folder / "cache", job, servers
        self.bucket = servers.bucket
        self.store = self.bucket.uri if self.bucket else (folder / "store").as_uri()
        self.limit_s = LIMIT_S
        self.closing = ExitStack()
        """Undone once the run has been inspected."""
        folder.mkdir(parents=True)
        self.environment = (self.bucket.environment if self.bucket else {}) | {
            "HOME": str(folder), "PCAM_CACHE": str(self.cache), "PCAM_STORE": self.store,
            "PREFECT_HOME": str(folder / "prefect"), "OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).parents[1]), "COLUMNS": "1000", "TMPDIR": str(folder / "tmp"),
            **({"PREFECT_API_URL": servers.api_url} if servers.api_url else {}),
        }  # fmt: skip
        (folder / "tmp").mkdir()

    def start(
        self, *words: str, before: str = "", prefix: Sequence[str] = (), variables: Mapping[str, str] | None = None
    ) -> "subprocess.Popen[str]":
        """Start the job, or `pcam` with other words, in a process group of its own; its output goes to a file.

        Args:
            words: of `pcam`; by default the job is started.
            before: Python that is run first.
            prefix: a command that runs the command.
            variables: of the environment, beside the home's.
        """
        program, words = (PCAM, words) if words else (self.job.program, self.job.words)
        with (self.folder / "output.txt").open("a") as output:
            return subprocess.Popen(
                [*prefix, sys.executable, "-c", before + program, *words], env=self.environment | dict(variables or {}),
                cwd=self.folder, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, text=True,
            )  # fmt: skip

    def wait(self, process: "subprocess.Popen[str]") -> Ended:
        """Wait until a command has ended, or kill it where it hangs."""
        began = time.monotonic()
        try:
            code: int | None = process.wait(self.limit_s)
        except subprocess.TimeoutExpired:
            code = None
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return Ended(code, self.output(), time.monotonic() - began)

    def run(self, *words: str) -> Ended:
        """A command from beginning to end; by default the job."""
        return self.wait(self.start(*words))

    def output(self) -> str:
        """All that the commands have printed since the last `clear_output`."""
        path = self.folder / "output.txt"
        return path.read_text(errors="replace") if path.exists() else ""

    def clear_output(self) -> None:
        """Forget the output."""
        (self.folder / "output.txt").unlink(missing_ok=True)

    def is_published(self) -> bool:
        """Whether the result is in the store, whole."""
        return bool(self._read(self.job.manifest))

    def result(self) -> str:
        """The SHA-256 of the published weights, or scores; empty where there are none."""
        content = self._read(self.job.result)
        return hashlib.sha256(content).hexdigest() if content else ""

    def _read(self, path: str) -> bytes:
        """A file of the store; empty where it is not there."""
        try:
            with patch.dict(os.environ, self.bucket.environment if self.bucket else {}):
                return open_store(self.store).read(path)
        except NotFound:
            return b""

    def files(self, *parts: str) -> list[Path]:
        """All files below a folder of the home, in a fixed order."""
        return sorted(path for path in self.folder.joinpath(*parts).rglob("*") if path.is_file())

    def leftovers(self) -> Sequence[str]:
        """Temporary files in the store, scratch that a published run has left, and processes."""
        temporary = [path for path in self.files("store") if path.name.startswith(".") and path.name != ".lock"]
        found = [str(path.relative_to(self.folder)) for path in [*temporary, *self.files("cache", "work")]]
        return found + self.processes()

    def processes(self) -> list[str]:
        """What runs with this home, after the seconds that a server may take to end."""
        for _ in range(20):
            found = [process for process in psutil.process_iter(["cmdline"]) if self._is_ours(process)]
            if not found:
                return []
            time.sleep(0.5)
        return [" ".join(process.info["cmdline"] or [])[:200] for process in found]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get("PCAM_CACHE") == str(self.cache)
        except psutil.Error:
            return False


def sentences(output: str) -> list[str]:
    """What the command says of its failure."""
    return [line for line in output.splitlines() if line.startswith("pcam: ")]
