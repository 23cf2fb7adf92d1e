"""The faults of a campaign: each breaks a run of `pcam train` at a moment that a seed draws."""

import hashlib
import random
import shutil
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.chaos_proxy import MODES
from benchmarks.chaos_runs import NAME, Home

WAIT_S = 2.0
PYTHON_START_S = 1.0
"""Before that Python answers SIGINT with a traceback of its own."""
ADDRESS_SPACE = (2e9, 12e9)
"""Bytes between which a memory limit is drawn."""
STORE_FAULT = "store misbehaves"
"""The fault that needs a home with a bucket."""
OWN_SERVER_FAULTS = ("Prefect server killed", "killed with its own server")
"""The faults of a command that starts a Prefect server of its own."""
SERVER_START_S = 8.0


class Broken(NamedTuple):
    """What a fault did."""

    what: str
    restore: Callable[[], None] | None = None
    """Undoes damage that the product may refuse to mend by itself; None where it has to."""
    codes: tuple[int | None, ...] | None = None
    """The exit codes that the broken command may have; None: any but that of a hang."""
    code: int | None = 0


Fault = Callable[[Home, random.Random, float], Broken]
"""Called with a fresh home, the draw, and the seconds that an unbroken run takes."""


def _signalled(
    home: Home, draw: random.Random, seconds: float, numbers: tuple[int, ...], codes: tuple[int, ...]
) -> Broken:
    process, moment = home.start(), draw.uniform(PYTHON_START_S, seconds)
    time.sleep(moment)
    for number in numbers:
        if process.poll() is None:
            process.send_signal(number)
            time.sleep(WAIT_S if number == signal.SIGSTOP else 0.3)
    ended = home.wait(process)
    names = " ".join(signal.Signals(number).name for number in numbers)
    return Broken(f"{names} after {moment:.1f} s", codes=codes, code=ended.code)


