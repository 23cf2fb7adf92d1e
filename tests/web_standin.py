"""A web server on the loopback interface that misbehaves as a test asks."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Standin:
    """The server's content and faults; a test may change them while a client is connected."""

    content: bytes = b""
    """The body for every path."""
    files: dict[str, bytes] | None = None
    """The bodies by path, instead; other paths are 404."""
    etag: str = '"one"'
    cuts: list[int] = field(default_factory=list)
    """Bytes after which each download in turn is cut off; later ones are complete."""
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Status and headers that each download in turn is answered with instead; later ones succeed."""
    silence: float = 0.05
    """Seconds without a byte before each cut."""
    ranges: bool = True
    """Whether Range requests are honoured."""
    after_cut: Callable[[], object] | None = None
    """Called after each cut."""
    requests: list[str] = field(default_factory=list)
    """The Range header of each request for a file, "" for none."""

    def serve(self, port: int = 0) -> ThreadingHTTPServer:
        """Start the server in a thread of its own; port 0 takes a free one."""
        server = QuietServer(("127.0.0.1", port), self.handler())
        threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.01}).start()
        return server

    def handler(self) -> type["Handler"]:
        """The request handler class of this stand-in."""
        return type("Handler", (Handler,), {"standin": self})


class QuietServer(ThreadingHTTPServer):
    """A server that does not print a traceback when a client hangs up."""

    def handle_error(self, *_: object) -> None:
        """Print nothing."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    standin: Any

    def do_GET(self) -> None:
        server, requested_range = self.standin, self.headers.get("Range", "")
        server.requests.append(requested_range)
        content = server.content if server.files is None else server.files.get(self.path)
        if content is None:
            return self.reply(404, {}, b"not here")
        if server.files is not None and server.answers:
            status, headers = server.answers.pop(0)
            return self.reply(status, headers, b"no")
        status, headers = 200, {"ETag": server.etag, "Content-Type": "application/octet-stream"}
        headers["Last-Modified"] = formatdate(1_500_000_000, usegmt=True)
        if server.ranges:
            headers["Accept-Ranges"] = "bytes"
            if requested_range and self.headers.get("If-Range", server.etag) == server.etag:
                start = int(requested_range.removeprefix("bytes=").rstrip("-"))
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                content, status = content[start:], 206
        self.reply(status, headers, content, server.cuts.pop(0) if server.cuts else None)

    def reply(self, status: int, headers: dict[str, str], content: bytes, cut: int | None = None) -> None:
        """Send a response, of which the body ends after `cut` bytes."""
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content[:cut])
        if cut is not None:
            self.wfile.flush()
            time.sleep(self.standin.silence)
            self.connection.close()
            self.close_connection = True
            if self.standin.after_cut:
                self.standin.after_cut()

    def log_message(self, *_: object) -> None:
        """Print nothing."""
