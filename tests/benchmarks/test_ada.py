"""The comparison of adaptive augmentation: its peer is right, a wrong one is found, a result is written."""

import json

import pytest
import torch

from benchmarks import bench_ada
from benchmarks.ada import contestants, memory, op_sequence
from fastload.ops.ada.ada_augment import ada_augment
from fastload.ops.ada.ada_params import AdaParams
from tests.ops.ada.ada_cases import warps

SMALL = 2, 24


@pytest.mark.parametrize("setting", contestants.SETTINGS, ids=lambda setting: setting.name)
def test_every_contestant_is_the_float64_reference(setting):
    off = contestants.check(*contestants.contestants(setting, *SMALL), *SMALL)
    assert set(off) == set(setting.names)
    assert all(0 <= one <= 1e-5 for row in off.values() for one in row.values())  # small images: small places


@pytest.mark.parametrize("size", [(16, 16), (12, 21), (9, 8)])
def test_the_peers_geometry_holds_for_images_of_any_sides(size):
    G_inv = warps(3, *size, seed=4)
    images = torch.rand(3, 3, *size, dtype=torch.float64)
    exact = ada_augment(images, AdaParams(G_inv=G_inv), "reference")
    # The margin of six pixels leaves out outer taps of the filters where warps are strong: 8e-5 here.
    torch.testing.assert_close(op_sequence.warped(images, G_inv), exact, rtol=0, atol=3e-4)


@pytest.mark.parametrize("wrong", ["EXTRA", "SYM6"])
def test_a_peer_that_is_wrong_is_not_timed(wrong, monkeypatch):
    value = {"EXTRA": -3, "SYM6": op_sequence.SYM6[::-1]}[wrong]
    monkeypatch.setattr(op_sequence, wrong, value)
    setting = next(one for one in contestants.SETTINGS if one.name == "bgc, p = 0.6")
    with pytest.raises(AssertionError, match="op sequence: the result differs from the float64 reference"):
        contestants.check(*contestants.contestants(setting, *SMALL), *SMALL)


def test_the_program_writes_its_result(tmp_path, monkeypatch):
    setting = next(one for one in contestants.SETTINGS if one.name == bench_ada.TARGET)
    two = setting._replace(names=(contestants.NATIVE, contestants.PEER))
    monkeypatch.setattr(bench_ada, "SETTINGS", (two,))
    monkeypatch.setattr(bench_ada, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(
        bench_ada, "peak_mib", lambda setting, name, *sizes: 8.0 if name == "native" else 100.0
    )
    threads = torch.get_num_threads()
    try:
        bench_ada.main(
            ["--out", str(tmp_path), "--rounds", "3", "--threads", "1", "--batch", "2", "--side", "24"]
        )
    finally:
        torch.set_num_threads(threads)
    (kept,), (page,) = tmp_path.glob("ada-*.json"), tmp_path.glob("ada-*.md")
    rows = json.loads(kept.read_text())["settings"][bench_ada.TARGET]
    assert set(rows) == set(two.names)
    assert all(len(times) == 3 for row in rows.values() for times in row["times_ms"].values())
    assert "with 0.080 of the memory of the leaner one (target 0.1: met)" in page.read_text()


def test_memory_is_what_a_call_holds_at_most_in_a_process_of_its_own():
    # The result and the gradient alone are 24 MiB; four planes of the doubled image are more.
    mib = memory.peak_mib("DiffAugment", "reference", 16, 256, 1)
    assert 24 <= mib <= 200
