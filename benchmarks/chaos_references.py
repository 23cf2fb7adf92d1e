"""The jobs that nobody breaks, whose results a campaign compares with."""

from pathlib import Path
from typing import NamedTuple

from benchmarks.chaos_download import download_job
from benchmarks.chaos_processes import RANKS_JOB
from benchmarks.chaos_runs import SLOWNESS, TRAIN_JOB, Home, Job, Servers
from benchmarks.chaos_scoring import scoring_job


class Unbroken(NamedTuple):
    """A job that nobody broke."""

    job: Job
    result: str
    seconds: float


class References:
    """The unbroken jobs by name, each run when it is first asked for."""

    def __init__(self, folder: Path, servers: Servers) -> None:
        self.folder, self.servers = folder, servers._replace(bucket=None)
        self.done = dict[str, Unbroken]()

    def of(self, name: str) -> Unbroken:
        """The job `train`, `two ranks`, `download` or `scoring`, its result and the seconds that it took."""
        if name not in self.done:
            home = Home(self.folder / name, self.servers, self._job(name))
            home.limit_s *= SLOWNESS
            ended = home.run()
            if ended.code:
                raise SystemExit(f"the unbroken job {name} failed: {ended.output}")
            self.done[name] = Unbroken(home.job, home.result(), ended.seconds)
            print(f"unbroken {name}: {ended.seconds:.0f} s, result {home.result()[:12]}", flush=True)
        return self.done[name]

    def _job(self, name: str) -> Job:
        if name == "download" and self.servers.web:
            return download_job(self.servers.web)
        if name == "scoring":
            self.of("train")
            return scoring_job(self.folder / "train")
        return RANKS_JOB if name == "two ranks" else TRAIN_JOB
