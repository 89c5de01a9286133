"""What judges augmentation for discriminators on a GPU is judged here, on a CPU."""

import dataclasses
import os
import subprocess
import sys
import textwrap

import pytest
import torch

from benchmarks.end_to_end.machine import ROOT
from benchmarks.gpu import ada_kernels, ada_tiles, ada_twins
from benchmarks.gpu.cases import Context, Outcome
from fastload.augment import AdaPipe
from fastload.ops.ada.single_stages import affine_warp
from tests.ops.ada.ada_cases import warps


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
    side = 16
    G_inv = torch.eye(3).repeat(3, 1, 1)
    G_inv[0, 0, 1] = 1e-9  # mixes the axes, and looks a trifle to the left of -5
    G_inv[2, :2, :2] = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    of = ada_tiles.plane_bytes(G_inv, 3, side, side)
    image, plane = 4 * 3 * side**2, 16 * side**2
    rows = 2 * side + 11  # of places from -5 to 2 side + 4, and one more
    box = 16 * (rows + 1) * rows
    assert of["forward: up"] == of["forward in tiles: up"] == image + box
    assert of["forward: sample"] == box + 16 * side * (2 * side + 10)
    assert of["forward: contract"] == of["backward: expand"] == 2 * (image + plane)
    assert of["backward: fold columns"] == 3 * image + 2 * plane + 16 * rows * side


def test_every_kernel_of_the_warp_is_launched_by_itself_and_its_constants_are_there():
    """In a process of its own, which has a Triton that interprets."""
    pytest.importorskip("triton", reason="Triton is not installed")
    script = """
        import torch
        from benchmarks.gpu import ada_tiles
        from fastload.ops.ada.kernels import affine_warp_triton as module
        from fastload.ops.ada.ada_params import AdaParams
        G_inv = torch.eye(3).repeat(1, 1, 1)
        images = torch.rand(1, 3, 4, 4)
        rows = AdaParams(G_inv=G_inv, C=torch.eye(4)[None]).rows(images)
        before = ada_tiles._kernels()
        alone = [ada_tiles.launched_alone(name, images, rows) for name in ada_tiles.DIRECTIONS]
        assert ada_tiles._kernels() == before and module.FORM in ada_tiles.DIRECTIONS.values()
        launched = {name for programs in alone for name in programs}
        tabled = {f"{direction}: table" for direction in ada_tiles.DIRECTIONS}
        assert launched == set(ada_tiles.plane_bytes(G_inv, 3, 4, 4)) | tabled, launched
        assert all(hasattr(module, name) for name in ada_tiles.SWEPT)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_samples_of_parameters_are_those_of_the_batch():
    drawn = AdaPipe.named("bgc", 0.6, seed=3, rank=0).draw(8, 3, 16, 16)
    few = ada_kernels.some_of(drawn, [0, 5])
    assert torch.equal(few.G_inv, drawn.G_inv[[0, 5]]) and torch.equal(few.C, drawn.C[[0, 5]])
    assert few.gains is None and few.stages == drawn.stages
