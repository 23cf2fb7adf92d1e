"""The weights of the last epochs and of the best stay, and are what was measured."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open
from stages import fresh
from test_trainer import Part, finetune, trainer

from pcam_model.core.checkpoint_names import epoch_file, epoch_of
from pcam_model.data.patch_loader import PatchLoader
from pcam_model.training import trainer as fitting
from pcam_model.training.checkpoint import FINAL, load_weights
from pcam_model.training.device import ComputeConfig
from pcam_model.training.metrics_log import read_metrics
from pcam_model.training.trainer import Callbacks, Trainer
from pcam_model.training.validation import predict, validation_metrics

AUCS = (0.6, 0.9, 0.7, 0.9, 0.8)  # the best comes early; of equals it is the first


def kept(folder: Path) -> list[int]:
    return sorted(epoch for path in folder.iterdir() if (epoch := epoch_of(path.name)))


@pytest.mark.parametrize(("last", "expected"), [(0, [[]] * 5), (1, [[1], [2], [2, 3], [2, 4], [2, 5]])])
def test_the_last_and_the_best_stay_and_nothing_else(
    part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int, expected: list[list[int]]
) -> None:
    aucs, seen = iter(AUCS), list[list[int]]()
    figures = {"valid_loss": 1.0, "valid_accuracy": 1.0}
    monkeypatch.setattr(fitting, "quick_figures", lambda *_: figures | {"valid_auc": next(aucs)})

    def look(row: dict[str, object]) -> None:
        made.saver.wait()
        seen.append(kept(tmp_path))

    made = trainer(part, tmp_path, finetune(epochs=5), Callbacks(epoch=look))
    made.compute = ComputeConfig(checkpoint_epochs=last)
    assert made.run().epoch == 5 and seen == expected
    assert kept(tmp_path) == [2][:last] and (tmp_path / FINAL).is_file()  # the fifth is the final one


def test_kept_weights_are_those_that_were_measured(part: Part, tmp_path: Path) -> None:
    made = trainer(part, tmp_path, finetune(epochs=3))
    made.compute = ComputeConfig(checkpoint_epochs=3)
    made.run()
    rows = {row["epoch"]: row for row in read_metrics(tmp_path / "metrics.jsonl") if row["kind"] == "epoch"}
    assert kept(tmp_path) == [1, 2]
    for epoch in (1, 2):
        network = fresh()
        load_weights(tmp_path / epoch_file(epoch), network)
        valid: PatchLoader = part(16, seed=1)
        found = validation_metrics(predict(network.eval(), valid, precision=made.state.precision), valid.labels)
        assert found == {name: rows[epoch][name] for name in found}
        with safe_open(tmp_path / epoch_file(epoch), "pt") as file:
            about = json.loads(file.metadata()["pcam"])
        assert about["epoch"] == epoch and about["valid_auc"] == rows[epoch]["valid_auc"]


def test_a_stage_that_goes_on_keeps_what_an_unbroken_one_does(part: Part, tmp_path: Path) -> None:
    def made(folder: Path, callbacks: Callable[[dict[str, object]], None]) -> Trainer:
        return trainer(part, folder, finetune(epochs=3), Callbacks(epoch=callbacks))

    def stop(row: dict[str, object]) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    whole = made(tmp_path / "whole", lambda row: None).run()
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "broken", stop).run()
    assert made(tmp_path / "broken", lambda row: None).run().digest == whole.digest
    whole_files, files = (
        {path.name: path.read_bytes() for path in (tmp_path / one).glob("*.safetensors")} for one in ("whole", "broken")
    )
    assert files == whole_files
