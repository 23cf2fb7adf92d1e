"""A damaged checkpoint never trains another model: it is refused, and the one before it is gone on from."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import stages
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pcam_model.core.checkpoint_names import LATEST, PREVIOUS
from pcam_model.core.errors import CheckpointError, DamagedCheckpointError, Interrupted
from pcam_model.training.callbacks import Callbacks
from pcam_model.training.checkpoint import FINAL, METADATA_KEY, load_weights, save_weights
from pcam_model.training.checkpoint_digest import DIGEST_KEY
from pcam_model.training.device import ComputeConfig

EVERY_STEP = ComputeConfig(checkpoint_steps=1)
EARLY = stages.finetune(early_stopping_patience=3)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("unbroken")
    ends = {name: stages.run(name, folder / name, stages.small_loader()) for name in stages.STEPS}
    return ends | {"early": train_early(folder / "early")}


def train_early(folder: Path, *signals: tuple[int, int]) -> str:
    trainer = stages.trainer(folder, EARLY, stages.signalling_loader(*signals), EVERY_STEP)
    return trainer.run().model_dump_json(exclude={"path"})


def interrupt(name: str, folder: Path, at: int) -> None:
    with pytest.raises(Interrupted):
        stages.run(name, folder, stages.signalling_loader((at, signal.SIGTERM)), EVERY_STEP)


def flip(path: Path, share: float) -> None:
    """Invert the byte at this share of a file, in the file itself."""
    with path.open("r+b") as file:
        file.seek(int(path.stat().st_size * share))
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 0xFF]))


def cut(path: Path, share: float) -> None:
    with path.open("r+b") as file:
        file.truncate(int(path.stat().st_size * share))


@pytest.mark.parametrize("name", stages.STEPS)
@pytest.mark.parametrize(("damage", "share"), [(flip, 0.2), (flip, 0.7), (cut, 0.5)])
def test_damaged_it_is_gone_on_from_the_one_before_to_the_same_bits(
    tmp_path: Path,
    unbroken: dict[str, str],
    messages: pytest.LogCaptureFixture,
    name: str,
    damage: Callable[[Path, float], None],
    share: float,
) -> None:
    interrupt(name, tmp_path, at=7)
    damage(tmp_path / LATEST, share)
    messages.clear()
    assert stages.run(name, tmp_path, stages.small_loader()) == unbroken[name]
    assert f"{LATEST} is damaged" in messages.text
    assert "resumed at step 7 of" in messages.text
    assert not list(tmp_path.glob("*[ts].safetensors"))


@pytest.mark.parametrize("name", stages.STEPS)
def test_with_both_damaged_the_stage_begins_again_aloud(
    tmp_path: Path, unbroken: dict[str, str], messages: pytest.LogCaptureFixture, name: str
) -> None:
    interrupt(name, tmp_path, at=7)
    for file in (LATEST, PREVIOUS):
        flip(tmp_path / file, 0.7)
    messages.clear()
    assert stages.run(name, tmp_path, stages.small_loader()) == unbroken[name]
    assert "resumed" not in messages.text
    assert messages.text.count("from the stage's start without one") == 2


def test_the_best_weights_of_an_epoch_whose_checkpoint_is_damaged_are_found_again(
    tmp_path: Path, unbroken: dict[str, str]
) -> None:
    callbacks = Callbacks(on_epoch=lambda row: 1 / 0)  # type: ignore[arg-type, return-value]
    trainer = stages.trainer(tmp_path, EARLY, None, EVERY_STEP, callbacks)
    with pytest.raises(ZeroDivisionError):  # after the epoch's best weights are in the latest state, and its row is
        trainer.run()
    flip(tmp_path / LATEST, 0.99)
    assert train_early(tmp_path) == unbroken["early"]


def test_a_damaged_one_is_replaced_at_once_and_never_kept_as_the_one_before(tmp_path: Path) -> None:
    interrupt("frozen", tmp_path, at=7)
    flip(tmp_path / LATEST, 0.7)
    stages.trainer(tmp_path, stages.FROZEN).resume()
    assert (tmp_path / LATEST).read_bytes() == (tmp_path / PREVIOUS).read_bytes()
    assert stages.trainer(tmp_path, stages.FROZEN).resume().state.step == 7


def test_damaged_final_weights_are_refused_and_trained_again(
    tmp_path: Path, unbroken: dict[str, str], messages: pytest.LogCaptureFixture
) -> None:
    stages.run("frozen", tmp_path, stages.small_loader())
    flip(tmp_path / FINAL, 0.7)
    with pytest.raises(DamagedCheckpointError, match="its bytes are not those that were written"):
        load_weights(tmp_path / FINAL, stages.new_network())
    assert stages.run("frozen", tmp_path, stages.small_loader()) == unbroken["frozen"]
    assert "The stage is trained again" in messages.text


def test_every_byte_of_the_weights_counts(tmp_path: Path) -> None:
    network, path = torch.nn.Linear(3, 2), tmp_path / FINAL
    save_weights(path, network, {"epoch": 3})
    whole = path.read_bytes()
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        try:
            load_weights(path, network)
        except CheckpointError:
            continue
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_checkpoints_without_a_digest_are_resumed_as_before(tmp_path: Path, unbroken: dict[str, str]) -> None:
    interrupt("frozen", tmp_path, at=7)
    with safe_open(tmp_path / LATEST, "pt") as file:
        metadata = json.loads(file.metadata()[METADATA_KEY])
    assert metadata.pop(DIGEST_KEY)
    save_file(load_file(tmp_path / LATEST), tmp_path / LATEST, {METADATA_KEY: json.dumps(metadata)})
    (tmp_path / PREVIOUS).unlink()
    assert stages.trainer(tmp_path, stages.FROZEN).resume().state.step == 8
    assert stages.run("frozen", tmp_path, stages.small_loader()) == unbroken["frozen"]


@pytest.mark.parametrize("line", [b"garbage", b"[]", b"{}", b"\0" * 40, b""])
def test_damaged_metrics_are_a_sentence(tmp_path: Path, line: bytes) -> None:
    interrupt("frozen", tmp_path, at=7)
    path = tmp_path / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:2], line, *lines[3:]]))
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl, line 3 is malformed.*delete .* and run again"):
        stages.trainer(tmp_path, stages.FROZEN).resume()


def test_an_epochs_row_without_its_figures_is_a_sentence(tmp_path: Path) -> None:
    interrupt("frozen", tmp_path, at=7)
    path = tmp_path / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    epochs = [row for row in rows if row["kind"] == "epoch"]
    del epochs[0]["valid_accuracy"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(CheckpointError, match=r"row of epoch 1 lacks valid_accuracy; delete .* and run again"):
        stages.trainer(tmp_path, stages.FROZEN).resume()


def test_metrics_that_lack_steps_are_refused(tmp_path: Path, unbroken: dict[str, str]) -> None:
    interrupt("frozen", tmp_path, at=7)
    path = tmp_path / "metrics.jsonl"
    cut(path, 0.5)
    with pytest.raises(CheckpointError, match=r"lacks rows of the 8 steps .*; delete .* and run again"):
        stages.trainer(tmp_path, stages.FROZEN).resume()
    shutil.rmtree(tmp_path)  # as it says
    tmp_path.mkdir()
    assert stages.run("frozen", tmp_path, stages.small_loader()) == unbroken["frozen"]
    assert json.loads(path.read_bytes().split(b"\n")[0])["step"] == 1
