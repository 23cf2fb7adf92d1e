"""A command as a process: exit codes, signals, log lines, and where the pipeline comes from."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pcam_model.cli import main as command_line
from pcam_model.cli import pipeline
from pcam_model.cli.logs import command_logging, hide_prefect_lines, is_verbose, set_quiet, set_verbose
from pcam_model.cli.pipeline import import_pipeline
from pcam_model.cli.train import train
from pcam_model.config import TrainConfig
from pcam_model.core.errors import Interrupted, MissingPackageError, StoreError
from pcam_model.core.log import RESULT, log


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (StoreError("the store refuses"), 1, "pcam: the store refuses\n"),
        (Interrupted("interrupted by SIGTERM; the same command resumes"), 75,
         "pcam: interrupted by SIGTERM; the same command resumes\n"),
        (ModuleNotFoundError("No module named 'pandas'", name="pandas"), 1,
         "pcam: pcam score needs pandas, which is not installed; pip install 'pcam[pipeline]'\n"),
        (SystemExit(2), 2, ""),
    ],
)  # fmt: skip
def test_an_error_is_one_sentence_and_an_exit_code(
    error: BaseException,
    code: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def app() -> None:
        raise error

    monkeypatch.setattr(command_line, "app", app)
    monkeypatch.setattr(sys, "argv", ["pcam", "score"])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == code
    assert capsys.readouterr().err == line


INTERRUPTED = """
import os, signal, sys
from pcam_model.cli.interrupts import interruptible
class TerminationSignal(BaseException):
    pass
signal.signal(signal.SIGINT, signal.default_int_handler)  # in a script's background it is ignored
with interruptible():
    if sys.argv[1] == "prefect":  # which failed while it handled the signal
        try:
            raise TerminationSignal
        except TerminationSignal:
            raise ValueError("a mistake of its own")
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    signal.pause()
"""


@pytest.mark.parametrize("signal_name", ["SIGTERM", "SIGINT", "prefect"])
def test_a_signal_ends_the_command_with_exit_code_75(signal_name: str) -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, signal_name], capture_output=True, text=True, check=False)
    assert done.returncode == 75, done.stderr


def test_log_lines_are_shown_plainly_at_the_level_that_the_user_gives(capsys: pytest.CaptureFixture[str]) -> None:
    def lines(**options: bool) -> list[str]:
        with command_logging(**options):
            log.debug("debug")
            log.info("epoch %d", 1)
            log.info("Report: %s", "file:///report", extra=RESULT)  # which the command prints itself
            log.warning("warning")
        return capsys.readouterr().err.splitlines()

    assert lines() == ["epoch 1", "warning"]
    assert lines(verbose=True) == ["debug", "epoch 1", "warning"]
    assert lines(quiet=True) == ["warning"]
    with command_logging():
        set_verbose(True)
        assert is_verbose()
        set_quiet(True)
        assert not is_verbose()


def test_the_logger_is_afterwards_as_it_was() -> None:
    before = (log.level, log.propagate, list(log.handlers))
    with command_logging(verbose=True):
        assert log.level == logging.DEBUG
    assert (log.level, log.propagate, list(log.handlers)) == before


@pytest.mark.parametrize(
    ("level", "verbose", "expected"),
    [(None, False, "CRITICAL"), (None, True, None), ("DEBUG", False, None)],
)
def test_prefects_own_lines_are_shown_only_on_demand(
    level: str | None, verbose: bool, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {"PREFECT_LOGGING_LEVEL": level} if level else {})
    with command_logging(verbose=verbose):
        hide_prefect_lines()
    assert os.environ.get("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL") == expected


def test_an_installed_package_says_that_the_pipeline_runs_from_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "CHECKOUT", tmp_path)
    with pytest.raises(MissingPackageError, match="pcam train needs the pipeline, which runs from a checkout"):
        import_pipeline("flows.full_train", "pcam train")


ELSEWHERE = """
import importlib.util, sys
root = sys.argv[1]
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in getattr(finder, "__module__", "")]
place = root + "/pcam_model"  # as in an editable install, which maps pcam_model alone
spec = importlib.util.spec_from_file_location("pcam_model", place + "/__init__.py", submodule_search_locations=[place])
sys.modules["pcam_model"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["pcam_model"])
assert importlib.util.find_spec("flows") is None
from pcam_model.cli.pipeline import import_pipeline
print(import_pipeline("flows", "pcam train").__file__)
"""


def test_the_pipeline_is_found_from_another_folder(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(root)], cwd=tmp_path, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == root / "flows" / "__init__.py"


def test_an_interrupted_run_without_a_name_says_which_name_resumes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []

    def interrupted(config: TrainConfig) -> None:
        names.append(config.run)
        raise Interrupted("interrupted by SIGTERM; the same command resumes")

    monkeypatch.setattr("pcam_model.cli.train._run_flow", interrupted)
    with pytest.raises(Interrupted) as unnamed:
        train()
    assert str(unnamed.value) == f"interrupted by SIGTERM; the same command with --run {names[0]} resumes"
    with pytest.raises(Interrupted, match=r"the same command resumes$"):
        train(run="first")
    assert names[1] == "first"
