"""What every rank does first and last: says when it hangs, meets the others, and leaves with them."""

import argparse
import contextlib
import datetime
import faulthandler
from collections.abc import Iterator

import torch.distributed as dist


def add_rank_arguments(parser: argparse.ArgumentParser, required: bool) -> None:
    """--rank, --world-size and --meet, as launch.py gives them. required: False where torchrun may tell."""
    parser.add_argument("--rank", type=int, default=-1, required=required)
    parser.add_argument("--world-size", type=int, default=-1, required=required)
    parser.add_argument("--meet", required=required)


def ends_after(seconds: int) -> None:
    """A rank that hangs says where, and ends."""
    faulthandler.dump_traceback_later(seconds, exit=True)


@contextlib.contextmanager
def process_group(given: argparse.Namespace, wait_seconds: int) -> Iterator[None]:
    """Within it torch.distributed is there; what ends well ends on all ranks together."""
    dist.init_process_group(
        "gloo",
        init_method=given.meet,
        rank=given.rank,
        world_size=given.world_size,
        timeout=datetime.timedelta(seconds=wait_seconds),
    )
    yield
    dist.barrier()
    dist.destroy_process_group()
