"""Checkpoints are written by a thread: training waits only for the copy of its state."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class AsyncWriter:
    """One write at a time, in order; what goes wrong with it is raised where the next one is asked for."""

    def __init__(self) -> None:
        self.writer = ThreadPoolExecutor(1, "checkpoint")
        self.last: Future[None] | None = None

    def put(self, write: Callable[[], None]) -> None:
        """Have it done by the thread, once what was asked for before is done."""
        self.wait()
        self.last = self.writer.submit(write)

    def wait(self) -> None:
        """Until all that was asked for is on the disk."""
        last, self.last = self.last, None
        if last:
            last.result()
