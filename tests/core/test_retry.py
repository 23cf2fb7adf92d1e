"""Calls that are retried, on a clock that does not wait."""

from collections.abc import Callable

import pytest

from pcam_model.core import retry
from pcam_model.core.retry import retry_call


class FakeClock(retry.Clock):
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(retry, "CLOCK", clock)
    return clock


def failing(times: int) -> Callable[[], str]:
    """A function that raises OSError so many times and then returns."""
    left = [times]

    def call() -> str:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(f"{left[0]} more")
        return "done"

    return call


def is_os_error(error: BaseException) -> bool:
    return isinstance(error, OSError)


def test_waits_double_up_to_the_longest(clock: FakeClock) -> None:
    assert retry_call(failing(5), retry_on=is_os_error, first_wait_s=1, max_wait_s=6) == "done"
    assert clock.waits == [1, 2, 4, 6, 6]


def test_the_last_error_is_raised_after_so_many_attempts_or_seconds(clock: FakeClock) -> None:
    with pytest.raises(OSError, match="7 more"):
        retry_call(failing(10), retry_on=is_os_error, attempts=3)
    assert clock.waits == [1, 2]
    clock.waits.clear()
    with pytest.raises(OSError, match="more"):
        retry_call(failing(10), retry_on=is_os_error, deadline_s=5)
    assert sum(clock.waits) == pytest.approx(5)


def test_other_errors_are_raised_at_once(clock: FakeClock) -> None:
    def call() -> None:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        retry_call(call, retry_on=is_os_error)
    assert clock.waits == []


def test_waits_can_depend_on_the_error_and_are_reported(clock: FakeClock) -> None:
    reports: list[tuple[str, float]] = []
    retry_call(
        failing(2),
        retry_on=is_os_error,
        wait_s=lambda error, attempts: 10.0 * attempts,
        on_retry=lambda error, seconds: reports.append((str(error), seconds)),
    )
    assert reports == [("1 more", 10.0), ("0 more", 20.0)]
    assert clock.waits == [10.0, 20.0]
