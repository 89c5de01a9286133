"""A training that never ends by itself, for tests that end it.

    python -m tests.faults_under_way.training SHARDS HOW [FOLDER]

Prints the seconds from `iter` to the first batch when it has that batch; with FOLDER (under torchrun), writes
its process id to FOLDER/RANK instead. HOW: what it does then.
"""

import os
import signal
import sys
import time
from pathlib import Path

import torch  # as every training does: its import is not the loader's

from tests.faults_under_way import scenarios


def main(shards: str, how: str, folder: str = "") -> None:
    scenarios.hear_ctrl_c()
    if how == "handles SIGTERM":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    assert torch.__version__
    endless = scenarios.loader(shards, epochs=None, prefetch=9)
    begun = time.perf_counter()
    run = iter(endless)
    next(run)
    if folder:
        (Path(folder) / os.environ["RANK"]).write_text(str(os.getpid()))
    else:
        print(time.perf_counter() - begun, flush=True)
    if how == "ends":
        return
    if how == "raises":
        raise ZeroDivisionError("the training's own")
    for _ in run:
        time.sleep(0.001)


if __name__ == "__main__":
    main(*sys.argv[1:])
