"""The faults of `make chaos` are injected as they should be: here into a small program in place of a training."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.chaos_fault import SkippedFault
from benchmarks.chaos_faults import FAULTS
from benchmarks.chaos_proxy import FaultProxy
from benchmarks.chaos_runs import Home, Job, S3Store, Servers
from benchmarks.chaos_web import WebSource

pytestmark = pytest.mark.slow
NEEDS_MORE = {"Prefect worker killed", "scoring shard's process killed", "Prefect server killed", "pruned meanwhile"}
# Writes into cache, store and temporary folder for a second, asks bucket and web source, and has two ranks.
PROGRAM = """
import http.client, os, subprocess, sys, tempfile, time, urllib.parse, urllib.request
from pathlib import Path
store = urllib.parse.urlsplit(os.environ["PCAM_STORE"])
folders = [Path(os.environ["PCAM_CACHE"], "packs"), Path(tempfile.gettempdir(), "some")]
folders += [Path(store.path, "shards")] * (store.scheme == "file")
rank = [sys.executable, "-c", "import time; time.sleep(2)", "pcam_model.training.distributed_job"]
ranks = [subprocess.Popen(rank) for _ in range(2)] if "ranks" in sys.argv else []
try:
    for number in range(12):
        time.sleep(0.1)
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.json").write_bytes(b"0123456789" * 1000)
        for address in [word for word in sys.argv[1:] if word.startswith("http") and number < 9]:
            with urllib.request.urlopen(address, timeout=10) as answer:
                assert answer.read(9) == b"right", "the answer is wrong"
    assert all(rank.wait() == 0 for rank in ranks), "one of the 2 processes died"
except KeyboardInterrupt:
    os._exit(75)
except (OSError, AssertionError, http.client.HTTPException) as error:
    sys.exit(f"pcam: {error}")
"""


@pytest.fixture(scope="module")
def web() -> Iterator[WebSource]:
    web = WebSource()
    web.files = {"a": b"right"}
    yield web
    web.close()


@pytest.fixture
def servers(web: WebSource) -> Iterator[Servers]:
    proxy = FaultProxy(web.server.server_port)
    yield Servers("", S3Store("s3://none", {}, proxy), web)
    proxy.close()


@pytest.mark.parametrize("name", sorted(set(FAULTS) - NEEDS_MORE))
def test_every_fault_is_injected(name: str, servers: Servers, web: WebSource, tmp_path: Path) -> None:
    fault = FAULTS[name]
    assert servers.bucket
    port = servers.bucket.proxy.port if fault.bucket else web.server.server_port
    words = {"two ranks": ("ranks",), "download": (f"{web.address}/a",)}.get(fault.job, ())
    job = Job((f"http://127.0.0.1:{port}/a",) if fault.bucket else words, PROGRAM, "none", "none")
    home = Home(tmp_path / "home", servers._replace(bucket=servers.bucket if fault.bucket else None), job)
    home.limit_s = 60
    try:
        broken = fault.inject(home, random.Random(1), 1.5)
    except SkippedFault as lack:
        pytest.skip(str(lack))
    finally:
        home.closing.close()
    assert broken.code is not None, "it hangs"
    assert broken.codes is None or broken.code in broken.codes, home.output()
    assert broken.what
    assert "Traceback" not in home.output()
    assert home.processes() == []
