"""What this machine has: CPUs, libraries and folders, found without heavy imports.

In: only the machine. Out: numbers, names and paths. Promised: no module is imported to find out whether it is
installed, nothing is created on disk, and every answer is computed anew, so that a test or a launcher can
change it.
"""

import importlib.machinery
import importlib.util
import os
import sys
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from fastload import _native
from fastload.errors import ConfigError
from fastload.shortage import is_shortage, naming_shortage

if TYPE_CHECKING:
    from fastload.world import World


_absolute: dict[str, Path] = {}  # value of FASTLOAD_CACHE -> its absolute path at first use


def usable_cpus() -> int:
    """CPUs that this process may use: its affinity, limited to whole CPUs of its cgroup's quota; at least 1.

    Raises BackendError if there are no descriptors left to read the quota.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    with naming_shortage("the CPU quota cannot be read"):
        return max(1, min(allowed, _quota_cpus(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))))


def threads_per_process(world: "World") -> int:
    """This process's share of the usable CPUs: divided by world.local_world_size, at least 1."""
    return max(1, usable_cpus() // world.local_world_size)


def find_libjpeg() -> list[Path]:
    """Candidate paths of libjpeg, best first: the one in Pillow's wheel, then the system's.

    The dynamic linker resolves a path without a folder, which may not exist.
    """
    candidates = []
    pillow = importlib.util.find_spec("PIL")
    if pillow is not None and pillow.origin is not None:
        package = Path(pillow.origin).parent
        candidates += sorted((package.parent / "pillow.libs").glob("libjpeg[-.]*"))
        candidates += sorted((package / ".dylibs").glob("libjpeg[-.]*"))
    if sys.platform.startswith("linux"):
        # The two ABIs by their sonames; find_library would run ldconfig and find no more.
        return [*candidates, Path("libjpeg.so.62"), Path("libjpeg.so.8")]
    from ctypes.util import find_library  # 11 ms to import

    found = find_library("jpeg")
    return [*candidates, Path(found)] if found else candidates


def has(module_name: str) -> bool:
    """Whether a module (possibly dotted) could be imported; neither it nor its parents are imported."""
    if module_name in sys.modules:
        return sys.modules[module_name] is not None
    name, *below = module_name.split(".")
    spec = importlib.util.find_spec(name)
    for part in below:  # part by part, because find_spec of a dotted name imports its parents
        if spec is None or spec.submodule_search_locations is None:
            return False
        name = f"{name}.{part}"
        spec = importlib.machinery.PathFinder.find_spec(name, spec.submodule_search_locations)
    return spec is not None


def triton_interprets() -> bool:
    """Whether Triton interprets kernels on the CPU: TRITON_INTERPRET=1."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def cache_dir() -> Path:
    """The folder of caches: FASTLOAD_CACHE, else fastload/ in XDG_CACHE_HOME or ~/.cache. It is not created.

    A relative FASTLOAD_CACHE is relative to the folder that was current at the first call, which the first
    loader makes. Raises ConfigError if there is no home folder either.
    """
    if os.environ.get("FASTLOAD_CACHE"):
        given = os.environ["FASTLOAD_CACHE"]
        return _absolute.setdefault(given, Path(given).expanduser().absolute())
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(xdg):  # the XDG specification: relative paths are to be ignored
        return Path(xdg) / "fastload"
    try:
        return Path.home() / ".cache" / "fastload"
    except RuntimeError:
        raise ConfigError("there is no home folder for the cache: set FASTLOAD_CACHE to a folder.") from None


def _quota_cpus(cgroup_file: Path, root: Path) -> int:
    """Whole CPUs of the tightest quota from this process's cgroups up to the root; sys.maxsize if none.

    cgroup_file: lines `number:controllers:path`, as /proc/self/cgroup. root: where cgroups are mounted.
    """
    try:
        lines = cgroup_file.read_text().splitlines()
    except OSError as error:  # not Linux, or no /proc
        _raise_shortage(error)
        return sys.maxsize
    cpus = sys.maxsize
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:  # version 2
            mounts, read = (root, root / "unified"), _quota_of_version_2
        elif "cpu" in controllers.split(","):  # version 1
            mounts, read = (root / "cpu", root / controllers), _quota_of_version_1
        else:
            continue
        # A container often sees its path on the host, but a mount that begins at the container: missing
        # folders are skipped on the way up.
        parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
        for mount in mounts:
            for depth in range(len(parts) + 1):
                try:
                    cpus = min(cpus, read(mount.joinpath(*parts[:depth])))
                except (OSError, ValueError) as error:
                    _raise_shortage(error)
    return max(1, cpus)


def _quota_of_version_2(folder: Path) -> int:
    """`cpu.max` holds `quota period` in microseconds, or `max period`."""
    quota, period = (folder / "cpu.max").read_text().split()
    return sys.maxsize if quota == "max" else int(quota) // int(period)


def _quota_of_version_1(folder: Path) -> int:
    """Two files in microseconds; a quota of -1 means no quota."""
    quota = int((folder / "cpu.cfs_quota_us").read_text())
    period = int((folder / "cpu.cfs_period_us").read_text())
    return sys.maxsize if quota < 0 else quota // period


def process() -> int:
    """Identifies this process: a number that each fork increments in the child.

    Not the PID: in nested PID namespaces parent and child may both be 1.
    """
    return _native.fork_count()


def _raise_shortage(error: Exception) -> None:
    """Raises an error of missing descriptors: then there may be a quota that cannot be read."""
    if isinstance(error, OSError) and is_shortage(error.errno):
        raise error


def ignore_jpegmem() -> None:
    """Removes JPEGMEM from this process's environment.

    Every libjpeg reads it for each new decoder, also those in Pillow, libtiff, simplejpeg and DALI, and
    refuses files that need more memory (progressive ones) as damaged. max_pixels decides what is too large.
    """
    os.environ.pop("JPEGMEM", None)
    os.unsetenv("JPEGMEM")  # also if C code, or os.putenv, has set it


_made: dict = {}


def once_per_process(key, make):
    """The result of `make()` for this key, made on first use in this process; a forked child makes its own.

    For objects with threads, which do not survive a fork.
    """
    own_key = (process(), key)
    if own_key not in _made:
        _made.setdefault(own_key, make())  # two threads that call at once both get the first result
    return _made[own_key]
