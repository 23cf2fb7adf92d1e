"""Threads that work ahead of a consumer, within a limit."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ordered_prefetch(function: Callable[[T], R], items: Iterable[T], threads: int, max_pending: int) -> Iterator[R]:
    """`function` mapped over the items by threads, results in the items' order.

    At most `max_pending` results are computed or under way before they are consumed. When the consumer stops, calls
    that have not begun are cancelled and the others are waited for.
    """
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= max_pending:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
