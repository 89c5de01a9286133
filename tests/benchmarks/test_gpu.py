"""The harness that will judge fastload on a GPU is judged here, on a CPU, at tiny sizes."""

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import corpus, report, shapes, stress, targets, timing, twins
from benchmarks.gpu.cases import PARTS, Case, Context, Outcome, Record, Skipped, run_cases

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = ROOT / "tests" / "data" / "photos"
HEAD = {"part": "loader", "device": "cpu", "date": "-", "commit": "-", "dirty": False}
HEAD |= {"machine": {"cpu": "-", "usable_cpus": 1, "python": "-", "packages": {}}}
HEAD |= {"gpu": {"name": None, "packages": {}}}


@pytest.fixture
def context(tmp_path):
    return Context("cpu", PHOTOS, tmp_path)


def ran(cases, path, context, deadline=None):
    """The result of these cases."""
    record = Record(path, HEAD)
    run_cases(cases, context, record, deadline or time.time() + 60, say=lambda line: None)
    return json.loads(path.read_text())


# Interpreted, the kernels take a minute; tests/ops runs each of them.
SLOW = {"kernels": pytest.mark.slow, "correctness": pytest.mark.slow}


@pytest.mark.parametrize("part", [pytest.param(part, marks=SLOW.get(part, ())) for part in PARTS])
def test_a_part_runs_on_the_cpu_and_leaves_its_record_and_the_page(part, tmp_path):
    for needed in ("triton", "nvidia.dali"):
        pytest.importorskip(needed)
    arguments = ["--out", str(tmp_path), "--device", "cpu", "--only", part]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    result = json.loads((tmp_path / f"gpu-{part}.json").read_text())
    states = {case["name"]: case["state"] for case in result["cases"]}
    assert set(states.values()) <= {"right", "skipped"}, done.stderr
    assert done.returncode == 0 and result["finished"]
    assert "right" in states.values()
    page = (tmp_path / "gpu.md").read_text()
    assert page.rstrip("\n") == done.stdout.rstrip("\n")
    assert "no figure here says anything about a GPU" in page
    assert all(f"### {name}" in page for name in states)
    for text in (page, json.dumps(result)):
        assert str(ROOT) not in text and str(tmp_path) not in text


