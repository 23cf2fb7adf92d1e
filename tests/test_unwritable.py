"""What cannot be written to is named in one sentence, with what moves it; a cache that is only a convenience stops no
command."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from a_model import publish_model
from patch_sets import make_patch_set
from unwritable import REASONS, Outcome, run_commands, unwritable

from pcam_model.registry.channels import promote
from pcam_model.registry.factory import open_store

USED = [reason for reason in REASONS if reason != "dangling link"]  # through which folders are made

pytestmark = pytest.mark.slow


class Case(NamedTuple):
    """A command that was run with an unwritable folder."""

    outcome: Outcome
    target: Path
    """The unwritable folder."""
    results: Path
    """The folder for the results of commands that can write them."""


@pytest.fixture(scope="module")
def cases(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, str], Case]]:
    """Every command with every reason, by both; all run in one process."""
    home = tmp_path_factory.mktemp("home")
    store = open_store((home / "store").as_uri())
    publish_model(store, model_folder)
    promote(store, "made")
    patches = str(make_patch_set(24).zip(home / "patches.zip"))
    with ExitStack() as stack:
        places = dict(_places(home, stack))
        keys, commands = [], []
        for reason, target in places.items():
            results = home / reason
            for name, environment, words in _commands(target, results, store.uri, patches):
                keys.append((reason, name))
                commands.append((environment, words))
        outcomes = run_commands(commands, home)
        yield {key: Case(one, places[key[0]], home / key[0]) for key, one in zip(keys, outcomes, strict=True)}


def _places(home: Path, stack: ExitStack) -> Iterator[tuple[str, Path]]:
    for number, reason in enumerate(USED):
        folder = home / str(number)
        folder.mkdir()
        try:
            yield reason, stack.enter_context(unwritable(reason, folder))
        except pytest.skip.Exception:
            continue  # its tests are skipped


def _commands(target: Path, results: Path, store: str, patches: str) -> Iterator[tuple[str, dict[str, str], list[str]]]:
    """Name, environment and words of each command."""
    pending = results / "work" / "a" / "model"
    pending.mkdir(parents=True)
    (pending / ".step.json").write_text('{"result": {}, "inputs": {}}')
    (pending / "model.json").write_text("{}")
    predict, out = ["predict", "champion", patches, "--backend", "onnx", "--out"], target
    if "shared" in results.name:  # others may write to the folder itself
        out = target / "runs"
    no_cache = {"PCAM_CACHE": str(target), "PCAM_STORE": store}
    yield "predict", no_cache, [*predict, str(results / "predictions.csv")]
    yield "pull", no_cache, ["pull", "champion", str(results / "pulled")]
    yield "score", no_cache, ["score", "champion", patches, "--json"]
    yield "check", no_cache, ["check", "--source", "sample", "--set", "model.weights=none"]
    usual = {"PCAM_CACHE": str(results), "PCAM_STORE": store}
    yield "predict --out", usual, ["--quiet", *predict, str(out / "predictions.csv")]
    yield "pull FOLDER", usual, ["pull", "champion", str(out / "pulled")]
    yield "score --out", usual, ["score", "champion", patches, "--out", str(out / "report")]
    no_store = {"PCAM_CACHE": str(results), "PCAM_STORE": str(target)}
    yield "publish", no_store, ["publish", "a", "--timeout", "0"]


def get_case(cases: dict[tuple[str, str], Case], reason: str, command: str) -> Case:
    if (reason, command) not in cases:
        pytest.skip("may not make such a folder here")
    return cases[reason, command]


@pytest.mark.parametrize("command", ["predict", "pull", "score"])
@pytest.mark.parametrize("reason", USED)
def test_a_cache_that_cannot_be_written_to_stops_no_use_of_a_model(
    reason: str, command: str, cases: dict[tuple[str, str], Case]
) -> None:
    case = get_case(cases, reason, command)
    assert case.outcome.code == 0, case.outcome.stderr
    assert "PCAM_CACHE" in case.outcome.stderr
    assert REASONS[reason] in case.outcome.stderr
    assert "Going on with" in case.outcome.stderr
    if command == "predict":
        assert len((case.results / "predictions.csv").read_text().splitlines()) == 25
    if command == "pull":
        assert (case.results / "pulled" / "model" / "model.json").is_file()


@pytest.mark.parametrize("reason", USED)
def test_the_check_fails_where_a_run_could_not_write_to_the_cache(
    reason: str, cases: dict[tuple[str, str], Case]
) -> None:
    outcome = get_case(cases, reason, "check").outcome
    assert outcome.code == 1
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize(
    ("command", "setting"),
    [
        ("predict --out", "--out"),
        ("pull FOLDER", "another folder"),
        ("score --out", "--out"),
        ("publish", "PCAM_STORE or --store"),
    ],
)
@pytest.mark.parametrize("reason", USED)
def test_results_and_a_store_that_cannot_be_written_are_one_sentence(
    reason: str, command: str, setting: str, cases: dict[tuple[str, str], Case]
) -> None:
    case = get_case(cases, reason, command)
    if reason == "full":
        setting = setting.replace("another folder", "a larger disk")
    *notes, sentence = case.outcome.stderr.strip().splitlines()
    assert case.outcome.code == 1, case.outcome.stderr
    assert not any("Traceback" in line for line in notes), case.outcome.stderr
    for expected in (str(case.target), REASONS[reason], setting):
        assert expected in sentence
    if command == "publish":
        assert (case.results / "work" / "a" / "model" / "model.json").is_file()
