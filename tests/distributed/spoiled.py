"""One rank of a training in which only the odd positions, those of rank 1, have bad samples.

Every step ends with an all-reduce, as a training's does: a rank whose partner is gone waits there.
"""

import argparse
import sys

import torch
import torch.distributed as dist

import fastload as fl
from tests.distributed.rank import add_rank_arguments, process_group

GLOO_SECONDS = 600  # far beyond what a test waits


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shards")
    add_rank_arguments(parser, required=False)
    given = parser.parse_args()
    with process_group(given, GLOO_SECONDS):
        fields = {"label": fl.Int("cls")}
        loader = fl.Loader(given.shards, 2, fields, shuffle=False, epochs=None, max_bad_fraction=0.0005)
        for batch in loader:
            dist.all_reduce(torch.ones(1))
            place = int(batch["__position__"][-1])
            sys.stdout.write(f"rank {dist.get_rank()} got up to {place}\n")  # one write: ranks share the pipe
            sys.stdout.flush()


if __name__ == "__main__":
    main()
