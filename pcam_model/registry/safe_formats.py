"""What may be read from a store: tensors as safetensors, tables, JSON and pictures; never a pickle."""

from pathlib import Path, PurePosixPath

from pcam_model.core.errors import ModelError

PLAIN = {".json", ".jsonl", ".csv", ".html", ".md", ".txt", ".svg", ".yaml", ".png"}
TENSORS = {".safetensors", ".npy", ".parquet", ".onnx", ".data"}
ZIP, PICKLE = b"PK\x03\x04", tuple(bytes([0x80, protocol]) for protocol in range(2, 6))


def refuse_unsafe_names(place: str, names: list[str]) -> None:
    """Raise `ModelError` where a file's kind is one that could hold a pickle."""
    unsafe = [name for name in names if PurePosixPath(name).suffix.lower() not in PLAIN | TENSORS]
    if unsafe:
        raise ModelError(
            f"{place}/{unsafe[0]} is of a kind that may run code when it is read; expected safetensors, npy, parquet, "
            "onnx, JSON or text; it was not opened, ask who published it"
        )


def refuse_pickle(path: Path, place: str) -> None:
    """Raise `ModelError` where a file begins as a pickle, or as the zip that torch wraps around one."""
    with path.open("rb") as file:
        head = file.read(9)
    tensors = path.suffix == ".safetensors"
    if head.startswith(ZIP) or (tensors and head[8:9] != b"{") or (not tensors and head.startswith(PICKLE)):
        raise ModelError(f"{place} is not what its name says, but holds a pickle or worse; it was not read, delete it")
