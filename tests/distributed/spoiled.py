"""One rank of a training in which only the odd positions, those of rank 1, have bad samples.

Every step ends with an all-reduce, as a training's does: a rank whose partner is gone waits there.
"""

import argparse
import os
import sys

import torch

import fastload as fl


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shards")
    given = parser.parse_args()
    torch.distributed.init_process_group("gloo")
    fields = {"label": fl.Int("cls")}
    loader = fl.Loader(given.shards, 2, fields, shuffle=False, epochs=None, max_bad_fraction=0.0005)
    for batch in loader:
        torch.distributed.all_reduce(torch.ones(1))
        place = int(batch["__position__"][-1])
        sys.stdout.write(f"rank {os.environ['RANK']} got up to {place}\n")  # one write: ranks share the pipe
        sys.stdout.flush()


if __name__ == "__main__":
    main()
