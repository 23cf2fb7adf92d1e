"""Find a published model, or its report, by whatever a person calls it."""

import hashlib
import json
import sys
from pathlib import Path

from pcam_model.errors import BadModel
from pcam_model.files import write_whole
from pcam_model.registry.manifest import Published, read_manifest
from pcam_model.registry.pull import pull, resolve, verify_folder
from pcam_model.registry.store import StoreAway, open_store

MODEL, REPORT = "model", "report"
MARK = {MODEL: "model.json", REPORT: "report.json"}


def find_model(name: str, store: str, cache: Path) -> Path:
    """A folder on this machine with the model's files, verified against the run's manifest.

    Args:
        name: a folder, a channel, a run's name in the store, or a run's address (`.../runs/<run>`).
        store: the address of the store that plain names belong to.
        cache: where pulled models are kept, by digest; used without the store while it does not answer, and said so.

    Raises:
        BadModel: there is no such model, or it is not finished.
    """
    return _find(name, store, cache, MODEL)


def find_report(name: str, store: str, cache: Path) -> Path:
    """The same for the report of a run: a folder with report.json, predictions.parquet and their like."""
    return _find(name, store, cache, REPORT)


def _find(name: str, store: str, cache: Path, part: str) -> Path:
    for folder in (Path(name), Path(name) / part):
        if (folder / MARK[part]).is_file():
            return folder
    address, _, run = name.rstrip("/").removesuffix(f"/{part}").rpartition("/runs/")
    address, run = address or store, run or name
    if "/" in run:
        raise BadModel(f"{name!r} is neither a folder with {MARK[part]} nor a run; `pcam runs` lists what there is")
    return _pulled(address, run, cache / f"{part}s", part) / part


def _pulled(address: str, name: str, cache: Path, part: str) -> Path:
    known = cache / "known" / f"{hashlib.sha256(f'{address} {name}'.encode()).hexdigest()[:32]}.json"
    try:
        published = _pull(address, name, cache, part)
        write_whole(known, json.dumps({"digest": published.digest, "name": name}).encode())
        return cache / published.digest
    except StoreAway as error:
        folder = cache / str(json.loads(known.read_bytes())["digest"]) if known.is_file() else None
        if folder is None or not folder.is_dir():
            raise
        manifest = verify_folder(folder)
        print(f"{error}. Using what {name!r} was last: run {manifest.run}, {manifest.published}", file=sys.stderr)
        return folder


def _pull(address: str, name: str, cache: Path, part: str) -> Published:
    store = open_store(address)
    run = resolve(store, name)
    digest = read_manifest(store, run)[1].digest
    return pull(store, run, cache / digest, parts=(part,))
