"""Folders that cannot be written to, and full disks: one sentence with the folder, the reason and what to do."""

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pcam_model.core.errors import DiskFullError, UnwritableError
from pcam_model.core.paths import TEMPORARY_PREFIX, setting_of
from pcam_model.core.users import user_name

FULL = {errno.ENOSPC, errno.EDQUOT}
DISK_REFUSES = {errno.EROFS, errno.EFBIG}  # raised by writes too, which name no file
REFUSED = DISK_REFUSES | {
    *(errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
}

ADDRESS_SCHEMES = frozenset(
    {"file:", "s3:", "s3a:", "gs:", "gcs:", "az:", "abfs:", "abfss:", "wasbs:", "hdfs:", "hf:", "http:", "https:"}
)


@contextmanager
def write_guard(folder: Path, setting: str = "") -> Iterator[None]:
    """Turn what the system raises where it refuses to write below `folder` into a sentence.

    Args:
        folder: the folder that is written to; it need not exist.
        setting: the variable or option that names another one; by default the one of `core.paths.setting_of`.

    Raises:
        DiskFullError: there is no room left.
        UnwritableError: the folder, or a file in it, cannot be made, replaced or read.
    """
    _refuse_address(folder, setting)
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            message = f"{folder}: the disk is full ({_shortage(error, folder)}); {_room_remedy(folder, setting)}"
            raise DiskFullError(message, folder) from error
        if (error.errno in REFUSED and _concerns(error, folder)) or _cannot_be_made(error, folder):
            message = f"{folder} cannot be written to: {_refusal(error, folder)}; {_remedy(folder, setting)}"
            raise UnwritableError(message, folder) from error
        raise


def require_writable(folder: Path, setting: str = "") -> None:
    """Raise what `write_guard` raises where no file can be made in the folder, or the folder not be made itself.

    Nothing is left behind.
    """
    with write_guard(folder, setting):
        existing = nearest_existing(folder)
        if not existing.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(existing))
        try:
            with tempfile.NamedTemporaryFile(dir=existing, prefix=".pcam-check-") as file:
                file.write(b"x")
                file.flush()
        except OSError as error:
            number = error.errno if error.errno in FULL | REFUSED else errno.EPERM  # as below /proc
            raise OSError(number, error.strerror, str(existing)) from error


def require_disk_space(folder: Path, size: int, what: str) -> None:
    """Raise `DiskFullError` where the disk of `folder` has fewer than `size` bytes free for `what`."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DiskFullError(
            f"{folder}: the disk is full: {what} takes {size / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB are free; "
            f"{_room_remedy(folder)}",
            folder,
        )


@contextmanager
def temporary_dir(name: str) -> Iterator[Path]:
    """A new folder for temporary files, removed at the end of the block; raises what `make_temporary_dir` raises."""
    folder = make_temporary_dir(name)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_temporary_dir(name: str) -> Path:
    """A new folder for temporary files, which the caller removes.

    Raises:
        UnwritableError: it can be made nowhere.
    """
    try:
        return Path(tempfile.mkdtemp(prefix=f"{TEMPORARY_PREFIX}{name}-"))
    except OSError as error:
        raise UnwritableError(
            f"no folder for temporary files can be written to ({error.strerror}); set TMPDIR to one that can, on a "
            "disk that is not full"
        ) from error


def nearest_existing(path: Path) -> Path:
    """The path itself where it exists, else its nearest parent that does."""
    return next((each for each in (path, *path.parents) if _exists(each)), Path("/"))


def _refuse_address(folder: Path, setting: str) -> None:
    """Raise UnwritableError for an address, as s3://bucket/x, of which a path has made s3:/bucket/x."""
    if scheme := next((part for part in folder.parts if part in ADDRESS_SCHEMES), ""):
        slashes = ":///" if scheme == "file:" else "://"
        address = str(folder)[str(folder).index(scheme) :].replace(":/", slashes, 1)
        setting = setting or setting_of(folder)
        remedy = f"correct {setting}" if setting else "name one"
        raise UnwritableError(f"{address} is an address, expected a folder of this machine; {remedy}", folder)


def _exists(path: Path) -> bool:
    try:
        path.lstat()
    except OSError:
        return False
    return True


def _concerns(error: OSError, folder: Path) -> bool:
    """Whether an error is of a file below the folder, of one beside it, where the folder is built under a temporary
    name, or of a parent in which it is to be made.
    """
    paths = [Path(os.fsdecode(name)) for name in (error.filename, error.filename2) if name is not None]
    is_of_folder = any(path.is_relative_to(folder.parent) or folder.is_relative_to(path) for path in paths)
    return is_of_folder or (not paths and error.errno in DISK_REFUSES)


def _cannot_be_made(error: OSError, folder: Path) -> bool:
    """Whether the folder, or a parent of it, can be made by nobody, as below /proc."""
    if error.errno != errno.ENOENT or not error.filename:
        return False
    path = Path(os.fsdecode(error.filename))
    return folder.is_relative_to(path) and path.parent.is_dir() and not path.is_symlink()


def _refusal(error: OSError, folder: Path) -> str:
    """The reason in words that say what to look for."""
    path = nearest_existing(Path(os.fsdecode(error.filename)) if error.filename else folder)
    if error.errno == errno.EROFS:
        return "its file system is read-only"
    if error.errno in (errno.EACCES, errno.EPERM):
        return _missing_right(path)
    if error.errno == errno.ENOENT:
        return f"no folder can be made in {path}"
    for each in (path, *path.parents):
        if each.is_symlink() and not each.exists():
            return f"{each} is a link to {each.readlink()}, which does not exist"
        if not each.is_dir():
            return f"{each} is a file, expected a folder" if error.errno != errno.EISDIR else f"{each} is a folder"
    return f"{error.strerror}: {path}"


def _missing_right(path: Path) -> str:
    """Which user lacks a right, and whose file it is."""
    status = path.lstat()
    action = "read" if path.is_file() and not os.access(path, os.R_OK) else "write to"
    mode, owner = stat.filemode(status.st_mode), user_name(status.st_uid)
    return f"{user_name(os.getuid())} may not {action} {path}, which is {owner}'s ({mode})"


def _shortage(error: OSError, folder: Path) -> str:
    """The system's words, unless bytes are free and inodes are not."""
    status = os.statvfs(nearest_existing(folder))
    if error.errno == errno.ENOSPC and status.f_files and not status.f_favail:
        return "it has no inodes left: there are too many files"
    return os.strerror(error.errno or 0)


def _remedy(folder: Path, setting: str) -> str:
    setting = setting or setting_of(folder)
    return f"{_choose(setting)} that can be written to" if setting else "make it writable, or name another folder"


def _room_remedy(folder: Path, setting: str = "") -> str:
    setting = setting or setting_of(folder)
    other = f"{_choose(setting)} on a larger disk" if setting else "use a folder on a larger disk"
    return f"free some room there, or {other}, and run again: finished steps are not repeated"


def _choose(setting: str) -> str:
    return f"name a folder with {setting}" if setting.startswith("--") else f"set {setting} to a folder"
