"""An interrupted training ends with the same bits as an uninterrupted one."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import stages
import torch

from pcam_model.core.checkpoint_names import LATEST
from pcam_model.core.errors import CheckpointMismatchError, Interrupted
from pcam_model.training.device import ComputeConfig
from pcam_model.training.interrupt import graceful_stop

SCRIPT = Path(stages.__file__)
INTERRUPTIBLE_STEPS = stages.STEPS | {"search": 14}  # after which its loss explodes


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("unbroken")
    return {name: stages.run(name, folder / name, stages.small_loader()) for name in stages.STEPS}


@pytest.fixture
def sigint_handler() -> Iterator[None]:
    """Handle SIGINT, which is ignored where a script runs the tests in its background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("sigint_handler")
@pytest.mark.parametrize("name", stages.STEPS)
def test_interrupted_at_random_steps_it_ends_where_an_unbroken_one_does(
    tmp_path: Path, unbroken: dict[str, str], name: str
) -> None:
    points = sorted(random.Random(name).sample(range(INTERRUPTIBLE_STEPS[name]), 7))  # 21 over the three stages
    for at in points:
        number = random.Random(at).choice([signal.SIGTERM, signal.SIGINT])
        with pytest.raises(Interrupted, match=rf"stopped by {number.name} after step {at + 1} of") as stopped:
            stages.run(name, tmp_path, stages.signalling_loader((at, number)))
        assert stopped.value.code == 75
        torch.manual_seed(at)  # another process has another random state
    assert stages.run(name, tmp_path, stages.small_loader()) == unbroken[name]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Processes of which three are killed by a signal, one finishes, and one is asked to stop: folder and output."""
    folder = tmp_path_factory.mktemp("processes")
    processes: list[tuple[str, list[tuple[str, int, int]]]] = [
        ("killed", [("search", 13, signal.SIGKILL)]),
        ("killed", [("frozen", 7, signal.SIGKILL)]),
        ("killed", [("finetune", 3, signal.SIGKILL)]),
        ("killed", []),
        ("stopped", [("search", 4, signal.SIGTERM)]),
    ]
    command = [sys.executable, str(SCRIPT), str(folder), str(torch.get_num_threads()), json.dumps(processes)]
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_killed_in_each_stage_it_ends_where_an_unbroken_one_does(
    output: tuple[Path, str], unbroken: dict[str, str]
) -> None:
    lines = output[1].splitlines()
    assert [line for line in lines if line.startswith("exit killed")] == ["exit killed -9"] * 3 + ["exit killed 0"]
    ends = [line.removeprefix("end ") for line in lines if line.startswith("end ")]
    assert ends[-3:] == list(unbroken.values())
    assert re.search("finetune: resumed at step [23] of 12", output[1])  # the last one may still have been written


def test_a_signal_ends_the_process_with_a_code_of_its_own_and_in_a_sentence(output: tuple[Path, str]) -> None:
    folder, text = output
    assert "exit stopped 75" in text
    assert "LR range test stopped by SIGTERM after step 5 of 24" in text
    assert (folder / "stopped" / "search" / LATEST).is_file()


DROPPING = """
import os, signal, sys, time
from pcam_model.core.errors import Interrupted
from pcam_model.training.interrupt import requeue_dropped_signals

class TerminationSignal(BaseException):  # as Prefect has it
    signal = signal.SIGTERM

def stop(number, frame):
    raise TerminationSignal if sys.argv[1] == "prefect" else Interrupted("stopped")

class Finalised:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)

signal.signal(signal.SIGTERM, stop)
requeue_dropped_signals()
Finalised()
try:
    time.sleep(30)
except TerminationSignal:
    sys.exit(75)
