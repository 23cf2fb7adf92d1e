"""Train on a folder or .zip of your own patches, and print the figures with their intervals.

    python -m examples.train_on_your_folder patches.zip [key=value ...]

The patches are laid out as Kaggle has them: `train/<id>.png` and `train_labels.csv` with the columns `id,label`.
"""

import json
import sys

from flows.full_train import full_train
from pcam_model.config_reader import parse_source, read_config
from pcam_model.core.paths import resolve_store_uri
from pcam_model.registry.describe import describe_run
from tasks.api_server import usable_server


def main(source: str, *settings: str) -> None:
    """Train with the preset `quick` and the given settings, in this process."""
    config = read_config(settings=settings, preset="quick", source=parse_source(source))
    with usable_server():
        published = full_train(config)
    run = describe_run(resolve_store_uri(config.store.uri), published.uri.rpartition("/")[2])
    print(json.dumps(run["figures"], indent=1))
    print(f"Report: {published.uri}/report/report.html")


if __name__ == "__main__":
    main(*sys.argv[1:])
