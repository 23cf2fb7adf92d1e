"""A web source of PCam's official files, small ones, which misbehaves as it is told."""

import gzip
import hashlib
import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import h5py
import numpy as np
import pandas as pd

from pcam_model.data.hdf5_names import PREFIX
from pcam_model.data.sample import SamplePatches

COUNTS = {"train": 160, "valid": 40, "test": 40}
DRIP_BYTES, DRIP_PAUSE_S = 4096, 0.02
SIGN_IN = b"<html>Sign in to this network</html>"
MODES = (
    *("slow drip", "cut body", "length too small", "wrong byte", "endless body", "503"),
    *("redirect to file:", "redirect to another host", "redirect without end"),
)


def official_files() -> dict[str, bytes]:
    """PCam's files by name, with generated patches."""
    files, patches, first = {}, SamplePatches(sum(COUNTS.values()), 0), 0
    for split, count in COUNTS.items():
        rows = np.arange(first, first + count)
        labels = patches.table["label"].to_numpy(np.uint8)[rows]
        files[f"{PREFIX}_{split}_x.h5.gz"] = _hdf5("x", np.stack([patches.patch(int(row)) for row in rows]))
        files[f"{PREFIX}_{split}_y.h5.gz"] = _hdf5("y", labels.reshape(-1, 1, 1, 1))
        meta = pd.DataFrame({"coord_y": 1, "coord_x": 2, "tumor_patch": True, "center_tumor_patch": labels == 1})
        meta["wsi"] = [f"{split}_{row % 4}" for row in rows]
        files[f"{PREFIX}_{split}_meta.csv"] = meta.to_csv().encode()
        first += count
    return files


def _hdf5(name: str, data: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> bytes:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.create_dataset(name, data=data)
    return gzip.compress(content.getvalue(), 1, mtime=0)


class WebSource:
    """A server on loopback; `mode` holds for the next `times` requests for a file, after `spared` ones."""

    def __init__(self) -> None:
        self.files = official_files()
        self.mode, self.times, self.spared, self.where, self.hits = "", 0, 0, 0.5, 0
        handler = type("Handler", (_Handler,), {"source": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        self.lock = threading.Lock()
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Stop the server."""
        self.server.shutdown()
        self.server.server_close()

    def published_md5(self) -> dict[str, set[str]]:
        """The MD5s of the files, by name."""
        digests = ((name, hashlib.md5(content, usedforsecurity=False)) for name, content in self.files.items())
        return {name.removeprefix(f"{PREFIX}_"): {digest.hexdigest()} for name, digest in digests}

    @contextmanager
    def misbehaving(self, mode: str, times: int, spared: int, where: float) -> Iterator[None]:
        """Misbehave inside; `where`, 0 to 1, is the place in a body."""
        self.mode, self.times, self.spared, self.where, self.hits = mode, times, spared, where, 0
        try:
            yield
        finally:
            self.mode = ""

    def turn(self) -> str:
        """How the request that has come is answered: a mode, or nothing."""
        with self.lock:
            self.spared -= 1
            if not self.mode or self.spared >= 0 or self.hits >= self.times:
                return ""
            self.hits += 1
            return self.mode


class _Handler(BaseHTTPRequestHandler):
    source: WebSource

    def do_GET(self) -> None:
        content = self.source.files.get(self.path.removeprefix("/"))
        if content is None:
            return self._send(200 if self.path == "/elsewhere" else 404, SIGN_IN)
        mode = self.source.turn()
        locations = {
            "redirect to file:": "file:///etc/hostname",
            "redirect to another host": f"http://localhost:{self.source.server.server_port}/elsewhere",
            "redirect without end": self.path,
        }
        if mode in locations:
            return self._send(302, b"", Location=locations[mode])
        if mode == "503":
            return self._send(503, b"")
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if start >= len(content):
            return self._send(416, b"")
        span = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        self._send(206 if start else 200, content[start:], mode, ETag='"one"', **span)

    def _send(self, status: int, body: bytes, mode: str = "", **headers: str) -> None:
        at = int(self.source.where * len(body))
        self.send_response(status)
        if mode != "endless body":
            self.send_header("Content-Length", str(at if mode == "length too small" else len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            for piece in _pieces(mode, body, at):
                self.wfile.write(piece)
        except OSError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def _pieces(mode: str, body: bytes, at: int) -> Iterator[bytes]:
    """What is sent of a body."""
    if mode in ("cut body", "length too small"):
        yield body[:at]
    elif mode == "wrong byte" and body:
        yield body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
    elif mode == "endless body":
        while True:
            yield body
    elif mode == "slow drip":
        for first in range(0, len(body), DRIP_BYTES):
            yield body[first : first + DRIP_BYTES]
            time.sleep(DRIP_PAUSE_S)
    else:
        yield body
