"""A stand-in for Kaggle's server on loopback: signs in, redirects to the archive, and takes submissions."""

import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import web_standin
from patch_sets import make_patch_set

COUNTS = {"labelled": 100, "unlabelled": 6}


def archive(path: Path, seed: int) -> bytes:
    """The bytes of a small competition's archive: some megabytes."""
    made = make_patch_set(COUNTS["labelled"], test=COUNTS["unlabelled"], seed=seed)
    return made.zip(path, zipfile.ZIP_STORED).read_bytes()


@dataclass
class Standin(web_standin.Standin):
    """`requests` also has "start" for each request to download, and each other method's name."""

    port: int = 0
    """Where it listens."""
    user: str = ""
    """What the client signed in with."""
    refusal: bytes = b"no"
    """The body of what is in `answers`."""
    submitted: list[dict[str, Any]] = field(default_factory=list)
    """The client's description of each submission, with the file's bytes under "content"."""
    scores: list[dict[str, Any]] = field(default_factory=list)
    """The status of the last submission for each request in turn; the last one stays."""
    upload: int = 200
    """Status that an upload is answered with."""

    def handler(self) -> type["Handler"]:
        """The request handler of this stand-in."""
        return type("Handler", (Handler,), {"standin": self})


class Handler(web_standin.Handler):
    def do_POST(self) -> None:
        body, kaggle = self.body(), self.standin
        kaggle.user = self.headers.get("Authorization", "")
        if self.path.endswith("IntrospectToken"):
            return self.say({"active": True, "username": "ada"})
        method = self.path.rpartition("CompetitionApiService/")[2]
        kaggle.requests.append("start" if method == "DownloadDataFiles" else method)
        if kaggle.answers:
            status, headers = kaggle.answers.pop(0)
            return self.reply(status, headers, kaggle.refusal)
        if method == "DownloadDataFiles":
            return self.reply(302, {"Location": f"http://localhost:{kaggle.port}/files/archive.zip?signature=abc"}, b"")
        answers = {"StartSubmissionUpload": start, "CreateSubmission": create, "ListSubmissions": listed}
        self.say(answers[method](kaggle, json.loads(body)))

    def do_PUT(self) -> None:
        self.standin.submitted[-1]["content"] = self.body()
        self.reply(self.standin.upload, {}, b"")

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def say(self, answer: dict[str, Any]) -> None:
        self.reply(200, {"Content-Type": "application/json"}, json.dumps(answer).encode())


def start(kaggle: Standin, fields: dict[str, Any]) -> dict[str, Any]:
    """An upload begins."""
    kaggle.submitted.append(fields)
    return {"token": "a-token", "createUrl": f"http://localhost:{kaggle.port}/upload"}


def create(kaggle: Standin, fields: dict[str, Any]) -> dict[str, Any]:
    """What was uploaded becomes a submission."""
    kaggle.submitted[-1] |= fields
    return {"message": "Successfully submitted", "ref": 42}


def listed(kaggle: Standin, fields: dict[str, Any]) -> dict[str, Any]:
    """An older submission, and the last one as it is by now."""
    now = kaggle.scores.pop(0) if len(kaggle.scores) > 1 else kaggle.scores[0]
    last = {"ref": 42, "date": "2026-01-02T03:04:05.678Z", **now}
    return {"submissions": [{**last, "ref": 7, "status": "COMPLETE", "publicScore": "0.1"}, last]}
