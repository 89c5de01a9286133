"""What `state_dict()` after every step costs: the rate of a loader with and without it, by prefetch depth.

    python -m benchmarks.bench_state --out DIR [--photos DIR] [--rounds 40]

The loader decodes JPEGs of 256x256 (`sq256` of end_to_end/corpora.py), batches of 64, two threads, uint8,
with 1, 4, 16 and 64 batches ahead. One endless iteration for each depth is cut into windows, and the windows
take turns: `none` only takes batches, `state` calls `state_dict()` after each, `state + json` also
`json.dumps` of it. `cost` is one minus the rate over that of `none` in the same round, the median of the
rounds; it should be under 1 %, and what is smaller than its quartiles is noise. `call` is one call of
`state_dict()`, timed by itself between two batches, and `share` is it over the time of a batch: the same
question without the noise. Checked first, for each depth: the batches of a loader that is asked for its state
after each are those of one that never is, and the states are the places after them.

Prints a page, and writes state-DATE-COMMIT.json and .md into --out.
"""

import json
import statistics
import time
from collections.abc import Callable

import torch

import fastload as fl
from benchmarks import options
from benchmarks.end_to_end.corpora import KINDS, make
from benchmarks.end_to_end.machine import commit, keep, machine

BATCH, SIDE, THREADS = 64, 256, 2
DEPTHS = (1, 4, 16, 64)
WINDOW_BATCHES = 12
CHECKED_BATCHES = 12
MAX_BYTES = 2**32  # more than 66 batches hold, so that none of them has to wait for memory
CALLS = 200

KINDS_OF_STEP: dict[str, Callable] = {
    "none": lambda loader: None,
    "state": lambda loader: loader.state_dict(),
    "state + json": lambda loader: json.dumps(loader.state_dict()),
}


def make_loader(shards: list[str], prefetch: int) -> fl.Loader:
    return fl.Loader(
        shards,
        BATCH,
        {"image": fl.Image(size=SIDE), "label": fl.Int("cls")},
        dtype="uint8",
        epochs=None,
        last="straddle",
        decode="native",
        device="cpu",
        threads=THREADS,
        prefetch=prefetch,
        max_bytes=MAX_BYTES,
        rank=0,
        world_size=1,
    )


def check(shards: list[str], prefetch: int) -> None:
    """Raises AssertionError where asking for the state changes a batch, or the state is another place."""
    plain, asked = make_loader(shards, prefetch), make_loader(shards, prefetch)
    for number, one, other in zip(range(CHECKED_BATCHES), plain, asked, strict=False):
        state = json.loads(json.dumps(asked.state_dict()))
        assert one["__key__"] == other["__key__"]
        assert all(torch.equal(one[name], other[name]) for name in ("image", "label", "__position__"))
        position = (number + 1) * BATCH
        assert (state["epoch"], state["position"]) == (position // asked.dataset.n, position), state
    plain.close()
    asked.close()


def measure(shards: list[str], prefetch: int, rounds: int) -> dict:
    """Images per second of each kind in each round, and microseconds of each single call."""
    loader = make_loader(shards, prefetch)
    batches = iter(loader)
    for _ in range(max(WINDOW_BATCHES, 2 * prefetch)):
        next(batches)
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS_OF_STEP}
    for round in range(rounds):
        # Another one goes first in each round, so that none is always the one after `none`.
        kinds = list(KINDS_OF_STEP)
        for kind in kinds[round % 3 :] + kinds[: round % 3]:
            step = KINDS_OF_STEP[kind]
            begun = time.perf_counter()
            for _ in range(WINDOW_BATCHES):
                next(batches)
                step(loader)
            rates[kind].append(WINDOW_BATCHES * BATCH / (time.perf_counter() - begun))
    calls: dict[str, list[float]] = {"state": [], "state + json": []}
    for number in range(CALLS):
        next(batches)
        kind = list(calls)[number % 2]
        begun = time.perf_counter()
        KINDS_OF_STEP[kind](loader)
        calls[kind].append((time.perf_counter() - begun) * 1e6)
    loader.close()
    return {"images_per_second": rates, "microseconds_per_call": calls}


def row(measured: dict, kind: str) -> dict:
    """What the page says of a kind."""
    rates, of_none = measured["images_per_second"][kind], measured["images_per_second"]["none"]
    found = {"rate": statistics.median(rates), "min": min(rates), "max": max(rates)}
    if kind != "none":
        costs = [100 * (1 - rate / none) for rate, none in zip(rates, of_none, strict=True)]
        calls = measured["microseconds_per_call"][kind]
        low, middle, high = statistics.quantiles(costs, n=4, method="inclusive")
        found |= {"cost_percent": middle, "cost_low_percent": low, "cost_high_percent": high}
        found |= {"call_us": statistics.median(calls), "call_max_us": max(calls)}
        found["share_percent"] = found["call_us"] / (BATCH / statistics.median(of_none) * 1e6) * 100
    return found


def page(result: dict) -> str:
    lines = [
        f"`state_dict()` after every step: JPEGs of {SIDE}x{SIDE}, batches of {BATCH}, {THREADS} threads, "
        "uint8.",
        "",
        f"Commit {result['commit']['commit']}{' with changes' if result['commit']['dirty'] else ''}, "
        f"{result['machine']['cpu']}, {result['machine']['usable_cpus']} CPUs; {result['rounds']} rounds of "
        f"{WINDOW_BATCHES} batches for each row, in turns. What the columns mean: benchmarks/bench_state.py.",
        "",
        "| ahead | after each step | images/s | min - max | cost (quartiles) | call, us (max) | share |",
        "|---|---|---|---|---|---|---|",
    ]
    for depth, rows in result["depths"].items():
        for kind, one in rows.items():
            line = f"| {depth} | {kind} | {one['rate']:.0f} | {one['min']:.0f} - {one['max']:.0f} |"
            if kind == "none":
                lines.append(f"{line} | | |")
                continue
            quartiles = f"{one['cost_low_percent']:.2f} - {one['cost_high_percent']:.2f}"
            call = f"{one['call_us']:.1f} ({one['call_max_us']:.0f})"
            cost = f"{one['cost_percent']:.2f} % ({quartiles})"
            lines.append(f"{line} {cost} | {call} | {one['share_percent']:.3f} % |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("--depths", type=int, nargs="+", default=DEPTHS, help="batches ahead")
    parser.add_argument("--rounds", type=int, default=40)
    given = parser.parse_args()
    if given.rounds < 2:
        parser.error("--rounds: quartiles need two at least")
    result = {"commit": commit(), "machine": machine(), "rounds": given.rounds, "depths": {}, "windows": {}}
    corpus = make(KINDS["sq256"], given.photos, given.cache)
    corpus.warm()
    for depth in given.depths:
        check(corpus.shards, depth)
        measured = measure(corpus.shards, depth, given.rounds)
        result["windows"][depth] = measured
        result["depths"][depth] = {kind: row(measured, kind) for kind in KINDS_OF_STEP}
    text = page(result)
    print(text)
    if given.out is not None:
        keep("state", result, text, given.out, checkout=result["commit"])


if __name__ == "__main__":
    main()
