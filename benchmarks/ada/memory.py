"""The most memory that a call needs beyond what its process held before, in a process of its own (Linux).

    python -m benchmarks.ada.memory SETTING CONTESTANT BATCH SIDE THREADS

prints MiB for forward + backward. The kernel's high-water mark of resident memory (VmHWM) is set back, by
writing 5 to clear_refs, after a tiny call has loaded what is loaded on first use; what malloc keeps is given
back before.
"""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.end_to_end.machine import ROOT


def peak_mib(setting: str, contestant: str, n: int, side: int, threads: int) -> float:
    """Of a contestant of a setting, by their names."""
    words = [
        sys.executable,
        "-m",
        "benchmarks.ada.memory",
        setting,
        contestant,
        str(n),
        str(side),
        str(threads),
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def _measured(setting: str, contestant: str, n: int, side: int, threads: int) -> float:
    import torch

    from benchmarks.ada.contestants import SETTINGS, contestants, forward_backward, noise

    torch.set_num_threads(threads)
    chosen = next(one for one in SETTINGS if one.name == setting)
    tiny = min(side, 32)
    forward_backward(contestants(chosen, 1, tiny)[0][contestant], noise(1, tiny, 2), noise(1, tiny, 3))
    change = contestants(chosen, n, side)[0][contestant]
    images, weight = noise(n, side, 2), noise(n, side, 3)
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_mib("VmRSS")
    kept = forward_backward(change, images, weight)
    most = _status_mib("VmHWM")
    del kept
    return most - before


def _status_mib(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


if __name__ == "__main__":
    print(_measured(*sys.argv[1:3], *(int(word) for word in sys.argv[3:6])))
