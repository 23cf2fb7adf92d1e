"""Addresses, links and odd names in place of a path are named, or done without; nothing is written elsewhere."""

from pathlib import Path
from typing import NamedTuple

import pytest
from a_model import publish_model
from patch_sets import make_patch_set
from unwritable import Outcome, run_commands

from pcam_model.registry.factory import open_store


class Case(NamedTuple):
    """A command and what is expected of it."""

    words: list[str]
    code: int
    message: str
    environment: dict[str, str] = {}  # noqa: RUF012


PREDICT = ["predict", "model", "a.zip", "--backend", "onnx", "--out"]
PULLED = ["predict", "made", "a.zip", "--backend", "onnx", "--out", "p.csv"]
CASES = {
    "predict to a bucket": Case([*PREDICT, "s3://bucket/p.csv"], 1, "s3://bucket is an address, expected a folder"),
    "pull to a bucket": Case(["pull", "made", "gs://bucket/m"], 1, "gs://bucket/m is an address, expected a folder"),
    "cache in a bucket": Case(PULLED, 0, "correct PCAM_CACHE. Going on with a temp", {"PCAM_CACHE": "s3://bucket/c"}),
    "cache at a file address": Case(PULLED, 0, "file:///x/c is an address", {"PCAM_CACHE": "file:///x/c"}),
    "cache of nobody": Case(PULLED, 0, "PCAM_CACHE is '~nobody-here/x', expected", {"PCAM_CACHE": "~nobody-here/x"}),
    "cache that is no UTF-8": Case(PULLED, 0, "expected a folder whose name is UTF-8", {"PCAM_CACHE": "c\udce4"}),
    "cache below /proc": Case(PULLED, 0, "no folder can be made in /proc", {"PCAM_CACHE": "/proc/x"}),
    "out below /proc": Case([*PREDICT, "/proc/x/p.csv"], 1, "/proc/x cannot be written to: no folder can be made"),
    "out is an input": Case(["predict", "model", "a.zip", "--out", "a.zip"], 1, "--out is a.zip, which is an input"),
    "out below a loop": Case([*PREDICT, "loop/p.csv"], 1, "loop cannot be written to"),
    "source is a loop": Case(["score", "model", "loop"], 1, "loop: a symbolic link leads to itself"),
    "out of a long name": Case([*PREDICT, "x" * 300], 1, "File name too long"),
    "store in a file": Case(["runs", "--store", "a.zip"], 1, "a.zip is a file, expected a folder; set PCAM_STORE or"),
}


@pytest.fixture(scope="module")
def outcomes(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Outcome]]:
    """The home folder, and how each command ended; all run in one process."""
    home = tmp_path_factory.mktemp("home")
    publish_model(open_store(str(home / "store")), model_folder)
    (home / "model").symlink_to(model_folder)
    (home / "loop").symlink_to("loop")
    make_patch_set(8).zip(home / "a.zip")
    usual = {"PCAM_CACHE": str(home / "cache"), "PCAM_STORE": str(home / "store")}
    commands = [(usual | case.environment, case.words) for case in CASES.values()]
    return home, dict(zip(CASES, run_commands(commands, home), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_what_is_no_path_to_write_to_is_named(name: str, outcomes: tuple[Path, dict[str, Outcome]]) -> None:
    case, outcome = CASES[name], outcomes[1][name]
    assert outcome.code == case.code, outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert case.message in outcome.stderr
    if case.code:
        assert len(outcome.stderr.strip().splitlines()[-1]) < 700


def test_nothing_is_made_beside_what_was_meant(outcomes: tuple[Path, dict[str, Outcome]]) -> None:
    home, _ = outcomes
    made = {path.name for path in home.iterdir() if not path.name.startswith(".")}
    assert made <= {"a.zip", "cache", "loop", "model", "p.csv", "store", "tmp"}
    assert (home / "a.zip").read_bytes()[:4] == b"PK\3\4"
