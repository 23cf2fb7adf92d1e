"""What the system raises where memory, files or threads run out, as one sentence."""

import errno

from pcam_model.core.errors import PcamError, first_line

NO_MEMORY = (
    *("not enough memory", "can't allocate memory", "out of memory", "bad_alloc", "Cannot allocate memory"),
    "failed to map segment from shared object",  # of a library that is imported
)
FILE_TOO_LARGE = "raise the limit (ulimit -f), or write to another file system"
REMEDIES = {
    errno.ENOSPC: "free some room, or use a folder on a larger disk",
    errno.EDQUOT: "free some room, or use a folder on a larger disk",
    errno.EFBIG: FILE_TOO_LARGE,
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "raise the machine's limit of open files, or end other programs",
}


def user_message(error: BaseException) -> str | None:
    """What a user is told of an error in place of a traceback; None for a bug."""
    return str(error) if isinstance(error, PcamError) else limit_message(error) or None


def limit_message(error: BaseException) -> str:
    """A sentence for an exception that says that a limit of the machine is reached; empty for any other."""
    if is_memory_error(error):
        return (
            f"the memory is used up ({first_line(error)}); give this process more, end other programs, or choose a "
            "smaller batch or fewer processes, and run again: finished steps are not repeated"
        )
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return "no more threads can be started; raise the limit (ulimit -u, or memory: ulimit -v), and run again"
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop from"):
        path = str(error).partition("'")[2].rstrip("'")
        return f"{path}: a symbolic link leads to itself; correct it, or name another path"
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        name = error.object.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace").strip()[:160]
        return f"{name}: this name is no UTF-8, expected one that is; rename the file or folder"
    if isinstance(error, OSError) and error.errno in REMEDIES:
        file = f"{error.filename}: " if error.filename else ""
        return f"{file}{error.strerror}; {REMEDIES[error.errno]}, and run again: finished steps are not repeated"
    return ""


def is_memory_error(error: BaseException) -> bool:
    """Whether an exception of Python, the system, torch or onnxruntime says that there is no memory left."""
    is_no_memory = isinstance(error, OSError) and error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or is_no_memory or any(words in str(error) for words in NO_MEMORY)
