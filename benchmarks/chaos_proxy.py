"""A TCP proxy on loopback in front of a store, which misbehaves as it is told."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate

MODES = ("down", "reset", "503", "slow", "lost")
"""No connection; cut in the middle of what is sent; refused for now; 1 KB/s; done, but the answer is lost."""
CHUNK = 1 << 16
SLOW_BYTES_PER_S, PAUSE_S = 1000, 0.1


def _error(status: str, code: str, hours_ahead: int = 0) -> bytes:
    """An answer of S3 that refuses a request, by a clock that may be ahead."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>refused</Message></Error>"
    date = formatdate(time.time() + hours_ahead * 3600, usegmt=True)
    headers = f"Date: {date}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\nConnection: close"
    return f"HTTP/1.1 {status}\r\n{headers}\r\n\r\n{body}".encode()


REFUSALS = {
    "503": ("503 Slow Down", "SlowDown", 0),
    "expired": ("403 Forbidden", "ExpiredToken", 0),
    "skewed": ("403 Forbidden", "RequestTimeTooSkewed", 1),
}
"""What requests are answered with in these modes, in place of what the store would say."""


class FaultProxy:
    """Forwards connections to a port; `mode` may be changed at any time, and holds for open connections too.

    Beside MODES and REFUSALS there is `wrong`: after `spared` pieces of answers the bit at `where`, 0 to 1, of the next
    one's body is flipped, once.
    """

    def __init__(self, port: int) -> None:
        self.target, self.mode, self.spared, self.where = port, "", 0, 0.0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @contextmanager
    def misbehaving(self, mode: str) -> Iterator[None]:
        """Misbehave inside."""
        self.mode = mode
        try:
            yield
        finally:
            self.mode = ""

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
                _close(client, reset=True)
                continue
            server = socket.create_connection(("127.0.0.1", self.target))
            for source, sink, answers in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._pump, args=(source, sink, answers), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        """Forward one direction until it ends or breaks; `answers`: from the store to its client."""
        with suppress(OSError):
            while (data := source.recv(CHUNK)) and self._forward(data, sink, answers):
                if self.mode in REFUSALS and not answers:
                    with suppress(OSError):
                        source.sendall(_error(*REFUSALS[self.mode]))
                    break
        for end in (source, sink):
            _close(end, reset=self.mode in ("down", "reset", "lost"))

    def _forward(self, data: bytes, sink: socket.socket, answers: bool) -> bool:
        """Forward a piece; whether the connection goes on."""
        mode = self.mode
        if mode == "down" or (mode == "lost" and answers):
            return False
        if mode == "reset":
            sink.sendall(data[: len(data) // 2])
            return False
        if mode == "wrong" and answers:
            data = self.flip(data)
        while self.mode == "slow" and data:
            step = int(SLOW_BYTES_PER_S * PAUSE_S)
            sink.sendall(data[:step])
            data = data[step:]
            time.sleep(PAUSE_S)
        if mode not in REFUSALS or answers:
            sink.sendall(data)
        return True

    def flip(self, data: bytes) -> bytes:
        """The piece of an answer with a bit of its body flipped, where it is its turn."""
        head, separator, body = data.partition(b"\r\n\r\n")
        if not data.startswith(b"HTTP/"):
            head, separator, body = b"", b"", data
        self.spared -= 1
        if self.spared >= 0 or not body:
            return data
        self.mode, at = "", int(self.where * len(body))
        return head + separator + body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


def _close(end: socket.socket, reset: bool) -> None:
    """Close a connection, or reset it as a crash does; who waits for its bytes is woken."""
    with suppress(OSError):
        if reset:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RD if reset else socket.SHUT_RDWR)
    end.close()


@contextmanager
def fault_proxy(port: int) -> Iterator[FaultProxy]:
    """A proxy in front of a port of this machine."""
    proxy = FaultProxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
