"""A headless Chromium, controlled through its debugging pipe."""

import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ANSWER_TIMEOUT_S = 60.0
# Chromium reads from descriptor 3 and writes to 4, whatever the pipes are called here.
START = """import fcntl, os, sys
read, write = (fcntl.fcntl(int(pipe), fcntl.F_DUPFD, 10) for pipe in sys.argv[1:3])
os.dup2(read, 3)
os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find_chromium() -> str | None:
    """The path of Chromium, None where it is not installed."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


class Chromium:
    """One browser with one page; events are kept in the order in which they come."""

    def __init__(self, read: int, write: int):
        self.read, self.write, self.ids, self.rest = read, write, itertools.count(1), b""
        self.events: list[dict[str, Any]] = []
        self.session: str | None = None
        self.poll = select.poll()
        self.poll.register(read, select.POLLIN)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for part in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{part}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol, and wait for its result."""
        number = next(self.ids)
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != number:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def open(self, address: str, width: int, height: int = 800, *, media: str = "", scheme: str = "light") -> None:
        """Open a page in a window of this size in CSS pixels, and wait until it is loaded."""
        self.events.clear()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 600)  # fmt: skip
        self.call("Emulation.setEmulatedMedia", media=media,
                  features=[{"name": "prefers-color-scheme", "value": scheme}])  # fmt: skip
        self.call("Page.navigate", url=address)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())
        self.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def value(self, script: str) -> Any:
        """The value of a script in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def events_of(self, *methods: str) -> list[dict[str, Any]]:
        """The parameters of the events of these kinds."""
        return [event["params"] for event in self.events if event.get("method") in methods]

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            ready = self.poll.poll(ANSWER_TIMEOUT_S * 1000)
            part = os.read(self.read, 1 << 20) if ready else b""
            if not part:
                raise RuntimeError(
                    "Chromium has ended" if ready else f"Chromium has not answered for {ANSWER_TIMEOUT_S:.0f} s"
                )
            self.rest += part
        line, self.rest = self.rest.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        return message


@contextlib.contextmanager
def chromium(program: str, home: Path) -> Iterator[Chromium]:
    """A Chromium with an empty profile, stopped at the end of the block."""
    to_it, write = os.pipe()
    read, from_it = os.pipe()
    # Without its background requests, the only requests are the page's.
    quiet = ["--no-first-run", "--disable-quic", "--disable-background-networking", "--disable-component-update",
             "--disable-sync"]  # fmt: skip
    command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *quiet,
               "--remote-debugging-pipe", f"--user-data-dir={home}", "about:blank"]  # fmt: skip
    start = [sys.executable, "-c", START, str(to_it), str(from_it), *command]
    process = subprocess.Popen(start, pass_fds=(to_it, from_it), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(to_it)
    os.close(from_it)
    try:
        yield Chromium(read, write)
    finally:
        process.terminate()
        process.wait(20)
        os.close(read)
        os.close(write)
