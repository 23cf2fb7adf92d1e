"""Find a published model, or its report, by whatever a person calls it."""

from pathlib import Path
from typing import NamedTuple

from pcam_model.core.errors import ModelError
from pcam_model.registry.cache import Cache
from pcam_model.registry.channels import CHAMPION
from pcam_model.registry.factory import open_store
from pcam_model.registry.pull import MANIFEST, materialize, resolve_run, verify_folder
from pcam_model.registry.run_names import NAME

MODEL, REPORT = "model", "report"
MARK = {MODEL: "model.json", REPORT: "report.json"}


class RunAddress(NamedTuple):
    """A name in a store: a channel's or a run's; `runs/<run>` is the run even where a channel has its name."""

    store_uri: str
    name: str


def find_model(name: str, store: str, cache: Path) -> Path:
    """A folder on this machine with the model's files, verified against the run's manifest.

    Args:
        name: a folder, a channel, a run's name in the store, or an address: of a run (`.../runs/<run>`), of a channel
            (`.../channels/<channel>`), or of a store, which means its champion.
        store: the address of the store that plain names belong to.
        cache: where pulled models are opened, by digest; used without the store while it does not answer, and said so.

    Raises:
        ModelError: there is no such model, or it is not finished, or damaged.
    """
    return _find(name, store, cache, MODEL)


def find_report(name: str, store: str, cache: Path) -> Path:
    """The same for the report of a run: a folder with report.json, predictions.parquet and their like."""
    return _find(name, store, cache, REPORT)


def parse_run_address(name: str, store: str) -> RunAddress:
    """The store, and the run or channel in it, that a person's words mean; see `find_model`."""
    plain = name.rstrip("/").removesuffix(".json")
    for part in MARK:
        plain = plain.removesuffix(f"/{part}")
    for kind in ("/runs/", "/channels/"):
        address, found, last = plain.rpartition(kind)
        if found and address:
            return RunAddress(address, kind[1:].replace("channels/", "") + _checked(last, name))
    if "://" in name or (Path(name) / "channels").is_dir():
        return RunAddress(name, CHAMPION)
    return RunAddress(store, _checked(name, name))


def _find(name: str, store: str, cache: Path, part: str) -> Path:
    local = _local(Path(name), part)
    if local is not None:
        return local
    address = parse_run_address(name, store)
    opened, known = open_store(address.store_uri), Cache(cache)
    found = resolve_run(opened, address.name, known)
    folder = cache / f"{part}s" / found.published.digest
    materialize(opened, found, folder, (part,), known)
    return folder / part


def _local(folder: Path, part: str) -> Path | None:
    """The folder itself, or that part of it; checked against the manifest where there is one."""
    for here, root in ((folder, folder.parent), (folder / part, folder)):
        if (here / MARK[part]).is_file():
            if here.name == part and (root / MANIFEST).is_file():
                verify_folder(root, part)
            return here
    return None


def _checked(last: str, name: str) -> str:
    if not NAME.fullmatch(last):
        raise ModelError(f"{name!r} is neither a folder with {MARK[MODEL]} nor a run; `pcam runs` lists what there is")
    return last
