"""What the weights of single epochs are called, beside the end of their stage."""

import re

NAME = re.compile(r"epoch-(\d{4,})\.safetensors")


def epoch_file(epoch: int) -> str:
    """`epoch-0003.safetensors`."""
    return f"epoch-{epoch:04d}.safetensors"


def epoch_of(name: str) -> int | None:
    """The epoch whose weights a file of this name holds; None for any other file."""
    found = NAME.fullmatch(name)
    return int(found[1]) if found else None
