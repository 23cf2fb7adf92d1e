"""A TCP proxy on loopback in front of a store, which misbehaves as it is told."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

MODES = ("down", "reset", "503", "slow", "lost")
"""No connection; cut in the middle of what is sent; refused for now; 20 KB/s; done, but the answer is lost."""
BUSY = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
CHUNK = 1 << 16
SLOW_BYTES_PER_S = 20_000


class FaultProxy:
    """Forwards connections to a port; `mode` may be changed at any time, and holds for open connections too."""

    def __init__(self, port: int) -> None:
        self.target, self.mode = port, ""
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Accept nothing more."""
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            if self.mode == "down":
                _reset(client)
                continue
            server = socket.create_connection(("127.0.0.1", self.target))
            for source, sink, answers in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._pump, args=(source, sink, answers), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        """Forward one direction until it ends or breaks; `answers`: from the store to its client."""
        with suppress(OSError):
            while (data := source.recv(CHUNK)) and self._forward(data, sink, answers):
                if self.mode == "503" and not answers:
                    with suppress(OSError):
                        source.sendall(BUSY)
                    break
        for end in (source, sink):
            _reset(end) if self.mode in ("down", "reset", "lost") else end.close()

    def _forward(self, data: bytes, sink: socket.socket, answers: bool) -> bool:
        """Forward a piece; whether the connection goes on."""
        mode = self.mode
        if mode == "down" or (mode == "lost" and answers):
            return False
        if mode == "reset":
            sink.sendall(data[: len(data) // 2])
            return False
        if mode == "slow":
            time.sleep(len(data) / SLOW_BYTES_PER_S)
        if mode != "503" or answers:
            sink.sendall(data)
        return True


def _reset(end: socket.socket) -> None:
    """Close a connection as a crash does."""
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.close()


@contextmanager
def fault_proxy(port: int) -> Iterator[FaultProxy]:
    """A proxy in front of a port of this machine."""
    proxy = FaultProxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
