"""Which faults are retried, and how tasks appear on Prefect's page."""

import errno
import importlib
import pkgutil
import time
from dataclasses import dataclass
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.runtime import flow_run
from prefect.tasks import Task

import tasks
from pcam_model.core.errors import SourceError, TransientError
from pcam_model.core.schema import Record
from pcam_model.registry.backends.base import StoreUnavailable
from tasks import policy
from tasks.policy import is_transient_error, retried, step

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.mark.parametrize(
    ("error", "is_transient"),
    [
        (TransientError("the network is down"), True),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (StoreUnavailable("the store does not answer"), True),
        (OSError(errno.ESTALE, "stale"), True),
        (OSError(errno.ENOSPC, "full"), False),
        (SourceError("no such file"), False),
        (ValueError("a bug"), False),
        (None, False),
    ],
)
def test_only_a_fault_that_may_pass_is_retried(error: object, is_transient: bool) -> None:
    assert is_transient_error(error) is is_transient


def test_every_step_has_a_name_for_people_retries_and_a_time_limit() -> None:
    modules = [importlib.import_module(f"tasks.{module.name}") for module in pkgutil.iter_modules(tasks.__path__)]
    steps = {value.name: value for module in modules for value in vars(module).values() if isinstance(value, Task)}
    assert set(steps) == {
        "download", "store pack", "pack", "data checks", "split", "batch size", "LR range test", "frozen training",
        "fine-tuning", "evaluation", "publish", "comparison", "decision", "plan", "score", "drift", "slide", "table",
    }  # fmt: skip
    assert [name for name, each in steps.items() if not each.timeout_seconds or not each.retries] == []
    assert [name for name, each in steps.items() if not each.task_run_name] == []


@pytest.mark.parametrize(("error", "calls"), [(TransientError("the network is down"), 4), (SourceError("no file"), 1)])
def test_a_plain_step_has_the_retries_of_a_task(error: Exception, calls: int, waits: list[float]) -> None:
    attempts = list[int]()

    @retried(hours=1)
    def look_up(number: int) -> None:
        attempts.append(number)
        raise error

    with pytest.raises(type(error)):
        look_up(7)
    assert attempts == [7] * calls
    assert waits == [10, 20, 30][: calls - 1]


def test_a_plain_step_that_hangs_is_given_up(waits: list[float]) -> None:
    @retried(hours=0.1 / 3600, retries=1)
    def hang() -> None:
        for _ in range(1000):
            time.sleep(0.01)

    start = time.monotonic()
    with pytest.raises(TimeoutError):
        hang()
    assert len(waits) == 1
    assert time.monotonic() - start < 5


def test_prefect_retries_a_transient_fault_and_not_a_mistake(prefect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = {"transient": 0, "mistake": 0}
    quick = policy.RETRY_OPTIONS | {"retry_delay_seconds": 0, "retry_jitter_factor": None}
    monkeypatch.setattr(policy, "RETRY_OPTIONS", quick)

    @step("transient", hours=1)
    def transient() -> str:
        calls["transient"] += 1
        if calls["transient"] < 3:
            raise TransientError("the network is down")
        return "done"

    @step("mistake", hours=1)
    def mistake() -> None:
        calls["mistake"] += 1
        raise SourceError("there is nothing here")

    @flow
    def both() -> str:
        with pytest.raises(SourceError):
            mistake()
        return transient()

    assert both() == "done"
    assert calls == {"transient": 3, "mistake": 1}


class Patches(Record):
    source: str
    count: int


@dataclass
class Settings:
    source: str


def test_arrows_come_from_arguments_and_not_from_equal_values_inside_them(prefect: str) -> None:
    settings = Settings(source="sample")

    @step("pack", hours=1)
    def pack(settings: Settings) -> Patches:
        return Patches(source=settings.source, count=5)

    @step("training", hours=1, run_name=lambda parameters: f"training {parameters['number']}")
    def train(settings: Settings, patches: Patches, number: int) -> Patches:
        return Patches(source=settings.source, count=patches.count + number)

    @step("evaluation", hours=1)
    def evaluate(settings: Settings, models: list[Patches | None]) -> int:
        return sum(model.count for model in models if model)

    @flow
    def pipeline() -> tuple[str, int]:
        patches = pack(settings)
        first, second = train(settings, patches, 1), train(settings, patches, 2)
        return str(flow_run.id), evaluate(settings, [first, None, second])

    flow_run_id, count = pipeline()
    assert count == 13
    assert arrows(flow_run_id) == {
        "pack": set(),
        "training 1": {"pack"},
        "training 2": {"pack"},
        "evaluation": {"training 1", "training 2"},
    }


def arrows(flow_run_id: str) -> dict[str, set[str]]:
    """Each task run's name to the names of those that its arguments come from."""
    only = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(flow_run_id)]))
    with get_client(sync_client=True) as client:
        deadline = time.monotonic() + 60
        while len(runs := client.read_task_runs(flow_run_filter=only)) < 4 and time.monotonic() < deadline:
            time.sleep(0.2)  # the server records task runs from events
    names = {run.id: run.name for run in runs}
    return {
        run.name: {names[each.id] for inputs in run.task_inputs.values() for each in inputs if hasattr(each, "id")}
        for run in runs
    }
