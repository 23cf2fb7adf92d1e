"""Calls that are tried again while their failure may pass by itself; waiting goes through one clock."""

import time
from collections.abc import Callable
from typing import TypeVar

import tenacity

R = TypeVar("R")


class Clock:
    """Monotonic time and sleep; tests replace `pcam_model.core.retry.CLOCK`, so that nothing waits."""

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


CLOCK = Clock()


def retry_call(
    call: Callable[[], R],
    *,
    retry_on: Callable[[BaseException], bool],
    attempts: int | None = None,
    deadline_s: float | None = None,
    first_wait_s: float = 1.0,
    max_wait_s: float = 30.0,
    wait_s: Callable[[BaseException, int], float] | None = None,
    on_retry: Callable[[BaseException, float], None] | None = None,
) -> R:
    """The result of `call`, tried again with exponentially growing waits while `retry_on` holds for what it raises.

    Args:
        call: is called again from its start.
        retry_on: whether an exception may pass by itself.
        attempts: how many calls at most; None: any number.
        deadline_s: seconds from the first call after which no other is begun; None: no limit.
        first_wait_s: the first wait; each is twice the one before.
        max_wait_s: the longest wait.
        wait_s: the wait after an exception and so many attempts, in place of the exponential one.
        on_retry: is told the exception and the wait that follows.

    Raises:
        BaseException: the last one, where it may not pass or there was no more time.
    """
    begun = CLOCK.monotonic()

    def wait(state: tenacity.RetryCallState) -> float:
        error = _error(state)
        exponential = min(first_wait_s * 2 ** (state.attempt_number - 1), max_wait_s)
        chosen = wait_s(error, state.attempt_number) if wait_s else exponential
        return chosen if deadline_s is None else min(chosen, max(0.0, deadline_s - (CLOCK.monotonic() - begun)))

    def stop(state: tenacity.RetryCallState) -> bool:
        late = deadline_s is not None and CLOCK.monotonic() - begun >= deadline_s
        return late or (attempts is not None and state.attempt_number >= attempts)

    def before_sleep(state: tenacity.RetryCallState) -> None:
        if on_retry and state.next_action:
            on_retry(_error(state), state.next_action.sleep)

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(retry_on),
        wait=wait,
        stop=stop,
        before_sleep=before_sleep,
        sleep=lambda seconds: CLOCK.sleep(seconds),
        reraise=True,
    )
    return retrying(call)


def _error(state: tenacity.RetryCallState) -> BaseException:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert error is not None
    return error
