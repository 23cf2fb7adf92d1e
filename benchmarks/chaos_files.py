"""Faults of files and disks: damage, leftovers, lost or refused folders, no room, no inodes."""

import hashlib
import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from benchmarks.chaos_fault import Broken, Fault, SkippedFault, killed
from benchmarks.chaos_runs import NAME, Home

OTHER_USER = 54321
"""A number that no user has."""
UNPRIVILEGED = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner")
"""Runs a command of root as a user whom modes and owners concern."""
DISK = "size=1500m,nr_inodes=2000"
FOLDERS = ("cache", "store", "tmp")


def _damage(path: Path, draw: random.Random) -> str:
    """Flip a byte of a file, cut it, or empty it; says which."""
    content = bytearray(path.read_bytes())
    kind = draw.choice(["a byte flipped", "cut in half", "emptied"])
    if kind == "a byte flipped" and content:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    elif kind == "cut in half":
        del content[len(content) // 2 :]
    else:
        content.clear()
    path.write_bytes(content)
    return kind


def damage_between_starts(home: Home, draw: random.Random, seconds: float) -> Broken:
    """Kill the run, and damage one file of its cache or store."""
    before = killed(home, draw, seconds)
    candidates = [path for path in home.files("cache") + home.files("store") if path.name != ".lock"]
    if home.is_published() or not candidates:
        return before
    path = draw.choice(candidates)
    content = path.read_bytes()
    name, kind = path.relative_to(home.folder), _damage(path, draw)

    def restore() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return before._replace(what=f"{before.what}, {name} {kind}", restore=restore)


def leftovers_of_a_crash(home: Home, draw: random.Random, seconds: float) -> Broken:
    """Kill the run, and leave temporary files where writers leave them."""
    before = killed(home, draw, seconds)
    folders = sorted({path.parent for path in home.files("store", "runs", NAME)})
    if home.is_published() or not folders:
        return before
    folder = draw.choice(folders)
    host = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
    (folder / f".step.json.abcdefgh.{host}-999999999").write_bytes(b"half")
    return before._replace(what=f"{before.what}, a temporary file in {folder.relative_to(home.folder)}")


def lost_cache(home: Home, draw: random.Random, seconds: float) -> Broken:
    """Kill the run, and remove the cache: another machine goes on."""
    before = killed(home, draw, seconds)
    shutil.rmtree(home.cache, ignore_errors=True)
    return before._replace(what=f"{before.what}, the cache removed")


def small_files_only(home: Home, draw: random.Random, _: float) -> Broken:
    """No file may grow beyond a limit."""
    limit = int(draw.uniform(1e5, 5e7))
    before = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY)); "
    return Broken(f"no file larger than {limit:,} bytes", codes=(0, 1), code=home.wait(home.start(before=before)).code)


def disk_fills(home: Home, draw: random.Random, seconds: float, fill: Callable[[Path], None]) -> Broken:
    """Fill the disk of a folder at a random moment, and make room again once the command has ended."""
    name, moment = draw.choice(FOLDERS), draw.uniform(0.2, seconds)
    disk = home.folder / name
    _mount(home, disk)
    process, ballast = home.start(), disk / "ballast"
    time.sleep(moment)
    ballast.mkdir()
    with suppress(OSError):
        fill(ballast)
    ended = home.wait(process)
    shutil.rmtree(ballast)
    return Broken(f"{name} full after {moment:.1f} s", codes=(0, 1), code=ended.code)


def _fill_room(folder: Path) -> None:
    """Write until it fails."""
    for size in (1 << 20, 1 << 12):
        with suppress(OSError), (folder / str(size)).open("wb", buffering=0) as file:
            while file.write(bytes(size)):
                pass


def _fill_inodes(folder: Path) -> None:
    """Make files until it fails."""
    for number in range(1 << 20):
        (folder / str(number)).touch()


def _mount(home: Home, folder: Path) -> None:
    """A small disk in memory at a folder of the home, until the home is closed."""
    folder.mkdir(exist_ok=True)
    _system("mount", "-t", "tmpfs", "-o", DISK, "tmpfs", str(folder))
    home.closing.callback(_system, "umount", "-l", str(folder))


def _system(*command: str) -> None:
    """Run a command; SkippedFault where it is refused."""
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", "") or error
        raise SkippedFault(f"`{' '.join(command[:2])}` is refused ({str(reason).strip()})") from error


def folder_refused(home: Home, draw: random.Random, seconds: float) -> Broken:
    """Kill the run, and take a folder away from its next start: read-only, of another owner, or of another mode."""
    if os.geteuid() or not shutil.which("setpriv"):
        raise SkippedFault("only root gives a folder to another user, and setpriv takes root's rights away")
    before = killed(home, draw, seconds)
    folders = sorted({path.parent for path in home.files("cache") + home.files("store")} | {home.folder / "tmp"})
    folder, kind = draw.choice(folders), draw.choice(("read-only", "of another owner", "without the right to write"))
    mode = folder.stat().st_mode
    if kind == "read-only":
        _system("mount", "--bind", str(folder), str(folder))
        _system("mount", "-o", "remount,ro,bind", str(folder))
    elif kind == "of another owner":
        os.chown(folder, OTHER_USER, OTHER_USER)
    else:
        folder.chmod(0o555)
    home.clear_output()
    ended = home.wait(home.start(prefix=UNPRIVILEGED))
    if kind == "read-only":
        _system("umount", "-l", str(folder))
    elif folder.exists():
        os.chown(folder, 0, 0)
        folder.chmod(mode)
    what = f"{before.what}, {folder.relative_to(home.folder)} {kind}: exit code {ended.code}"
    return Broken(what, codes=(0, 1), code=ended.code)


NO_ROOM = r"disk is full|no inodes|No space left|no room|folder for temporary files"
FILE_FAULTS: dict[str, Fault] = {
    "damage between starts": Fault(damage_between_starts),
    "leftovers of a crash": Fault(leftovers_of_a_crash),
    "cache lost": Fault(lost_cache),
    "file size limit": Fault(small_files_only, cause=r"[Ff]ile too large|larger|limit"),
    "disk full": Fault(partial(disk_fills, fill=_fill_room), cause=NO_ROOM),
    "no inodes left": Fault(partial(disk_fills, fill=_fill_inodes), cause=NO_ROOM),
    "folder refused": Fault(folder_refused, cause=r"read-only|may not|cannot be (written|read)|Permission denied"),
}
