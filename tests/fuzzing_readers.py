"""Fuzzing of all readers with damaged files: `python tests/fuzzing_readers.py --minutes 30`.

Each reader ends with success, a PcamError (or PatchError, which sets an image aside), within limits of time and memory.
"""

import argparse
import contextlib
import io
import json
import logging
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
from fuzzing_targets import Target, make_targets
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pcam_model.core.errors import PcamError
from pcam_model.data.image import PatchError

MAX_SECONDS = 10.0
"""Of processor time for one file."""
MAX_MEGABYTES = 600
"""By which memory may grow in all, hypothesis's own included."""
BATCH = 50
"""Files that are damaged under one seed."""
WORDS = [b"", b"\0", b"\n", b'"', b"[", b"{", b",", b"-", b":", b"1e999", b"NaN", b"null", b"\xff\xfe", b"\xed\xa0\x80",
         b"!!int ''", b"0x" + b"f" * 5000, b"[" * 5000, b"{a: " * 2000, b"\x80\x02c", b"9" * 5000]  # fmt: skip
BATCH_SETTINGS = settings(
    max_examples=BATCH,
    phases=[Phase.generate],  # a fault is found again by its seed
    report_multiple_bugs=False,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The content with some bytes changed, removed, repeated or put in."""
    for _ in range(draw(st.integers(1, 4))):
        place = int(draw(st.sampled_from((0, 0, 1, 2))) == 2 and len(content) * 0.9)  # often what is at either end
        start = draw(st.integers(place, max(place, len(content))))
        length = draw(st.sampled_from((0, 1, 1, 2, 4, 8, 64, 4096)))
        block = content[start : start + length]
        new = draw(
            st.sampled_from((b"", block * 2, bytes(length), block[::-1], *WORDS))
            | st.binary(max_size=8)
            | st.integers(0, 7).map(lambda bit, block=block: bytes(byte ^ (1 << bit) for byte in block))
        )
        content = content[:start] + new + content[start + length :]
    return content[: draw(st.integers(0, len(content)))] if draw(st.integers(0, 9)) == 0 else content


@st.composite
def other_values(draw: st.DrawFn, content: bytes) -> bytes:
    """JSON, or lines of JSON, with some values replaced, removed or added."""
    lines = [json.loads(line) for line in content.splitlines()] if content.count(b"}\n{") else [json.loads(content)]
    for _ in range(draw(st.integers(1, 3))):
        inner: Any = lines
        while True:
            keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
            key = draw(st.sampled_from(keys)) if keys else None
            if key is None or not isinstance(inner[key], dict | list) or draw(st.booleans()):
                break
            inner = inner[key]
        if isinstance(inner, dict) and key is not None and draw(st.integers(0, 4)) == 0:
            del inner[key]
        elif isinstance(inner, dict):
            inner[draw(st.just(key) if key is not None else st.text(max_size=4))] = draw(VALUES)
        elif key is not None:
            inner[key] = draw(VALUES)
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def mutations(target: Target) -> st.SearchStrategy[bytes]:
    """Damaged contents of a target's file."""
    content = target.path.read_bytes()
    is_json = target.path.suffix in (".json", ".jsonl")
    return other_values(content) | damaged(content) if is_json else damaged(content)


def try_one(target: Target, content: bytes) -> str:
    """Read the damaged content: "read", or the class of what the reader raised; else an AssertionError."""
    target.path.write_bytes(content)
    begun = time.process_time()
    outcome, message = "read", ""
    try:
        target.read()
    except (PcamError, PatchError) as error:
        outcome, message = type(error).__name__, str(error)
    assert "\n" not in message, message
    seconds = time.process_time() - begun
    assert seconds < MAX_SECONDS, f"{seconds:.0f} s"
    return outcome


def fuzz(target: Target, seed: int, outcomes: Counter[str]) -> None:
    """Read a batch of damaged files, all made from the seed; raises what a reader must not."""

    @hypothesis.seed(seed)
    @BATCH_SETTINGS
    @given(mutations(target))
    def run(content: bytes) -> None:
        outcomes[try_one(target, content)] += 1

    whole = target.path.read_bytes()
    try:
        run()
    finally:
        target.path.write_bytes(whole)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No log lines, output and warnings of the readers."""
    logging.disable()
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def campaign(
    home: Path, seconds: float, seed: int = 0, words: str = "", on_fault: Callable[[str, Exception], None] | None = None
) -> dict[str, Counter[str]]:
    """Fuzz all targets whose names have `words`, in turn, for so long, and each at least once; outcomes by target.

    Args:
        home: an empty folder.
        seconds: of wall clock.
        seed: of the first batches.
        words: a part of the names.
        on_fault: is told the target and what its reader raised; by default that is raised.
    """
    with quiet():
        home.mkdir(exist_ok=True)
        targets = {name: target for name, target in make_targets(home).items() if words in name}
        for target in targets.values():
            with contextlib.suppress(PcamError):  # some hold no weights from the beginning
                target.read()
        counts: dict[str, Counter[str]] = {name: Counter() for name in targets}
        begun, memory = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        while not all(counts.values()) or time.monotonic() - begun < seconds:
            for name, target in targets.items():
                try:
                    fuzz(target, seed, counts[name])
                except Exception as error:
                    if on_fault is None:
                        raise
                    on_fault(f"{name}, seed {seed}", error)
                    counts[name]["FAULT"] += 1
            seed += 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < MAX_MEGABYTES << 10
    return counts


def main() -> None:
    """Run the campaign of the command line; exit code 1 where there were faults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="a part of the targets' names")
    options = parser.parse_args()
    faults: dict[str, str] = {}

    def on_fault(name: str, error: Exception) -> None:
        ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "pcam_model" in frame.filename]
        line = f"{ours[-1].filename}:{ours[-1].lineno}" if ours else ""
        if faults.setdefault(f"{name.partition(',')[0]} {line} {type(error).__name__}", str(error)) == str(error):
            print(
                f"{name}: {type(error).__name__}: {str(error)[:300]} {line}"[:900],
                file=sys.stderr,
            )

    with tempfile.TemporaryDirectory() as folder:
        counts = campaign(Path(folder), 60 * options.minutes, options.seed, options.only, on_fault)
    for name, outcomes in counts.items():
        print(f"{name}: {sum(outcomes.values()):,} files, {dict(outcomes)}")
    print(f"{sum(map(Counter.total, counts.values())):,} files, {len(faults)} kinds of faults")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
