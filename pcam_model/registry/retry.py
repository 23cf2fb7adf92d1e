"""Retries while a store is unavailable."""

from collections.abc import Callable
from typing import TypeVar

from pcam_model.core.log import log
from pcam_model.core.retry import retry_call
from pcam_model.registry.backends.base import StoreUnavailable

R = TypeVar("R")
FIRST_WAIT_S, MAX_WAIT_S = 2.0, 30.0


def retry_while_unavailable(call: Callable[[], R], timeout_s: float) -> R:
    """The result of `call`, tried again for so many seconds while the store is unavailable.

    Raises:
        StoreUnavailable: the store was still unavailable at the end of that time.
    """
    return retry_call(
        call,
        retry_on=lambda error: isinstance(error, StoreUnavailable),
        deadline_s=timeout_s,
        first_wait_s=FIRST_WAIT_S,
        max_wait_s=MAX_WAIT_S,
        on_retry=lambda error, wait: log.warning("%s; next attempt in %.0f s", error, wait),
    )
