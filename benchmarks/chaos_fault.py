"""What a fault of a campaign is, and the signals that many of them begin with."""

import random
import signal
import time
from collections.abc import Callable
from typing import NamedTuple

from benchmarks.chaos_runs import Home

WAIT_S = 2.0
PYTHON_START_S = 1.0
"""Before that Python answers SIGINT with a traceback of its own."""


class Broken(NamedTuple):
    """What a fault did."""

    what: str
    restore: Callable[[], None] | None = None
    """Undoes damage that the product may refuse to mend by itself; None where it has to."""
    codes: tuple[int | None, ...] | None = None
    """The exit codes that the broken command may have; None: any but that of a hang."""
    code: int | None = 0


Inject = Callable[[Home, random.Random, float], Broken]
"""Called with a fresh home, the draw, and the seconds that an unbroken run takes."""


class Fault(NamedTuple):
    """A fault, and what it is injected into."""

    inject: Inject
    cause: str = ""
    """A regular expression that the sentence of a broken command with exit code 1 has to contain."""
    job: str = "train"
    bucket: bool = False
    """Whether the store is a bucket behind a proxy."""
    own_server: bool = False
    """Whether the command starts a Prefect server of its own."""


class SkippedFault(Exception):
    """The machine lacks what the fault needs; says what."""


def signalled(
    home: Home, draw: random.Random, seconds: float, numbers: tuple[int, ...], codes: tuple[int, ...]
) -> Broken:
    """Send signals to the command at a random moment."""
    process, moment = home.start(), draw.uniform(PYTHON_START_S, seconds)
    time.sleep(moment)
    for number in numbers:
        if process.poll() is None:
            process.send_signal(number)
            time.sleep(WAIT_S if number == signal.SIGSTOP else 0.3)
    ended = home.wait(process)
    names = " ".join(signal.Signals(number).name for number in numbers)
    return Broken(f"{names} after {moment:.1f} s", codes=codes, code=ended.code)


def killed(home: Home, draw: random.Random, seconds: float) -> Broken:
    """Kill the command at a random moment."""
    return signalled(home, draw, seconds, (signal.SIGKILL,), (-9, 0))
