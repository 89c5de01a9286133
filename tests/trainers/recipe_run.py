"""Runs the programs of a page, as its reader would: to the end, until they crash, and again after that.

python -m tests.trainers.recipe_run --shards DIR --out DIR --page FILE --rank R --world-size W --meet URL

A program is a block with the title "A program", or "A program, on 2 ranks". Those for as many
ranks as there are here are run. `training`, which they import, is made here. --out gets what each run saw.
"""

import argparse
import contextlib
import os
import re
import socket
import sys
import time
import traceback
import types
from pathlib import Path

import torch
import torch.distributed as dist

import fastload as fl
from tests.distributed.rank import add_rank_arguments, ends_after
from tests.trainers.seen import write

MOST_SECONDS = 100
PROGRAM = re.compile(r'^```python title="A program(, on 2 ranks)?"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
SAVED = {5: 3, 8: 6, 11: 9}  # the step in which a run crashes: the last one before it that was saved
FIELDS = {"image": fl.Image("jpg", size=8), "label": fl.Int("cls")}


class Crash(BaseException):
    """Nobody catches it as an error of a batch."""


def programs(page: str, ranks: int) -> dict[str, str]:
    """Code of the programs for so many ranks, by the heading they are under and their number there."""
    text, found = Path(page).read_text(), {}
    for block in PROGRAM.finditer(text):
        if (2 if block[1] else 1) == ranks:
            heading = re.findall(r"^## (.*)$", text[: block.start()], re.MULTILINE)[-1]
            number = sum(name.startswith(heading) for name in found) + 1
            lines = text.count("\n", 0, block.start(2))
            found[f"{heading} {number}"] = "\n" * lines + block[2]
    return found


def run(code: str, page: str, folder: Path, crash_in: int | None = None) -> list[dict]:
    """The batches that the model got. crash_in: the step in which it does not return."""
    seen = []

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3 * 8 * 8, 1)

        def forward(self, image, **entries):
            if len(seen) + 1 == crash_in:
                raise Crash
            seen.append({"keys": entries["__key__"], "pixels": float(image.double().sum())})
            return {"loss": self.layer(image.flatten(1)).square().mean()}

    sys.modules["training"] = types.SimpleNamespace(FIELDS=FIELDS, Model=Model)
    with contextlib.chdir(folder) if sys.version_info >= (3, 11) else _chdir(folder):
        try:
            exec(compile(code, page, "exec"), {"__name__": "__main__"})
        except Crash:
            pass
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()
    return seen


@contextlib.contextmanager
def _chdir(folder):
    before = Path.cwd()
    os.chdir(folder)
    yield
    os.chdir(before)


def meet(file: Path, given: argparse.Namespace) -> None:
    """Tells the environment what torchrun would. The ranks meet at a port of their own in each run: where the
    last run has met, its messages are left. file: where rank 0 says which port.
    """
    if given.rank == 0:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            (file.parent / "new").write_text(str(free.getsockname()[1]))
        (file.parent / "new").rename(file)
    while not file.exists():
        time.sleep(0.01)
    told = {"RANK": given.rank, "WORLD_SIZE": given.world_size, "LOCAL_RANK": given.rank}
    os.environ |= {name: str(value) for name, value in told.items()}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": file.read_text()}


def new_folder(out: Path, shards: str, *names: str) -> Path:
    folder = out.joinpath(*(re.sub(r"\W", "-", name) for name in names))
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):  # another rank was faster
        (folder / "shards").symlink_to(shards)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shards", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--page", required=True)
    add_rank_arguments(parser, required=True)  # --meet is of no use, as they meet more than once
    given = parser.parse_args()
    ends_after(MOST_SECONDS)
    os.environ["HF_HUB_OFFLINE"] = "1"
    out, found = Path(given.out), {}
    for name, code in programs(given.page, given.world_size).items():

        def once(kind: str, again: bool, crash_in: int | None = None, name=name, code=code) -> list[dict]:
            folder = new_folder(out, given.shards, name, kind)
            if given.world_size > 1:
                meet(folder / f"port {again}", given)
            return run(code, given.page, folder, crash_in)

        whole = once("whole", again=False)
        found[name] = {"whole": whole, "rest": {}}
        for crash_in, saved in SAVED.items():
            before = once(f"crash {crash_in}", False, crash_in)
            assert before == whole[: crash_in - 1], (name, crash_in)
            found[name]["rest"][saved] = once(f"crash {crash_in}", True)
    write(given.out, given.rank, found)
    sys.stdout.flush()
    os._exit(0)  # as in accelerate_run.py


if __name__ == "__main__":
    try:
        main()
    except BaseException:  # torch's gloo threads may abort a process that is ending, and hide why
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
