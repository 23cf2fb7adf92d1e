"""The weights of the last epochs and of the best are kept, and are those that were validated."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from stages import finetune, new_network, small_loader, trainer

from pcam_model.core.checkpoint_names import epoch_file, epoch_of
from pcam_model.training.callbacks import Callbacks
from pcam_model.training.checkpoint import FINAL, load_weights
from pcam_model.training.device import ComputeConfig
from pcam_model.training.metrics_log import read_metrics
from pcam_model.training.trainer import Trainer
from pcam_model.training.validation import predict, validation_metrics

AUCS = (0.6, 0.9, 0.7, 0.9, 0.8)  # the best comes early; of equals it is the first


def saved_epochs(folder: Path) -> list[int]:
    return sorted(epoch for path in folder.iterdir() if (epoch := epoch_of(path.name)))


@pytest.mark.parametrize(("last", "expected"), [(0, [[]] * 5), (1, [[1], [2], [2, 3], [2, 4], [2, 5]])])
def test_the_last_and_the_best_stay_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int, expected: list[list[int]]
) -> None:
    aucs, epochs = iter(AUCS), list[list[int]]()
    monkeypatch.setattr(
        "pcam_model.training.trainer.validation_metrics",
        lambda *_: {"valid_loss": 1.0, "valid_accuracy": 1.0, "valid_auc": next(aucs)},
    )

    def on_epoch(row: dict[str, Any]) -> None:
        made.checkpoints.wait()
        epochs.append(saved_epochs(tmp_path))

    compute = ComputeConfig(checkpoint_epochs=last)
    made = trainer(tmp_path, finetune(epochs=5), small_loader(16), compute, Callbacks(on_epoch=on_epoch))
    assert made.run().epoch == 5
    assert epochs == expected
    assert saved_epochs(tmp_path) == [2][:last]  # the fifth is the final one
    assert (tmp_path / FINAL).is_file()


def test_saved_weights_are_those_that_were_validated(tmp_path: Path) -> None:
    made = trainer(tmp_path, finetune(epochs=3), small_loader(16), ComputeConfig(checkpoint_epochs=3))
    made.run()
    rows = {row["epoch"]: row for row in read_metrics(tmp_path / "metrics.jsonl") if row["kind"] == "epoch"}
    assert saved_epochs(tmp_path) == [1, 2]
    for epoch in (1, 2):
        network, valid = new_network(), small_loader(16, seed=1)
        load_weights(tmp_path / epoch_file(epoch), network)
        metrics = validation_metrics(predict(network.eval(), valid, precision=made.state.precision), valid.labels)
        assert metrics == {name: rows[epoch][name] for name in metrics}
        with safe_open(tmp_path / epoch_file(epoch), "pt") as file:
            metadata = json.loads(file.metadata()["pcam"])
        assert metadata["epoch"] == epoch
        assert metadata["valid_auc"] == rows[epoch]["valid_auc"]


def test_a_resumed_stage_keeps_the_same_weights(tmp_path: Path) -> None:
    def made(folder: Path, on_epoch: Callable[[dict[str, Any]], None]) -> Trainer:
        return trainer(folder, finetune(epochs=3), small_loader(16), None, Callbacks(on_epoch=on_epoch))

    def stop(row: dict[str, Any]) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    whole = made(tmp_path / "whole", lambda row: None).run()
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "broken", stop).run()
    assert made(tmp_path / "broken", lambda row: None).run().digest == whole.digest
    whole_files, files = (
        {path.name: path.read_bytes() for path in (tmp_path / name).glob("*.safetensors")}
        for name in ("whole", "broken")
    )
    assert files == whole_files
