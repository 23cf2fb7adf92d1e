"""Small patch sets in the real formats: Kaggle's layout as a zip or a folder, of TIFF, PNG or JPEG."""

import hashlib
import io
import struct
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Patch = NDArray[np.uint8]


def plain_tiff(patch: Patch) -> bytes:
    """A TIFF as Kaggle's: little-endian, one uncompressed strip of RGB, its page's tags before the pixels."""
    short, long = 3, 4
    height, width, _ = patch.shape
    tags = [
        (256, short, 1, width),
        (257, short, 1, height),
        (258, short, 3, 134),
        (259, short, 1, 1),
        (262, short, 1, 2),
    ]
    tags += [
        (273, long, 1, 140),
        (277, short, 1, 3),
        (278, short, 1, height),
        (279, long, 1, patch.nbytes),
        (284, short, 1, 1),
    ]
    page = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + struct.pack("<I", 0)
    assert 8 + len(page) == 134
    return b"II*\0" + struct.pack("<I", 8) + page + struct.pack("<HHH", 8, 8, 8) + patch.tobytes()


def encoded(patch: Patch, suffix: str) -> bytes:
    """The patch as the bytes of an image file; "tif" is Kaggle's plain one, "tiff" one compressed with LZW."""
    if suffix == "tif":
        return plain_tiff(patch)
    content = io.BytesIO()
    kind = {"png": "PNG", "jpg": "JPEG", "tiff": "TIFF"}[suffix]
    Image.fromarray(patch).save(content, kind, compression="tiff_lzw" if kind == "TIFF" else None)
    return content.getvalue()


def some_patches(count: int, seed: int = 0) -> tuple[Patch, NDArray[np.int64]]:
    """Patches (count, 96, 96, 3), darker in the centre where their label is 1, and labels; half of each class."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    patches = random.integers(90, 250, (count, 96, 96, 3), dtype=np.uint8)
    patches[labels == 1, 32:64, 32:64] //= 2
    return patches, labels


@dataclass
class PatchSet:
    """Files by name, as they shall lie in a zip or a folder; change them to make a broken set."""

    files: dict[str, bytes] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)
    patches: Patch = field(default_factory=lambda: np.empty((0, 96, 96, 3), np.uint8))
    labels: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def zip(self, path: Path, compression: int = zipfile.ZIP_DEFLATED) -> Path:
        """Write a zip."""
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, content in self.files.items():
                archive.writestr(name, content)
        return path

    def folder(self, path: Path) -> Path:
        """Write a folder."""
        path.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
        return path


def make_patch_set(count: int = 24, *, suffix: str = "tif", top: str = "", test: int = 0, seed: int = 0) -> PatchSet:
    """A whole Kaggle-layout set: `count` labelled patches, `test` unlabelled ones, below `top` ("" or "name/")."""
    patches, labels = some_patches(count + test, seed)
    ids = [hashlib.sha1(f"{seed} {i}".encode()).hexdigest() for i in range(count + test)]
    files = {
        f"{top}{'train' if i < count else 'test'}/{name}.{suffix}": encoded(patch, suffix)
        for i, (name, patch) in enumerate(zip(ids, patches, strict=True))
    }
    lines = ["id,label", *(f"{name},{label}" for name, label in zip(ids[:count], labels[:count], strict=True))]
    files[f"{top}train_labels.csv"] = ("\n".join(lines) + "\n").encode()
    return PatchSet(files, ids, patches, labels)


def without_locks(folder: Path) -> list[str]:
    """Sorted names of a folder's entries, lock files left out, which stay; empty where there is no folder."""
    return sorted(path.name for path in folder.glob("*") if path.suffix != ".lock")
