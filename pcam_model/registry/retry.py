"""Wait for a store that is away, but not for ever."""

import time
from collections.abc import Callable
from typing import TypeVar

from pcam_model.registry.backends.base import StoreUnavailable

R = TypeVar("R")
SHORTEST, LONGEST = 2.0, 30.0


def retry_while_unavailable(work: Callable[[], R], seconds: float, say: Callable[[str], None] = print) -> R:
    """The result of `work`, which may be done again: tried until the store answers, or for so many seconds.

    Raises:
        StoreUnavailable: The store did not come back in time.
    """
    begun, pause = time.monotonic(), SHORTEST
    while True:
        try:
            return work()
        except StoreUnavailable as error:
            left = seconds - (time.monotonic() - begun)
            if left <= 0:
                raise
            say(f"{error}; trying again for {left:,.0f} s")
            time.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST)
