"""A published model, or its report, by folder, channel, run or address."""

from pathlib import Path
from typing import NamedTuple

from pcam_model.core.errors import ModelError
from pcam_model.registry.cache import Cache
from pcam_model.registry.channels import CHAMPION
from pcam_model.registry.factory import open_store
from pcam_model.registry.pull import MANIFEST_FILE, materialize, resolve_run, verify_folder
from pcam_model.registry.run_names import NAME_PATTERN

MODEL, REPORT = "model", "report"
MARKER_FILES = {MODEL: "model.json", REPORT: "report.json"}


class RunAddress(NamedTuple):
    """The name of a run or channel in a store; `runs/<run>` is the run also where a channel has its name."""

    store_uri: str
    name: str


def find_model(name: str, store_uri: str, cache: Path) -> Path:
    """A folder on this machine with a model's files, verified against the run's manifest.

    Args:
        name: a folder, a channel, a run's name, or an address: of a run (`.../runs/<run>`), of a channel
            (`.../channels/<channel>`), or of a store, which means its champion.
        store_uri: the store in which plain names are looked up.
        cache: the folder of pulled models; used alone, with a warning, while the store is unavailable.

    Raises:
        ModelError: there is no such model, or it is not published, or damaged.
    """
    return _find(name, store_uri, cache, MODEL)


def find_report(name: str, store_uri: str, cache: Path) -> Path:
    """A folder with a run's report.json and predictions.parquet; see `find_model`."""
    return _find(name, store_uri, cache, REPORT)


def parse_run_address(name: str, store_uri: str) -> RunAddress:
    """The store, and the run or channel in it, of a name or address; see `find_model`."""
    plain = name.rstrip("/").removesuffix(".json")
    for subfolder in MARKER_FILES:
        plain = plain.removesuffix(f"/{subfolder}")
    for prefix, separator in (("runs/", "/runs/"), ("", "/channels/")):
        uri, found, last = plain.rpartition(separator)
        if found and uri:
            return RunAddress(uri, prefix + _validate_name(last, name))
    if "://" in name or (Path(name) / "channels").is_dir():
        return RunAddress(name, CHAMPION)
    return RunAddress(store_uri, _validate_name(name, name))


def _find(name: str, store_uri: str, cache: Path, subfolder: str) -> Path:
    local = _find_local(Path(name), subfolder)
    if local is not None:
        return local
    address = parse_run_address(name, store_uri)
    store, file_cache = open_store(address.store_uri), Cache(cache)
    run = resolve_run(store, address.name, file_cache)
    folder = cache / f"{subfolder}s" / run.published.digest
    materialize(store, run, folder, (subfolder,), file_cache)
    return folder / subfolder


def _find_local(folder: Path, subfolder: str) -> Path | None:
    """The folder itself or its subfolder, where that has the marker file; verified where there is a manifest."""
    for path, root in ((folder, folder.parent), (folder / subfolder, folder)):
        if (path / MARKER_FILES[subfolder]).is_file():
            if path.name == subfolder and (root / MANIFEST_FILE).is_file():
                verify_folder(root, subfolder)
            return path
    return None


def _validate_name(name: str, original: str) -> str:
    if not NAME_PATTERN.fullmatch(name):
        raise ModelError(
            f"{original!r} is neither a folder with {MARKER_FILES[MODEL]} nor a run; `pcam runs` lists the store's runs"
        )
    return name
