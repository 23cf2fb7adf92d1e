"""File formats that may be read from a store: safetensors, npy, parquet, ONNX, JSON, text, pictures; no pickle."""

from pathlib import Path, PurePosixPath

from pcam_model.core.errors import ModelError

TEXT_SUFFIXES = {".json", ".jsonl", ".csv", ".html", ".md", ".txt", ".svg", ".yaml", ".png"}
TENSOR_SUFFIXES = {".safetensors", ".npy", ".parquet", ".onnx", ".data"}
ZIP_MAGIC = b"PK\x03\x04"
PICKLE_MAGICS = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))


def refuse_unsafe_names(address: str, names: list[str]) -> None:
    """Raise ModelError where a file's suffix is of a format that may hold a pickle."""
    unsafe = [name for name in names if PurePosixPath(name).suffix.lower() not in TEXT_SUFFIXES | TENSOR_SUFFIXES]
    if unsafe:
        raise ModelError(
            f"{address}/{unsafe[0]} is of a format that may run code when it is read; expected safetensors, npy, "
            "parquet, onnx, JSON or text; it was not opened, ask its publisher"
        )


def refuse_pickle(path: Path, address: str) -> None:
    """Raise ModelError where a file begins as a pickle, or as the zip in which torch.save puts one."""
    with path.open("rb") as file:
        head = file.read(9)
    is_tensors = path.suffix == ".safetensors"
    has_bad_header = is_tensors and head[8:9] != b"{"
    if head.startswith(ZIP_MAGIC) or has_bad_header or (not is_tensors and head.startswith(PICKLE_MAGICS)):
        raise ModelError(
            f"{address} is not of the format that its name says, and may hold a pickle; it was not read, delete it"
        )
