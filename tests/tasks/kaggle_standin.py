"""A stand-in for Kaggle's server on loopback: signs in, and sends to where the archive lies."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import web_standin
from patch_sets import make_patch_set

PORT = 7777  # where Kaggle's SDK looks with KAGGLE_API_ENVIRONMENT=TEST
COUNTS = {"labelled": 100, "unlabelled": 6}


def archive(path: Path, seed: int) -> bytes:
    """The bytes of a small competition's archive: some megabytes."""
    made = make_patch_set(COUNTS["labelled"], test=COUNTS["unlabelled"], seed=seed)
    return made.zip(path, zipfile.ZIP_STORED).read_bytes()


@dataclass
class Standin(web_standin.Standin):
    """`asked` also says "start" for each request to download."""

    user: str = ""
    """What the client signed in with."""

    def handler(self) -> type["Handler"]:
        """The request handler of this stand-in."""
        return type("Handler", (Handler,), {"standin": self})


class Handler(web_standin.Handler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        kaggle = self.standin
        kaggle.user = self.headers.get("Authorization", "")
        if self.path.endswith("IntrospectToken"):
            return self.reply(200, {"Content-Type": "application/json"}, b'{"active": true, "username": "ada"}')
        assert self.path.endswith("CompetitionApiService/DownloadDataFiles"), self.path
        kaggle.asked.append("start")
        if kaggle.answers:
            status, headers = kaggle.answers.pop(0)
            return self.reply(status, headers, b"no")
        self.reply(302, {"Location": f"http://localhost:{PORT}/files/archive.zip?signature=abc"}, b"")
