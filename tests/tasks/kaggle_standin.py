"""A stand-in for Kaggle's server on loopback, as bad as a test wants it."""

import threading
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PORT = 7777  # where Kaggle's SDK looks with KAGGLE_API_ENVIRONMENT=TEST


@dataclass
class Standin:
    """What the server does; a test changes it before or while the client talks to it."""

    content: bytes
    etag: str = '"one"'
    cuts: list[int] = field(default_factory=list)
    """Bytes after which each download in turn is cut off; later ones are whole."""
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Status and headers that each request for the download in turn is refused with; later ones are let in."""
    ranges: bool = True
    after_cut: Any = None
    """Called after each cut."""
    asked: list[str] = field(default_factory=list)
    """What was asked: "start", or the Range header of each request for the file, "" for none."""
    user: str = ""

    def serve(self) -> ThreadingHTTPServer:
        """Start in a thread of its own."""
        server = ThreadingHTTPServer(("127.0.0.1", PORT), handler(self))
        threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.01}).start()
        return server


def handler(kaggle: Standin) -> type[BaseHTTPRequestHandler]:
    """The request handler of one stand-in."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            kaggle.user = self.headers.get("Authorization", "")
            if self.path.endswith("IntrospectToken"):
                return self.reply(200, {"Content-Type": "application/json"}, b'{"active": true, "username": "ada"}')
            assert self.path.endswith("CompetitionApiService/DownloadDataFiles"), self.path
            kaggle.asked.append("start")
            if kaggle.answers:
                status, headers = kaggle.answers.pop(0)
                return self.reply(status, headers, b"no")
            self.reply(302, {"Location": f"http://localhost:{PORT}/files/archive.zip?signature=abc"}, b"")

        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            kaggle.asked.append(asked)
            content, status, headers = kaggle.content, 200, {"ETag": kaggle.etag, "Content-Type": "application/zip"}
            headers["Last-Modified"] = formatdate(1_500_000_000, usegmt=True)
            if kaggle.ranges:
                headers["Accept-Ranges"] = "bytes"
                if asked and self.headers.get("If-Range", kaggle.etag) == kaggle.etag:
                    start = int(asked.removeprefix("bytes=").rstrip("-"))
                    headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                    content, status = content[start:], 206
            self.reply(status, headers, content, kaggle.cuts.pop(0) if kaggle.cuts else None)

        def reply(self, status: int, headers: dict[str, str], content: bytes, cut: int | None = None) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content[:cut])
            if cut is not None:
                self.wfile.flush()
                time.sleep(0.05)
                self.connection.close()
                self.close_connection = True
                if kaggle.after_cut:
                    kaggle.after_cut()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