def test_without_a_gpu_a_run_says_so_and_fails(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert command.main(["--out", str(tmp_path), "--only", "kernels"]) == 1
    result = json.loads((tmp_path / "gpu-kernels.json").read_text())
    assert [case["state"] for case in result["cases"]] == ["failed"]
    assert "torch sees no CUDA device" in result["cases"][0]["reason"]


def test_a_case_that_raises_is_failed_and_the_others_go_on(tmp_path, context):
    def broken(context):
        raise ValueError("no such /some/where/file")

    def skipped(context):
        raise Skipped("nothing to measure")

    cases = [
        Case("first", lambda context: Outcome([{"images/s": 3.0}])),
        Case("broken", broken),
        Case("skipped", skipped),
        Case("wrong", lambda context: Outcome(faults=["off by one"])),
        Case("last", lambda context: Outcome(raw={"least dB": float("inf"), "count": np.int64(3)})),
    ]
    result = ran(cases, tmp_path / "gpu-loader.json", context)
    states = [case["state"] for case in result["cases"]]
    assert states == ["right", "failed", "skipped", "wrong", "right"]
    assert result["cases"][1]["reason"] == "ValueError: no such file"
    assert result["cases"][4]["raw"] == {"least dB": "inf", "count": 3}
    assert report.failures({"loader": result}) == [
        "loader: broken: failed: ValueError: no such file",
        "loader: wrong: wrong: off by one",
    ]
    page = report.markdown({"loader": result})
    assert "| images/s |\n|---|\n| 3 |" in page
    assert "- loader: skipped: nothing to measure" in page


def test_the_record_is_on_disk_before_and_after_every_case(tmp_path, context):
    path, seen = tmp_path / "gpu-loader.json", []

    def look(context):
        result = json.loads(path.read_text())
        seen.append((result["running"]["name"], [case["name"] for case in result["cases"]]))
        return Outcome()

    ran([Case("one", look), Case("two", look)], path, context)
    assert seen == [("one", []), ("two", ["one"])]


def test_cases_whose_turn_comes_too_late_are_late_and_fail_the_run(tmp_path, context):
    result = ran([Case("one", lambda context: Outcome())], tmp_path / "r.json", context, deadline=1.0)
    assert [case["state"] for case in result["cases"]] == ["late"]
    assert len(report.failures({"loader": result})) == 1


def test_a_process_that_dies_or_hangs_costs_one_case(tmp_path):
    path = tmp_path / "gpu-loader.json"
    Record(path, HEAD).write()
    script = f"""
        import os, signal, time
        from pathlib import Path
        from benchmarks.gpu.cases import Case, Context, Outcome, Record, run_cases
        cases = [
            Case("good", lambda context: Outcome()),
            Case("dies", lambda context: os.kill(os.getpid(), signal.SIGSEGV)),
            Case("hangs", lambda context: time.sleep(100), 1.0),
            Case("last", lambda context: Outcome()),
        ]
        path = Path({str(path)!r})
        run_cases(cases, Context("cpu", path, path), Record(path), time.time() + 60)
    """
    command.supervise([sys.executable, "-c", textwrap.dedent(script)], path, {"PYTHONPATH": str(ROOT)})
    result = json.loads(path.read_text())
    states = {case["name"]: case["state"] for case in result["cases"]}
    assert states == {"good": "right", "dies": "failed", "hangs": "failed", "last": "right"}
    assert "SIGSEGV" in result["cases"][1]["reason"] and "no end after 1 s" in result["cases"][2]["reason"]
    assert result["finished"]


class StandIn:
    """A decoder that gives batch k as it is, but flips a bit in `iteration`, if any."""

    def __init__(self, batches, iteration=None):
        self._batches, self._iteration, self._count = batches, iteration, 0

    def submit(self, k):
        return k

    def finish(self, k):
        pixels = self._batches[k].clone()
        if self._count == self._iteration:
            pixels[-1, 3, 4, 1] ^= 1
        self._count += 1
        return pixels

    def release(self, handle):
        pass

    def close(self):
        pass


@pytest.mark.parametrize("iteration", [None, 0, 3, 5])
def test_the_stress_finds_one_flipped_bit_in_one_iteration(iteration, context):
    batches = [twins.random_pixels(2, 8, 8, 3, seed) for seed in range(2)]
    made = []

    def make():  # the first decoder is the quiet one, then come one, then two
        made.append(StandIn(batches, iteration if len(made) == 2 else None))
        return made[-1]

    outcome = stress.stressed(context, make, len(batches), (1, 2), iterations=6)
    corrupted = [row["corrupted"] for row in outcome.table]
    assert corrupted == [0, 0 if iteration is None else 1]
    assert bool(outcome.faults) == (iteration is not None)
    if iteration is not None:
        assert f"first [{iteration}]" in outcome.faults[0]
        assert outcome.table[1]["of the levels"] == outcome.table[1]["of the results"] == 1


def test_the_stress_needs_a_quiet_result_that_can_be_repeated(context):
    batches = [twins.random_pixels(2, 8, 8, 3, 0)]
    outcome = stress.stressed(context, lambda: StandIn(batches, 0), 1, (1,), iterations=2)
    assert "not the same when it is decoded again" in outcome.faults[0]


@pytest.mark.parametrize("dtype", twins.DTYPES)
def test_results_that_are_off_are_told_from_those_that_are_right(dtype):
    exact = torch.linspace(0, 1, 97, dtype=torch.float64)
    right = (
        (exact * 255 + 0.5).floor().to(torch.uint8) if dtype == "uint8" else exact.to(getattr(torch, dtype))
    )

    def off(result):
        error, allowed = twins.compared(result, exact, dtype, None, ("matrix",), 97)
        return bool((error > allowed).any())

    assert not off(right)
    wrong = right.clone()
    wrong[50] += 2 if dtype == "uint8" else {"float32": 1e-5, "float16": 1e-3, "bfloat16": 8e-3}[dtype]
    assert off(wrong)
    if dtype != "uint8":
        wrong[50] = torch.nan
        assert off(wrong)


def test_every_target_is_on_the_page_judged_or_not_with_the_reason():
    case = f"kernels {shapes.KERNELS[0].name}"
    measured = {f"share {shapes.KERNELS[0].name} normalize": 0.9, f"jitter {shapes.KERNELS[0].name}": 1.5}
    cases = [{"name": case, "state": "right", "seconds": 1.0, "targets": measured}]
    cases += [{"name": f"kernels {shapes.KERNELS[1].name}", "state": "failed", "seconds": 1.0, "targets": {}}]
    for one in cases:
        one |= {"table": [], "faults": [], "notes": [], "reason": "broke"}
    results = {
        "kernels": HEAD | {"device": "cuda", "finished": True, "cases": cases},
        "loader": HEAD | {"finished": True, "cases": []},
    }
    rows = targets.verdicts(results)
    assert len({target.key for target in targets.all_targets()}) == len(rows)
    met = {row["says"]: row for row in rows}
    name = shapes.KERNELS[0].name
    assert met[f"{name}: bytes of normalize / copy bandwidth"]["met"] is True
    assert met[f"{name}: time with jitter / without"]["met"] is False
    assert met[f"{shapes.KERNELS[1].name}: bytes of normalize / copy bandwidth"]["why"] == "broke"
    assert {row["why"] for row in rows if row["part"] == "loader"} == {"a run on the CPU"}
    assert {row["why"] for row in rows if row["part"] == "correctness"} == {"this part was not run"}
    page = report.markdown(results)
    assert all(f"| {row['says']} |" in page for row in rows)
    assert "| >= 0.8 | 0.9 | met |" in page and "| <= 1.35 | 1.5 | **missed** |" in page


def test_what_the_cases_call_themselves_is_what_the_targets_ask_for(tmp_path):
    from benchmarks.gpu import correctness, kernels, loader

    parts = {"correctness": correctness, "kernels": kernels, "loader": loader}
    on_gpu = Context("cuda", PHOTOS, tmp_path)
    names = {part: [case.name for case in module.cases(on_gpu)] for part, module in parts.items()}
    for part in PARTS:
        assert len(set(names[part])) == len(names[part])
    for target in targets.all_targets():
        assert target.case in names[target.part], target


def test_rates_become_the_ratios_that_the_targets_ask_for():
    from benchmarks.gpu.loader import _ratios

    rates = {"fastload": 90, "fastload deterministic=False": 95, "DALI by hand": 60, "torchvision": 10}
    rates |= {"engine, loads 0 and 1": 100, "engine, any load": 110}
    keys = {target.key for target in targets.all_targets() if target.case == "loaders 256x256"}
    assert set(_ratios("256x256", rates)) == keys
    assert _ratios("256x256", rates)["256x256: fastload / engines, loads 0 and 1"] == 0.9
    del rates["torchvision"], rates["engine, any load"]  # the best engine may be the same one
    left = _ratios("256x256", rates)
    assert keys - set(left) == {"256x256: fastload / torchvision"}
    assert left["256x256: fastload / engines, any load"] == 0.9


def test_programs_take_turns_and_their_spread_is_told():
    turns = []
    programs = {name: lambda launch, name=name: turns.append((name, launch)) for name in "ab"}
    times = timing.interleaved(programs, on_gpu=False, repeats=3, launches=2)
    measured = turns[2:]  # after one of each to warm up
    assert [name for name, _ in measured] == ["a", "a", "b", "b"] * 3
    assert [launch for name, launch in measured if name == "a"] == list(range(6))
    assert times["a"]["min_us"] <= times["a"]["median_us"] <= times["a"]["max_us"]
    assert "says nothing about a GPU" in times["a"]["clock"]


def test_a_corpus_is_made_once_of_the_size_asked_for(context):
    made = corpus.of(context, "500x375")
    assert (made.width, made.height, made.count) == (125, 93, corpus.TINY_COUNT)
    assert len(made.files) == len(made.contents()) == len(made.reference()) == made.count
    before = {path: os.stat(path).st_mtime_ns for path in made.files}
    again = corpus.of(Context("cpu", PHOTOS, context.scratch), "500x375")  # as a new process would
    assert again == made and {path: os.stat(path).st_mtime_ns for path in made.files} == before


def test_worker_processes_make_the_same_corpus(context, tmp_path):
    for workers in (1, 2):
        corpus._make(context, tmp_path / str(workers), 40, 30, 9, workers)
    for one in sorted((tmp_path / "1").rglob("*.*")):
        assert one.read_bytes() == (tmp_path / "2" / one.relative_to(tmp_path / "1")).read_bytes()


def test_a_mosaic_is_filled_to_its_edges():
    from PIL import Image

    photos = [Image.new("RGB", (50, 30), "white"), Image.new("RGB", (20, 70), "white")]
    for width, height in ((200, 130), (51, 31), (7, 5), (50, 30)):
        image = np.asarray(corpus.mosaic(photos, width, height, np.random.default_rng(0)))
        assert image.shape == (height, width, 3) and image.min() == 255