def _damage(path: Path, draw: random.Random) -> str:
    """Flip a byte of a file, cut it, or empty it; says which."""
    content = bytearray(path.read_bytes())
    kind = draw.choice(["a byte flipped", "cut in half", "emptied"])
    if kind == "a byte flipped" and content:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    elif kind == "cut in half":
        del content[len(content) // 2 :]
    else:
        content.clear()
    path.write_bytes(content)
    return kind


def damage_between_starts(home: Home, draw: random.Random, seconds: float) -> Broken:
    """Kill the run, and damage one file of its cache or store."""
    killed = _signalled(home, draw, seconds, (signal.SIGKILL,), (-9, 0))
    candidates = [path for path in home.files("cache") + home.files("store") if path.name != ".lock"]
    if home.is_published() or not candidates:
        return killed
    path = draw.choice(candidates)
    before = path.read_bytes()
    name, kind = path.relative_to(home.folder), _damage(path, draw)

    def restore() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(before)

    return killed._replace(what=f"{killed.what}, {name} {kind}", restore=restore)


def leftovers_of_a_crash(home: Home, draw: random.Random, seconds: float) -> Broken:
    """Kill the run, and leave temporary files where writers leave them."""
    killed = _signalled(home, draw, seconds, (signal.SIGKILL,), (-9, 0))
    folders = sorted({path.parent for path in home.files("store", "runs", NAME)})
    if home.is_published() or not folders:
        return killed
    folder = draw.choice(folders)
    host = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
    (folder / f".step.json.abcdefgh.{host}-999999999").write_bytes(b"half")
    return killed._replace(what=f"{killed.what}, a temporary file in {folder.relative_to(home.folder)}")


def lost_cache(home: Home, draw: random.Random, seconds: float) -> Broken:
    """Kill the run, and remove the cache: another machine goes on."""
    killed = _signalled(home, draw, seconds, (signal.SIGKILL,), (-9, 0))
    shutil.rmtree(home.cache, ignore_errors=True)
    return killed._replace(what=f"{killed.what}, the cache removed")


def two_at_once(home: Home, draw: random.Random, seconds: float) -> Broken:
    """Start the run twice: one is told who has it, or finds it finished."""
    first = home.start()
    delay = draw.uniform(0, seconds)
    time.sleep(delay)
    second = home.start()
    codes = sorted([home.wait(first).code or 0, home.wait(second).code or 0])
    told = "is being worked on by process" in home.output() or codes == [0, 0]
    return Broken(f"started twice, {delay:.1f} s apart", codes=(0,), code=0 if told and codes[0] == 0 else 1)


def pruned_meanwhile(home: Home, draw: random.Random, seconds: float) -> Broken:
    """Prune all unpublished runs, however young, while the run is under way."""
    process, moment = home.start(), draw.uniform(0.2, seconds)
    time.sleep(moment)
    home.run("prune", "--days", "0", "--delete")
    return Broken(f"pruned after {moment:.1f} s", code=home.wait(process).code, codes=(0, 1))


def _limited(home: Home, name: str, limit: int) -> int | None:
    """The exit code of the command under a limit of the module `resource`."""
    before = f"import resource; resource.setrlimit(resource.{name}, ({limit}, resource.RLIM_INFINITY)); "
    return home.wait(home.start(before=before)).code


def small_files_only(home: Home, draw: random.Random, _: float) -> Broken:
    """No file may grow beyond a limit, as on a full disk."""
    limit = int(draw.uniform(1e5, 5e7))
    return Broken(f"no file larger than {limit:,} bytes", codes=(0, 1), code=_limited(home, "RLIMIT_FSIZE", limit))


def little_memory(home: Home, draw: random.Random, _: float) -> Broken:
    """No more address space than a limit, as by `ulimit -v`: from what Python needs to what the run does."""
    limit = int(draw.uniform(*ADDRESS_SPACE))
    return Broken(f"address space of {limit / 1e9:.1f} GB", codes=None, code=_limited(home, "RLIMIT_AS", limit))


def server_killed(home: Home, draw: random.Random, seconds: float) -> Broken:
    """Kill the Prefect server that the command has started."""
    process, moment = home.start(), draw.uniform(SERVER_START_S, seconds + SERVER_START_S)
    time.sleep(moment)
    killed = ""
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            if "uvicorn" in " ".join(child.cmdline()):
                child.kill()
                killed = ", the server was there"
    ended = home.wait(process)
    return Broken(f"server killed after {moment:.1f} s{killed}", codes=(0, 1), code=ended.code)


def killed_with_server(home: Home, draw: random.Random, seconds: float) -> Broken:
    """Kill a command that has a server of its own."""
    return _signalled(home, draw, seconds + SERVER_START_S, (signal.SIGKILL,), (-9, 0))


def store_misbehaves(home: Home, draw: random.Random, seconds: float) -> Broken:
    """The bucket is down, resets connections, answers 503, is slow, or loses its answers, for some seconds."""
    assert home.bucket is not None
    proxy, process = home.bucket.proxy, home.start()
    moment, length, mode = draw.uniform(0.2, seconds), draw.uniform(1, 8), draw.choice(MODES)
    time.sleep(moment)
    proxy.mode = mode
    time.sleep(length)
    proxy.mode = ""
    return Broken(f"store {mode} for {length:.1f} s after {moment:.1f} s", codes=(0, 1), code=home.wait(process).code)


INTERRUPTED = (75, 0, -signal.SIGTERM, -signal.SIGINT)
FAULTS: dict[str, Fault] = {
    "SIGKILL": partial(_signalled, numbers=(signal.SIGKILL,), codes=(-9, 0)),
    "SIGTERM": partial(_signalled, numbers=(signal.SIGTERM,), codes=INTERRUPTED),
    "SIGINT twice": partial(_signalled, numbers=(signal.SIGINT, signal.SIGINT), codes=(*INTERRUPTED, 130)),
    "SIGSTOP, SIGCONT": partial(_signalled, numbers=(signal.SIGSTOP, signal.SIGCONT), codes=(0,)),
    "damage between starts": damage_between_starts,
    "leftovers of a crash": leftovers_of_a_crash,
    "cache lost": lost_cache,
    "started twice": two_at_once,
    "pruned meanwhile": pruned_meanwhile,
    "file size limit": small_files_only,
    "memory limit": little_memory,
    OWN_SERVER_FAULTS[0]: server_killed,
    OWN_SERVER_FAULTS[1]: killed_with_server,
    STORE_FAULT: store_misbehaves,
}
