"""A run's own room on this machine, and the rule that a step is done once."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pcam_model.errors import BadPlan
from pcam_model.files import room_on_disk
from pcam_model.records import Record
from pcam_model.registry.runs import RunStore
from pcam_model.registry.store import open_store

HERE = "{here}"  # stands for the step's folder in a record that is kept

R = TypeVar("R", bound=Record)


class Workspace(Record):
    """Which run this is, where it is kept and where it works."""

    run: str
    store: str
    """The store's address."""
    folder: str
    """Scratch of this run on this machine."""

    @property
    def run_store(self) -> RunStore:
        """The run's rooms in the store."""
        return RunStore(open_store(self.store), self.run)

    def begun(self) -> bool:
        """Whether the store knows the run."""
        return self.run_store.store.stat(f"runs/{self.run}/plan.json") is not None

    def room(self, step: str) -> Path:
        """The step's folder on this machine."""
        return Path(self.folder) / step

    def once(self, step: str, kind: type[R], make: Callable[[Path], R], inputs: Mapping[str, Any]) -> R:
        """The step's record: from the store where the step is done, else made now and committed.

        Args:
            step: its path under the run, as in `lr/frozen`.
            kind: the class of the record.
            make: does the work in the folder it is given, which keeps what an interrupted try left there.
            inputs: what the step rests on; a step that was done on something else is refused.

        Raises:
            BadPlan: the step is done, but rested on something else.
        """
        done = self.run_store.step_record(step)
        given = json.loads(json.dumps(dict(inputs), default=str))
        if done is None:
            return self._make(step, make, given)
        changed = [key for key in given if done["inputs"].get(key) != given[key]]
        if changed:
            raise BadPlan(
                f"run {self.run!r} has done its step {step} on {changed[0]} {done['inputs'].get(changed[0])}, "
                f"which is now {given[changed[0]]}; choose another run name"
            )
        with room_on_disk(self.room(step)):
            self.run_store.fetch(step, self.room(step))
        text = json.dumps(done["made"]).replace(HERE, json.dumps(str(self.room(step)))[1:-1])
        print(f"{step}: already done in run {self.run}")
        return kind.model_validate_json(text)

    def _make(self, step: str, make: Callable[[Path], R], inputs: dict[str, Any]) -> R:
        room = self.room(step)
        with room_on_disk(room):
            room.mkdir(parents=True, exist_ok=True)
            made = make(room)
            text = made.model_dump_json().replace(json.dumps(str(room))[1:-1], HERE)
            self.run_store.commit(step, room, {"made": json.loads(text), "inputs": inputs})
        return made

    def forget(self) -> None:
        """Remove the scratch: everything that lasts is in the store."""
        shutil.rmtree(self.folder, ignore_errors=True)
