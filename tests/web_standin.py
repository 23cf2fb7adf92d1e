"""A web server on loopback, as bad as a test wants it."""

import threading
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Standin:
    """What the server does; a test changes it before or while a client talks to it."""

    content: bytes = b""
    """What every path gives."""
    files: dict[str, bytes] | None = None
    """What each path gives, instead; others are not found."""
    etag: str = '"one"'
    cuts: list[int] = field(default_factory=list)
    """Bytes after which each download in turn is cut off; later ones are whole."""
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Status and headers that each request for a download in turn is refused with; later ones are let in."""
    silence: float = 0.05
    """Seconds of silence before each cut."""
    ranges: bool = True
    after_cut: Any = None
    """Called after each cut."""
    asked: list[str] = field(default_factory=list)
    """The Range header of each request for a file, "" for none."""

    def serve(self, port: int = 0) -> ThreadingHTTPServer:
        """Start in a thread of its own."""
        server = Quiet(("127.0.0.1", port), self.handler())
        threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.01}).start()
        return server

    def handler(self) -> type["Handler"]:
        """The request handler of this stand-in."""
        return type("Handler", (Handler,), {"standin": self})


class Quiet(ThreadingHTTPServer):
    """A server that says nothing of clients that hang up."""

    def handle_error(self, *_: object) -> None:
        """Say nothing."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    standin: Any

    def do_GET(self) -> None:
        server, asked = self.standin, self.headers.get("Range", "")
        server.asked.append(asked)
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
            if asked and self.headers.get("If-Range", server.etag) == server.etag:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                content, status = content[start:], 206
        self.reply(status, headers, content, server.cuts.pop(0) if server.cuts else None)

    def reply(self, status: int, headers: dict[str, str], content: bytes, cut: int | None = None) -> None:
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
        """Say nothing."""
