"""Launches of adaptive augmentation as a GPU would get them, compiled for sm_90 and not run, which takes no
GPU.

The interpreter accepts what the compiler does not: a number that is 1 becomes a constant of the kernel, two
branches must agree on their types, a grid has limits. So everything up to the driver is the real thing here,
with arguments as users give them. In another process, because a kernel is one thing under TRITON_INTERPRET=1
and another without.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGET = ("cuda", 90, 32)  # an H100 or H200
MAX_OF_AN_AXIS = 65535


def pixel_by_pixel():
    from fastload.augment import AdaPipe

    _trained((2, 3, 32, 32), AdaPipe(brightness=1, hue=1, noise=1, cutout=1, rank=0))


def everything():
    from fastload.augment import AdaPipe

    _trained((2, 3, 32, 32), AdaPipe.named("bgcfnc", rank=0))


def tiles():
    from fastload.augment import AdaPipe
    from fastload.ops.ada.kernels import affine_warp_triton

    affine_warp_triton.FORM = "tiles"
    try:
        _trained((2, 3, 32, 32), AdaPipe.named("bgc", rank=0), backward=False)
    finally:
        affine_warp_triton.FORM = "streaming"


def half_precision_channels_last():
    import torch

    from fastload.augment import AdaPipe

    _trained((2, 3, 24, 32), AdaPipe.named("bgc", rank=0), torch.float16, torch.channels_last)


def noise_of_a_second_group_of_channels():
    from fastload.augment import AdaPipe

    _trained((2, 6, 32, 32), AdaPipe(noise=1, rank=0))


def images_of_one_row_and_of_one_column():
    from fastload.augment import AdaPipe

    for shape in ((2, 3, 1, 32), (2, 1, 32, 1)):
        _trained(shape, AdaPipe(noise=1, cutout=1, rank=0))


def more_images_than_an_axis_of_a_grid():
    import torch

    from fastload.ops import AdaParams, ada_augment

    n = MAX_OF_AN_AXIS + 5
    ada_augment(
        torch.zeros(n, 1, 2, 2), AdaParams(sigma=torch.zeros(n), eps=torch.zeros(n, 1, 2, 2)), "triton"
    )
    ada_augment(torch.zeros(n, 1, 2, 2), AdaParams(G_inv=torch.eye(3).expand(n, 3, 3)), "triton")


def all_draws():
    from fastload.augment import AdaPipe, AugmentPipe, DiffAugment

    pipe = AdaPipe.named("bgcfnc", impl="triton", seed=2**64 - 1, rank=1)
    pipe.draw(1, 3, 32, 32)
    pipe.draw(16, 1, 31, 1, 0.7)
    names = ("xflip", "rotate_int", "translate_int", "scale", "rotate_frac", "aniso", "translate_frac", "hue")
    AugmentPipe(**dict.fromkeys(names, 1), impl="triton", rank=0).draw(2, 3, 32, 32)
    DiffAugment(impl="triton", rank=0).draw(2, 32, 32)


def the_other_operators():
    import torch

    from fastload.augment import DiffAugment
    from fastload.ops import diff_augment, move_pixels, upfirdn2d

    images = torch.zeros(2, 3, 16, 16, requires_grad=True)
    params = DiffAugment(impl="reference", rank=0).draw(2, 16, 16)
    diff_augment(images, params, impl="triton").sum().backward()
    ones = torch.ones(2, dtype=torch.int32)
    move_pixels(images, ones, ones, ones, torch.ones(2, 2, dtype=torch.int32), impl="triton").sum().backward()
    upfirdn2d(images, torch.ones(4), up=2, impl="triton").sum().backward()


# The first launches what compiles soon, `everything` each kernel once; the others compile them again, in
# other forms.
CASES = (
    pixel_by_pixel, everything, tiles, half_precision_channels_last, noise_of_a_second_group_of_channels,
    images_of_one_row_and_of_one_column, more_images_than_an_axis_of_a_grid, all_draws, the_other_operators,
)  # fmt: skip


def _trained(shape, pipe, dtype=None, form=None, backward=True):
    """A forward and a backward pass through the Triton twin, with parameters that the reference draws."""
    import torch

    from fastload.ops import ada_augment

    images = torch.zeros(shape, dtype=dtype)
    images = images.to(memory_format=form or torch.contiguous_format).requires_grad_()
    result = ada_augment(images, pipe.draw(*shape), "triton")
    if backward:
        result.sum().backward()


@pytest.fixture(scope="module")
def launched(request, tmp_path_factory):
    """What became of each case of this run: nothing, or what went wrong."""
    pytest.importorskip("triton", reason="Triton is not installed")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    tests = (one for one in request.session.items if one.module is request.module)
    command = [sys.executable, "-m", __name__, *(one.callspec.params["case"].__name__ for one in tests)]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)
    assert ran.returncode == 0, ran.stderr[-4000:]
    results = json.loads(ran.stdout.splitlines()[-1])
    if "unable" in results:
        pytest.skip(f"Triton cannot compile for {TARGET} here: {results['unable']}")
    return results


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=[pytest.mark.slow] * (case is not pixel_by_pixel)) for case in CASES],
    ids=[case.__name__ for case in CASES],
)
def test_a_launch_compiles_for_a_gpu(case, launched):
    assert launched[case.__name__] is None, launched[case.__name__]


def main(names):
    """Runs the named cases and prints one object: what went wrong by name, None where nothing did."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver, jit

    class Driver:
        """A GPU that compiles and does not run."""

        get_current_target = staticmethod(lambda: GPUTarget(*TARGET))
        get_current_device = staticmethod(lambda: 0)
        get_current_stream = staticmethod(lambda device=None: 0)

    def compiled(kernel, grid):
        assert len(grid) < 2 or grid[1] <= MAX_OF_AN_AXIS, f"a grid of {grid}"
        return lambda *given, **options: kernel.run(*given, grid=grid, warmup=True, **options)

    driver.set_active(Driver())
    jit.JITFunction.__getitem__ = compiled
    from fastload.ops import twins

    twins.require_triton = lambda device: None
    try:
        triton.jit(_nothing)[(1,)](1)
    except Exception as error:  # whatever it is, the reason to skip
        print(json.dumps({"unable": f"{type(error).__name__}: {error}"[:500]}))
        return
    print(json.dumps({case.__name__: _failure(case) for case in CASES if case.__name__ in names}))


def _nothing(number):
    pass


def _failure(case):
    try:
        case()
    except Exception as error:
        causes = []
        while error is not None:
            causes.append(f"{type(error).__name__}: {error}"[-1500:])
            error = error.__cause__
        return " <- ".join(causes)


if __name__ == "__main__":
    main(sys.argv[1:])
