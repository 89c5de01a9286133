"""What judges augmentation for discriminators on a GPU is judged here, on a CPU."""

import dataclasses

import pytest
import torch

from benchmarks.gpu import ada_kernels, ada_tiles, ada_twins
from benchmarks.gpu.cases import Context, Outcome
from fastload.augment import AdaPipe
from fastload.ops.affine_warp import affine_warp
from tests.ops.ada_cases import warps


def test_a_warp_that_is_off_by_a_thousandth_of_a_pixel_is_told_from_one_that_is_right(tmp_path):
    G_inv, moved = warps(2, 32, 32).float(), torch.zeros(3, 3)
    moved[0, 2] = 1e-3

    def faults(fast, slow):
        outcome = Outcome()
        changes = (lambda images: affine_warp(images, fast), lambda images: affine_warp(images, slow))
        ada_twins._compare(
            Context("cpu", tmp_path, tmp_path), outcome, "warp", changes, (2, 3, 32, 32), ada_twins.TOLERANCE
        )
        return outcome.faults

    assert faults(G_inv, G_inv.double()) == []
    found = faults(G_inv + moved, G_inv.double())
    assert [one.split(" is off")[0] for one in found] == ["warp: result", "warp: gradient", "warp: second"]


def test_one_gate_and_one_unit_too_many_of_a_drawn_number_are_found():
    drawn = AdaPipe.named("bgcfnc", 0.5, seed=3, rank=0).draw(64, 3, 64, 64)
    assert set(ada_twins.differences_of(drawn, drawn).values()) == {0.0}
    for field, change in {
        "noise_key": lambda one: one + 1,
        "cut_size": lambda one: one.roll(1),
        "gains": lambda one: one * (1 + 6 * 2.0**-23),
        "C": lambda one: one + 1e-4,
        "G_inv": lambda one: one.roll(1, 0),
    }.items():
        other = dataclasses.replace(drawn, **{field: change(getattr(drawn, field))})
        off = ada_twins.differences_of(other, drawn)
        assert {name for name, one in off.items() if not one <= 1} == {field}


def test_the_bytes_of_planes_are_those_of_the_boxes_that_warps_look_at():
    n, side = 2, 16
    of = ada_tiles.plane_bytes(torch.eye(3).repeat(n, 1, 1), 3, side, side)
    images, box = (
        4 * n * 3 * side**2,
        16 * n * (2 * side + 11) ** 2,
    )  # places from -5 to 2 side + 4, and one more
    assert of["forward: up"] == images + box
    assert of["forward: sample"] == box + 16 * n * side * (2 * side + 10)
    assert of["backward: fold columns"] == images + 16 * n * (2 * side + 11) * side


def test_every_kernel_of_the_warp_is_launched_by_itself_and_its_constants_are_there():
    module = pytest.importorskip("fastload.ops.affine_warp_triton", reason="Triton is not installed")
    kernels = {name for name in vars(module) if name.endswith("_kernel")}
    assert {one for names in ada_tiles.NAMES.values() for one in names} == kernels
    assert all(hasattr(module, name) for name in ada_tiles.SWEPT)


def test_samples_of_parameters_are_those_of_the_batch():
    drawn = AdaPipe.named("bgc", 0.6, seed=3, rank=0).draw(8, 3, 16, 16)
    few = ada_kernels.some_of(drawn, [0, 5])
    assert torch.equal(few.G_inv, drawn.G_inv[[0, 5]]) and torch.equal(few.C, drawn.C[[0, 5]])
    assert few.gains is None and few.stages == drawn.stages
