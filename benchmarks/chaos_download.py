"""Faults of a web source during the download."""

import random
import time

from benchmarks.chaos_fault import Broken, Fault
from benchmarks.chaos_runs import CONFIG, NAME, TRAIN_JOB, Home, Job
from benchmarks.chaos_web import MODES, WebSource

FOREVER = 1 << 30
CUTS = 6
FIRST_SMALL, ALL_FILES = 6, 9
"""The large files are asked for last; one without end would fill the disk before it is as large as one may be."""
STORM_S = (1.0, 12.0)
PUBLISHED = "import pcam_model.data.official_files as files; files.PUBLISHED_MD5 |= {}; "


def download_job(web: WebSource) -> Job:
    """`pcam train` on a web address, whose files are taken for the published ones."""
    settings = (*CONFIG, "split.kind=auto")
    words = ("train", "--source", web.address, "--run", NAME, *(word for key in settings for word in ("--set", key)))
    return Job(words=words, program=PUBLISHED.format(web.published_md5()) + TRAIN_JOB.program)


def web_misbehaves(home: Home, draw: random.Random, _: float) -> Broken:
    """The web source misbehaves for one request, for two, for some seconds, or until the next start."""
    web = home.servers.web
    assert web is not None
    mode = draw.choice(MODES)
    spared = draw.randrange(FIRST_SMALL if mode == "endless body" else ALL_FILES)
    times = draw.choice((1, 2, CUTS if mode == "cut body" else FOREVER))
    with web.misbehaving(mode, times, spared, draw.random()):
        process = home.start()
        if mode == "503" and times == FOREVER:
            while not web.hits and process.poll() is None:
                time.sleep(0.1)
            time.sleep(draw.uniform(*STORM_S))
            web.mode = ""
        ended, hits = home.wait(process), web.hits
    lasting = times == FOREVER and mode not in ("slow drip", "503")
    codes = (1,) if lasting else (0, 1)
    return Broken(f"{mode}, {hits} requests after {spared}: exit code {ended.code}", codes=codes, code=ended.code)


DOWNLOAD_FAULTS: dict[str, Fault] = {
    "web source misbehaves": Fault(
        web_misbehaves, job="download", cause=r"MD5|redirects|without end|more than|cannot be reached|breaks off"
    ),
}
