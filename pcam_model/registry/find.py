"""Find a published model by whatever a person calls it."""

from pathlib import Path

from pcam_model.errors import BadModel
from pcam_model.registry.runs import RunStore
from pcam_model.registry.store import open_store

STEP = "model"


def find_model(name: str, store: str, cache: Path) -> Path:
    """A folder on this machine with the model's files, verified against the run's record.

    Args:
        name: a folder, a run's name in the store, or a run's address (`.../runs/<run>`).
        store: the address of the store that plain names belong to.
        cache: where pulled models are kept.

    Raises:
        BadModel: there is no such model, or it is not finished.
    """
    for folder in (Path(name), Path(name) / STEP):
        if (folder / "model.json").is_file():
            return folder
    address, _, run = name.rstrip("/").removesuffix(f"/{STEP}").rpartition("/runs/")
    kept = RunStore(open_store(address or store), run or name)
    published = kept.published()
    if published is None:
        raise BadModel(
            f"{name!r} is neither a folder with model.json nor a published run in {kept.store.uri}; "
            "`pcam runs` lists what is there, --store names another store"
        )
    folder = cache / "models" / published[1].digest
    kept.fetch(STEP, folder)
    return folder
