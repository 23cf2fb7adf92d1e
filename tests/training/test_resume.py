"""Whatever interrupts a training, it ends where an unbroken one does, to the bit."""

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

from pcam_model.core.errors import ConfigError, Interrupted
from pcam_model.training.checkpoint import LATEST
from pcam_model.training.device import ComputeConfig
from pcam_model.training.interrupt import graceful_stop

SCRIPT = Path(stages.__file__)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("unbroken")
    return {name: stages.run(name, home / name, stages.part()) for name in stages.STEPS}


@pytest.fixture
def in_front() -> Iterator[None]:
    """Ctrl-C means something here, also where a script runs the tests in its background and it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("in_front")
@pytest.mark.parametrize("name", stages.STEPS)
def test_interrupted_at_random_steps_it_ends_where_an_unbroken_one_does(
    tmp_path: Path, unbroken: dict[str, str], name: str
) -> None:
    points = sorted(random.Random(name).sample(range(stages.STEPS[name]), 7))  # 21 over the three stages
    for at in points:
        number = random.Random(at).choice([signal.SIGTERM, signal.SIGINT])
        with pytest.raises(Interrupted, match=rf"stopped by {number.name} after step {at + 1} of") as stopped:
            stages.run(name, tmp_path, stages.signalling((at, number)))
        assert stopped.value.code == 75
        torch.manual_seed(at)  # another process has another random state
    assert stages.run(name, tmp_path, stages.part()) == unbroken[name]


def test_killed_in_each_stage_it_ends_where_an_unbroken_one_does(tmp_path: Path, unbroken: dict[str, str]) -> None:
    for words in (["search:13:9"], ["frozen:7:9"], ["finetune:3:9"], []):
        done = script(tmp_path, *words)
        assert done.returncode == (-9 if words else 0), done.stderr
    ends = [line.removeprefix("end ") for line in done.stdout.splitlines() if line.startswith("end ")]
    assert ends == list(unbroken.values())
    assert re.search("finetune: going on from step [23] of 12", done.stdout)  # the last one may still have been written


DROPPING = """
import os, signal, sys, time
from pcam_model.core.errors import Interrupted
from pcam_model.training.interrupt import never_lost

class TerminationSignal(BaseException):  # as Prefect has it
    signal = signal.SIGTERM

def stop(number, frame):
    raise TerminationSignal if sys.argv[1] == "prefect" else Interrupted("stopped")

class Finalised:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)

signal.signal(signal.SIGTERM, stop)
never_lost()
Finalised()
try:
    time.sleep(30)
except TerminationSignal:
    sys.exit(75)
"""


@pytest.mark.parametrize("whose", ["prefect", "ours"])
def test_a_signal_whose_exception_python_drops_comes_again(whose: str) -> None:
    done = subprocess.run([sys.executable, "-c", DROPPING, whose], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (75, "")


def test_a_signal_ends_the_process_with_a_code_of_its_own_and_in_a_sentence(tmp_path: Path) -> None:
    done = script(tmp_path, f"frozen:4:{signal.SIGTERM}")
    assert done.returncode == 75
    assert "frozen training stopped by SIGTERM after step 5 of 12" in done.stdout
    assert (tmp_path / "frozen" / LATEST).is_file()


def test_asked_twice_it_does_not_wait(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        stages.run("finetune", tmp_path, stages.signalling((3, signal.SIGTERM), (3, signal.SIGTERM)))
    assert not (tmp_path / LATEST).exists()


def test_the_signal_is_handed_on_to_who_had_it_before_and_given_back(tmp_path: Path) -> None:
    class Theirs(BaseException):
        pass

    def theirs(number: int, frame: object) -> None:
        raise Theirs

    before = signal.signal(signal.SIGTERM, theirs)
    try:
        with pytest.raises(Theirs):
            stages.run("finetune", tmp_path, stages.signalling((3, signal.SIGTERM)))
        assert signal.getsignal(signal.SIGTERM) is theirs
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (tmp_path / LATEST).is_file()


def test_in_another_thread_signals_are_left_alone() -> None:
    seen: list[Callable[..., object] | int | None] = []

    def work() -> None:
        with graceful_stop() as stop:
            seen.extend([stop.asked, signal.getsignal(signal.SIGTERM)])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None, signal.getsignal(signal.SIGTERM)]


def test_an_end_whose_record_was_not_made_is_not_trained_again(tmp_path: Path, unbroken: dict[str, str]) -> None:
    first = stages.run("finetune", tmp_path, stages.part())
    again = stages.run("finetune", tmp_path, stages.signalling((0, signal.SIGKILL)))
    assert again == first == unbroken["finetune"]


def test_interrupted_before_its_figures_an_epoch_is_measured_first(tmp_path: Path, unbroken: dict[str, str]) -> None:
    begun = stages.trainer(tmp_path, stages.TUNED, stages.part())
    with pytest.raises(ZeroDivisionError):
        begun._end_epoch = lambda stop: 1 / 0  # type: ignore[assignment, method-assign, return-value]
        begun.run()
    begun.saver.wait()
    assert [row["kind"] for row in begun.metrics_log.rows()] == ["step"] * 6
    assert stages.run("finetune", tmp_path, stages.part()) == unbroken["finetune"]


def test_lengthening_is_refused_as_a_new_stage_and_changed_code_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Interrupted):
        stages.run("finetune", tmp_path, stages.signalling((3, signal.SIGTERM)))
    config = stages.TUNED.config.model_copy(update={"epochs": 3})
    longer = stages.TUNED.model_copy(update={"config": config})
    with pytest.raises(ConfigError, match="config.epochs is 2, here it is 3; lengthening the training is a new stage"):
        stages.trainer(tmp_path, longer.resting_on({}), stages.part())
    monkeypatch.setattr("pcam_model.training.trainer.ENGINE", 99)
    with pytest.raises(ConfigError, match="its engine is 2, here it is 99"):
        stages.trainer(tmp_path, stages.TUNED, stages.part())


def test_a_search_of_something_else_is_not_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        stages.run("search", tmp_path, stages.signalling((3, signal.SIGTERM)))
    with pytest.raises(ConfigError, match="its patches is 48, here it is 40"):
        stages.search(tmp_path, stages.part(40))


def test_float16_keeps_its_loss_scale(tmp_path: Path) -> None:
    half = ComputeConfig(precision="fp16")
    whole = stages.run("frozen", tmp_path / "whole", stages.part(), half)
    with pytest.raises(Interrupted):
        stages.run("frozen", tmp_path / "broken", stages.signalling((5, signal.SIGTERM)), half)
    resumed = stages.trainer(tmp_path / "broken", stages.FROZEN, stages.part(), half)
    assert resumed.state.scale is not None
    assert float(resumed.state.scale.scale) < 2**16 or float(resumed.state.scale.good) > 0
    assert resumed.run().model_dump_json(exclude={"path"}) == whole


def script(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    root = SCRIPT.parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(home), *words], env=environment, capture_output=True, text=True, timeout=240
    )
