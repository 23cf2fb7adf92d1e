"""What a file is by its first bytes, where it is not what its name says."""

import glob
import re
from pathlib import Path

PACKED = {
    b"\x1f\x8b": ("gzip", "tar xf {path} -C FOLDER"),
    b"BZh": ("bzip2", "tar xf {path} -C FOLDER"),
    b"\xfd7zXZ": ("xz", "tar xf {path} -C FOLDER"),
    b"\x28\xb5\x2f\xfd": ("zstd", "tar xf {path} -C FOLDER"),
    b"7z\xbc\xaf": ("7z", "7z x {path} -oFOLDER"),
    b"Rar!": ("rar", "unrar x {path} FOLDER/"),
}
HEAD_BYTES = 512


def packed_kind(path: Path) -> tuple[str, str] | None:
    """Kind of a compressed archive and the command that unpacks it; None for any other file."""
    head = read_head(path)
    return next(
        ((kind, how.format(path=path.name)) for magic, (kind, how) in PACKED.items() if head.startswith(magic)), None
    )


def is_tar(path: Path) -> bool:
    """Whether a file is a tar that is not compressed."""
    return read_head(path)[257:262] == b"ustar"


def describe_wrong_content(path: Path) -> str:
    """What a file is that was saved in place of another, with what to do; "" where that is not known."""
    return describe_wrong_bytes(read_head(path))


def describe_wrong_bytes(content: bytes) -> str:
    """As `describe_wrong_content`, by the file's first bytes."""
    head = content[:HEAD_BYTES].lstrip().lower()
    if head.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, not the file; run git lfs pull where it was cloned"
    if head.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "it is a web page, as a server sends that asks to log in or refuses; download the file again"
    if head.startswith(b"bplist00"):
        return "it is a placeholder of iCloud, not the file; download it there, and copy it again"
    if content and not content[:HEAD_BYTES].strip(b"\0"):
        return "it begins with nothing but zeros, as after a power cut or a broken copy; download or copy it again"
    return ""


def describe_split(path: Path) -> str:
    """What one part of an archive that was split is, and how the parts are joined; "" for any other file."""
    if any(path.parent.glob(f"{glob.escape(path.stem)}.[zZ]01")):
        how = f"zip -s 0 {path.stem}.zip --out whole.zip, or 7z x {path.stem}.zip"
    elif re.fullmatch(r"\.\d{3}", path.suffix):
        how = f"cat {path.stem}.* > {path.stem}"
    else:
        return ""
    return f"this is one part of a split archive; join all parts ({how}), and give the result"


def read_head(path: Path) -> bytes:
    """The first bytes of a file; none where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b""