"""


@pytest.mark.parametrize("whose", ["prefect", "ours"])
def test_a_signal_whose_exception_python_drops_is_sent_again(whose: str) -> None:
    done = subprocess.run([sys.executable, "-c", DROPPING, whose], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (75, "")


def test_a_second_signal_does_not_wait_for_the_step(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        stages.run("finetune", tmp_path, stages.signalling_loader((3, signal.SIGTERM), (3, signal.SIGTERM)))
    assert not (tmp_path / LATEST).exists()


def test_the_signal_is_forwarded_to_its_previous_handler_which_is_restored(tmp_path: Path) -> None:
    class Theirs(BaseException):
        pass

    def theirs(number: int, frame: object) -> None:
        raise Theirs

    before = signal.signal(signal.SIGTERM, theirs)
    try:
        with pytest.raises(Theirs):
            stages.run("finetune", tmp_path, stages.signalling_loader((3, signal.SIGTERM)))
        assert signal.getsignal(signal.SIGTERM) is theirs
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (tmp_path / LATEST).is_file()


def test_in_another_thread_signals_are_left_alone() -> None:
    observed: list[Callable[..., object] | int | None] = []

    def work() -> None:
        with graceful_stop() as stop:
            observed.extend([stop.signal, signal.getsignal(signal.SIGTERM)])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert observed == [None, signal.getsignal(signal.SIGTERM)]


def test_a_finished_stage_is_not_trained_again(tmp_path: Path, unbroken: dict[str, str]) -> None:
    first = stages.run("finetune", tmp_path, stages.small_loader())
    again = stages.run("finetune", tmp_path, stages.signalling_loader((0, signal.SIGKILL)))
    assert again == first == unbroken["finetune"]


def test_an_epoch_interrupted_before_its_validation_is_validated_first(
    tmp_path: Path, unbroken: dict[str, str]
) -> None:
    begun = stages.trainer(tmp_path, stages.FINETUNE)
    begun._end_epoch = lambda stop: 1 / 0  # type: ignore[assignment, method-assign, return-value]
    with pytest.raises(ZeroDivisionError):
        begun.run()
    begun.checkpoints.wait()
    assert [row["kind"] for row in begun.metrics_log.rows()] == ["step"] * 6
    assert stages.run("finetune", tmp_path, stages.small_loader()) == unbroken["finetune"]


def test_more_epochs_and_another_engine_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Interrupted):
        stages.run("finetune", tmp_path, stages.signalling_loader((3, signal.SIGTERM)))
    config = stages.FINETUNE.config.model_copy(update={"epochs": 3})
    longer = stages.FINETUNE.model_copy(update={"config": config})
    with pytest.raises(CheckpointMismatchError, match=r"config\.epochs is 2, here it is 3; training for more epochs"):
        stages.trainer(tmp_path, longer.with_inputs({})).resume()
    monkeypatch.setattr("pcam_model.training.trainer.ENGINE_VERSION", 99)
    with pytest.raises(CheckpointMismatchError, match="its engine is 2, here it is 99"):
        stages.trainer(tmp_path, stages.FINETUNE).resume()


def test_the_checkpoint_of_another_search_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        stages.run("search", tmp_path, stages.signalling_loader((3, signal.SIGTERM)))
    with pytest.raises(CheckpointMismatchError, match="its patches is 48, here it is 40"):
        stages.search(tmp_path, stages.small_loader(40))


def test_float16_keeps_its_loss_scale(tmp_path: Path) -> None:
    half = ComputeConfig(precision="fp16")
    whole = stages.run("frozen", tmp_path / "whole", stages.small_loader(16), half)
    with pytest.raises(Interrupted):
        stages.run("frozen", tmp_path / "broken", stages.signalling_loader((0, signal.SIGTERM), count=16), half)
    resumed = stages.trainer(tmp_path / "broken", stages.FROZEN, stages.small_loader(16), half).resume()
    assert resumed.state.scaler is not None
    assert float(resumed.state.scaler.scale) < 2**16 or float(resumed.state.scaler.growth_tracker) > 0
    assert resumed.run().model_dump_json(exclude={"path"}) == whole


def test_another_number_of_threads_is_warned_of(tmp_path: Path, messages: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Interrupted):
        stages.run("finetune", tmp_path, stages.signalling_loader((1, signal.SIGTERM)))
    messages.clear()
    stages.trainer(tmp_path, stages.FINETUNE).resume()
    assert "up to rounding" not in messages.text
    torch.set_num_threads(2)
    try:
        stages.trainer(tmp_path, stages.FINETUNE).resume()
    finally:
        torch.set_num_threads(1)
    assert re.search("computed with 1 CPU thread, .* continues with 2 CPU threads, .* up to rounding", messages.text)
