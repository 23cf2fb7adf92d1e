"""Background writer for checkpoints."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class AsyncWriter:
    """Runs one write at a time in a thread that ends with it; its error is raised by the next `submit` or `wait`."""

    def __init__(self) -> None:
        self._pending: Future[None] | None = None

    def submit(self, write: Callable[[], None]) -> None:
        """Run `write` in a thread once the previous write has ended."""
        self.wait()
        executor = ThreadPoolExecutor(1, "checkpoint")
        self._pending = executor.submit(write)
        executor.shutdown(wait=False)

    def wait(self) -> None:
        """Block until the last submitted write has ended."""
        pending, self._pending = self._pending, None
        if pending:
            pending.result()
