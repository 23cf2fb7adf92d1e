"""Batches from a memory-mapped array of patches, each read by a thread while the device computes the one before."""

import mmap
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor


class MmapReader:
    """Gathers rows of a uint8 array (N, H, W, 3), most often a memory map, onto a device, one batch ahead.

    `prefetch` has a thread read the next batch. Memory does not grow with the file: pages that were read are handed
    back to the system, which may keep them in its page cache.
    """

    def __init__(self, array: np.ndarray, device: torch.device):
        self.array = array
        self.mmap: mmap.mmap | None = getattr(array, "_mmap", None)
        self.device, self.pin_memory = device, device.type == "cuda"
        self.copy_stream = torch.cuda.Stream(device) if self.pin_memory else None  # type: ignore[no-untyped-call]
        self.executor = ThreadPoolExecutor(1, "patches")
        self.prefetched: tuple[Tensor, Future[Tensor]] | None = None

    def prefetch(self, rows: Tensor) -> None:
        """Begin to read int64 rows (B,), for the next `gather`."""
        self.prefetched = rows, self.executor.submit(self._read, rows)

    def gather(self, rows: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) on the device, of int64 rows (B,)."""
        prefetched, self.prefetched = self.prefetched, None
        is_hit = prefetched and torch.equal(prefetched[0], rows)
        patches = prefetched[1].result() if prefetched and is_hit else self._read(rows)
        if self.copy_stream:
            compute_stream = torch.cuda.current_stream(self.device)
            compute_stream.wait_stream(self.copy_stream)
            patches.record_stream(compute_stream)
        return patches

    def _read(self, rows: Tensor) -> Tensor:
        patches = torch.empty((len(rows), *self.array.shape[1:]), dtype=torch.uint8, pin_memory=self.pin_memory)
        # Not by torch: this thread would get a team of OpenMP threads of its own, and with more threads than cores the
        # team that trains waits differently and takes a third longer.
        np.take(self.array, rows.numpy(), axis=0, out=patches.numpy(), mode="clip")  # else it buffers the result
        if self.mmap:
            self.mmap.madvise(mmap.MADV_DONTNEED)  # a page counts as this process's memory until it is let go
        if self.copy_stream is None:
            return patches
        with torch.cuda.stream(self.copy_stream):
            return patches.to(self.device, non_blocking=True)
