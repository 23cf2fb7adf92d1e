"""Many at once."""

import threading
from collections.abc import Callable


def together(count: int, work: Callable[[int], None]) -> None:
    """Run `work(number)` in so many threads that begin at once."""
    gate = threading.Barrier(count)

    def one(number: int) -> None:
        gate.wait()
        work(number)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
