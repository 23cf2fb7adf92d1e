"""Patches that stay in their file: read a batch ahead of the device, and not kept in memory."""

import mmap
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor


class Streamed:
    """The rows of a uint8 array (N, H, W, 3), most often a memory map, brought to the device a batch at a time.

    `expect` has the next batch read by a thread while the device is at work. Memory does not grow with the file: pages
    that were read are handed back to the system, which may keep them in its own cache.
    """

    def __init__(self, array: np.ndarray, device: torch.device):
        self.array = array
        self.map: mmap.mmap | None = getattr(array, "_mmap", None)
        self.device, self.pinned = device, device.type == "cuda"
        self.side = torch.cuda.Stream(device) if self.pinned else None  # type: ignore[no-untyped-call]
        self.reader = ThreadPoolExecutor(1, "patches")
        self.next: tuple[Tensor, Future[Tensor]] | None = None

    def expect(self, rows: Tensor) -> None:
        """Begin to read int64 rows (B,), for the `gather` to come."""
        self.next = rows, self.reader.submit(self._read, rows)

    def gather(self, rows: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) on the device, of int64 rows (B,)."""
        expected, self.next = self.next, None
        ready = expected and torch.equal(expected[0], rows)
        patches = expected[1].result() if expected and ready else self._read(rows)
        if self.side:
            here = torch.cuda.current_stream(self.device)
            here.wait_stream(self.side)
            patches.record_stream(here)
        return patches

    def _read(self, rows: Tensor) -> Tensor:
        patches = torch.empty((len(rows), *self.array.shape[1:]), dtype=torch.uint8, pin_memory=self.pinned)
        # Not by torch: this thread would get a team of OpenMP threads of its own, and with more threads than cores the
        # team that trains waits differently and takes a third longer.
        np.take(self.array, rows.numpy(), axis=0, out=patches.numpy())
        if self.map:
            self.map.madvise(mmap.MADV_DONTNEED)  # a page counts as this process's memory until it is let go
        if self.side is None:
            return patches
        with torch.cuda.stream(self.side):
            return patches.to(self.device, non_blocking=True)
