"""File names of a stage's states and of single epochs' weights."""

import re

LATEST = "latest.safetensors"
PREVIOUS = "previous.safetensors"  # the latest state's predecessor, on this disk only
EPOCH_FILE = re.compile(r"epoch-(\d{4,})\.safetensors")


def epoch_file(epoch: int) -> str:
    """The file name of an epoch's weights, as in `epoch-0003.safetensors`."""
    return f"epoch-{epoch:04d}.safetensors"


def epoch_of(name: str) -> int | None:
    """The epoch whose weights a file of this name holds; None for any other file."""
    match = EPOCH_FILE.fullmatch(name)
    return int(match[1]) if match else None
