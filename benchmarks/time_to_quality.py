"""How soon the AUC is reached that fastai ends with after 5 epochs, on patches of other slides.

    python -m benchmarks.time_to_quality --train train.zip --valid valid.zip --weights WEIGHTS --fastai FASTAI/python

fastai fine-tunes MobileNetV2 from the same weights, at 96 pixels, batch 64, as its users do (`fine_tune`: one epoch
frozen, four of everything), from image files that are unpacked before its clock starts. pcam's clock starts at the
archive and ends with the AUC: packing, one short cycle that begins at 64 pixels, the mean of its last weights, 8 views
of each patch. Its config was chosen on parts of the first archive. `beside_fastai` says how fastai's environment is
made.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from benchmarks.beside_fastai import Fastai, image_files, packed
from benchmarks.machine import write_result
from pcam_model.data.pack import Pack, load_patches, load_table
from pcam_model.data.patch_loader import PatchLoader, make_loader, on_device
from pcam_model.evaluation.logits import predict_logits
from pcam_model.training.checkpoint import load_weights
from pcam_model.training.device import best_device
from pcam_model.training.network import ModelConfig, build_network
from pcam_model.training.stage import FinetuneConfig, Stage
from pcam_model.training.trainer import Trainer

SIZE, BATCH, EPOCHS = 96, 64, 5
LR = 5e-3
VALID = 256  # patches of the first archive that are measured on while training, and not learnt from
CONFIG = FinetuneConfig(epochs=2, batch_size=BATCH, lr=LR, progressive_sizes=(64,))


def fastai_side(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """fastai's AUC after each epoch, with the seconds since its start."""
    files = [image_files(args.train, folder, "train", False), image_files(args.valid, folder, "valid", True)]
    pd.concat(files).to_csv(folder / "patches.csv", index=False)
    other = Fastai(args.fastai, folder)
    order = {"table": "patches.csv", "network": "mobilenet_v2", "weights": args.weights, "size": SIZE}
    result = other.ask(what="quality", batch=BATCH, epochs=EPOCHS, seed=args.seed, **order)
    other.close()
    return result | {"version": other.version}


def our_side(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Our AUC, and the seconds until it was reached."""
    start, spent = time.perf_counter(), dict[str, float]()
    train, valid = (packed(archive, folder / "packs") for archive in (args.train, args.valid))
    spent["packing"] = time.perf_counter() - start
    config = ModelConfig.model_validate({"arch": "mobilenet_v2", "weights": args.weights, "image_size": SIZE})
    network = build_network(config, args.seed, quiet=True).to(best_device())
    stage, rows = Stage(name="finetune", config=CONFIG), np.random.default_rng(args.seed).permutation(train.count)
    splits = rows_loader(train, rows[VALID:]), rows_loader(train, rows[:VALID])
    trainer = Trainer(stage.prepare(network), *splits, stage, LR, args.seed, folder / "finetune")
    load_weights(Path(trainer.run().path), network)
    spent["training"] = time.perf_counter() - start - spent["packing"]
    loader = rows_loader(valid, np.arange(valid.count))
    auc = [
        roc_auc_score(loader.labels.cpu(), (z[:, 1] - z[:, 0]).numpy()) for z in predict_logits(network, loader, True)
    ]
    seconds = time.perf_counter() - start
    spent["scoring"] = seconds - spent["packing"] - spent["training"]
    return {"auc": float(auc[1]), "auc, one view": float(auc[0]), "seconds": seconds, "spent": spent}


def rows_loader(pack: Pack, rows: np.ndarray) -> PatchLoader:
    """A loader of some rows of a pack."""
    labels = load_table(pack)["label"].to_numpy(int)
    return make_loader(on_device(load_patches(pack), best_device()), rows, labels[rows], SIZE, best_device())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--train", "--valid"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--weights", required=True, type=lambda path: str(Path(path).resolve()))
    parser.add_argument("--fastai", required=True, help="the Python of the environment that has fastai")
    parser.add_argument("--seed", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        ours = our_side(args, Path(home))
        print("pcam", ours, flush=True)
        theirs = fastai_side(args, Path(home))
    last = theirs["epochs"][-1]
    figures = {
        "fastai": theirs,
        "pcam": ours | {"config": CONFIG.model_dump(mode="json")},
        "fastai's last AUC": round(last["auc"], 4),
        "reached": ours["auc"] >= last["auc"],
        "share of fastai's time": round(ours["seconds"] / last["seconds"], 3),
        "seed": args.seed,
    }
    command = "python -m benchmarks.time_to_quality --train train.zip --valid valid.zip --weights WEIGHTS"
    write_result("time_to_quality", f"{command} --fastai FASTAI --seed {args.seed}", figures)


if __name__ == "__main__":
    main()
