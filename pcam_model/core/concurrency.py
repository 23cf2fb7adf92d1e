"""Work that is done ahead of who needs it, by threads, and never far ahead."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ordered_prefetch(work: Callable[[T], R], items: Iterable[T], threads: int, most: int) -> Iterator[R]:
    """`work` over the items, its results in their order; at most so many are done or under way before they are taken.

    Whoever stops taking stops the work: what has not begun never begins, and what has is waited for.
    """
    left = iter(items)
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in left:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= most:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
