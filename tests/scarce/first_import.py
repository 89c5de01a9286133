"""A program: what comes of the first use of a name with n descriptors left, each n in a child of its own.

Arguments: a folder with images, and numbers. It prints one line "n, what: outcome" for each.
"""

import os
import resource
import sys
from io import StringIO

import fastload as fl
from tests.scarce.descriptors import outcome

LIMIT = 256


def first_batch(source: str) -> None:
    with fl.Loader(source, 4, {"x": fl.Image(size=16)}, device="cpu", threads=2, ledger=None) as loader:
        assert len(next(iter(loader))["x"]) == 4


def in_a_child(free: int, name: str, before, use) -> None:
    if os.fork() == 0:
        sys.stderr = StringIO()  # what libraries print on their way
        before()
        os.write(1, f"{free}, {name}: {outcome(use, free)}\n".encode())
        os._exit(0)
    os.wait()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
    for number in map(int, sys.argv[2:]):
        in_a_child(number, "all", lambda: None, lambda: first_batch(sys.argv[1]))
        in_a_child(number, "torch", lambda: fl.Loader, lambda: first_batch(sys.argv[1]))
        in_a_child(number, "a room", lambda: None, lambda: fl.ops)
