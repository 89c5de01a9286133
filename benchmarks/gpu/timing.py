"""How long programs take on a device: interleaved repeats, their median and spread.

On a GPU a repeat is several launches between two CUDA events, queued behind a wait on the device, so that
neither Python nor the launch itself is in the time; the launches go through different buffers, as many as do
not fit the L2 cache, so that inputs come from HBM and every launch pays for the writes that the one before
it left in the cache. `exposed` counts the repeats in which the host was slower than the wait: their times
hold some of its own. On the CPU it is a wall clock, and `clock` says so.
"""

import statistics
import time
from collections.abc import Callable

CYCLES_PER_SECOND = 2.0e9  # of torch.cuda._sleep, about: an H200 runs at up to 1.98 GHz
LEAST_WAIT_SECONDS = 2e-4


def interleaved(
    programs: dict[str, Callable[[int], object]], on_gpu: bool, repeats: int = 24, launches: int = 8
) -> dict[str, dict]:
    """Name -> {"median_us", "min_us", "max_us", "p10_us", "p90_us", "repeats", "exposed", "clock"} of one
    launch. A program is called with the number of the launch, to choose its buffers."""
    if not on_gpu:
        return {name: _described(times, 0, "perf_counter on the CPU: says nothing about a GPU")
                for name, times in _on_cpu(programs, repeats, launches).items()}  # fmt: skip
    import torch

    host = {name: _warm(program, launches) for name, program in programs.items()}
    times: dict[str, list[float]] = {name: [] for name in programs}
    exposed = dict.fromkeys(programs, 0)
    for repeat in range(repeats):
        for name, program in programs.items():
            before, start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(3))
            before.record()
            torch.cuda._sleep(int(max(2 * host[name], LEAST_WAIT_SECONDS) * CYCLES_PER_SECOND))
            start.record()
            begun = time.perf_counter()
            for launch in range(launches):
                program(repeat * launches + launch)
            stop.record()
            queued_ms = (time.perf_counter() - begun) * 1e3
            torch.cuda.synchronize()
            exposed[name] += queued_ms > before.elapsed_time(start)
            times[name].append(start.elapsed_time(stop) * 1e3 / launches)
    return {name: _described(times[name], exposed[name], "CUDA events") for name in programs}


def _warm(program: Callable[[int], object], launches: int) -> float:
    """Compiles and warms up; the seconds that the host takes to queue the launches of a repeat."""
    import torch

    for launch in range(2 * launches):
        program(launch)
    torch.cuda.synchronize()
    begun = time.perf_counter()
    for launch in range(launches):
        program(launch)
    seconds = time.perf_counter() - begun
    torch.cuda.synchronize()
    return seconds


def _on_cpu(programs: dict, repeats: int, launches: int) -> dict[str, list[float]]:
    for program in programs.values():
        program(0)
    times: dict[str, list[float]] = {name: [] for name in programs}
    for repeat in range(repeats):
        for name, program in programs.items():
            begun = time.perf_counter()
            for launch in range(launches):
                program(repeat * launches + launch)
            times[name].append((time.perf_counter() - begun) * 1e6 / launches)
    return times


def _described(times: list[float], exposed: int, clock: str) -> dict:
    ordered = sorted(times)
    last = len(ordered) - 1
    return {
        "median_us": round(statistics.median(ordered), 2),
        "min_us": round(ordered[0], 2),
        "max_us": round(ordered[-1], 2),
        "p10_us": round(ordered[round(0.1 * last)], 2),
        "p90_us": round(ordered[round(0.9 * last)], 2),
        "repeats": len(ordered),
        "exposed": int(exposed),
        "clock": clock,
    }


def copy_bytes_per_second(on_gpu: bool, size_bytes: int, repeats: int = 20) -> dict:
    """Of a copy within the device, bytes read and written counted: the ceiling of a kernel that moves."""
    import torch

    device = "cuda" if on_gpu else "cpu"
    source = torch.ones(size_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    took = interleaved({"copy": lambda _: target.copy_(source)}, on_gpu, repeats, launches=2)["copy"]
    return {"bytes_per_second": 2 * size_bytes / (took["median_us"] * 1e-6), "size_bytes": size_bytes, **took}


def pinned_bytes_per_second(size_bytes: int, repeats: int = 20) -> dict:
    """Of a copy from pinned memory to the GPU."""
    import torch

    source = torch.ones(size_bytes, dtype=torch.uint8).pin_memory()
    target = torch.empty(size_bytes, dtype=torch.uint8, device="cuda")
    program = {"copy": lambda _: target.copy_(source, non_blocking=True)}
    took = interleaved(program, True, repeats, launches=2)["copy"]
    return {"bytes_per_second": size_bytes / (took["median_us"] * 1e-6), "size_bytes": size_bytes, **took}
