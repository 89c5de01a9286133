"""What the tables of kernels share: the rate of a copy, a row, and what becomes of programs that fail."""

from benchmarks.gpu import timing
from benchmarks.gpu.cases import Context, Outcome

COPIED_BYTES = 1 << 30


def copy_rate(context: Context) -> dict:
    """The copy of the part's first case; measured again in a process that was started anew."""
    size = context.of(COPIED_BYTES, 1 << 20)
    return context.once("bandwidth", lambda: timing.copy_bytes_per_second(context.on_gpu, size))


def row(name: str, took: dict) -> dict:
    found = {"program": name, "median us": took["median_us"], "p10": took["p10_us"], "p90": took["p90_us"]}
    return found | {"repeats": took["repeats"]}


def exposed(times: dict) -> list[str]:
    return [
        f"{name}: in {took['exposed']} of {took['repeats']} repeats the host was slower than the device."
        for name, took in times.items()
        if took["exposed"]
    ]


def drop_failing(programs: dict, outcome: Outcome) -> None:
    """A program that cannot be compiled or run is a line of the result, not the end of the case."""
    for name in list(programs):
        try:
            programs[name](0)
        except Exception as error:
            del programs[name]
            outcome.notes.append(f"{name}: does not run: {type(error).__name__}: {str(error)[:200]}")
