"""The Triton twin of ada_augment against the float64 reference: results, adjoints, and what autograd keeps.

Small images and small tiles, for an interpreter takes milliseconds for what a GPU does in a nanosecond; on a
GPU the tests at 256 pixels run on the modules' own tiles, with every kind of warp.

Covers ada_pointwise_triton.py, affine_adjoint_triton.py, affine_axes_triton.py, affine_tile_triton.py,
band_filter_triton.py, warp_points_triton.py and warp_up_triton.py.
"""

import itertools

import pytest
import torch

from fastload.ops.ada.ada_augment import ada_augment
from fastload.ops.ada.ada_params import AdaParams
from fastload.ops.twins import ADJOINT
from tests.ops.ada.ada_cases import STAGES, images, params, warps
from tests.quick import slow_but

pytest.importorskip("triton", reason="Triton is not installed: its kernels cannot run")

NAMES = ("UP_BLOCK", "UP_ROWS", "SAMPLE_BLOCK", "SAMPLE_ROWS", "SPREAD_BLOCK", "PIXEL_BLOCK")
SMALL_TILES = (16, 8, 16, 4, 32, 64)  # of which small images need several
QUICK_TILES = (64, 32, 64, 16, 128, 256)  # fewer steps to interpret


@pytest.fixture(autouse=True)
def tiles(request, monkeypatch):
    from fastload.ops.ada.kernels import affine_warp_triton

    if "own_tiles" not in request.fixturenames:
        sizes = SMALL_TILES if "small_tiles" in request.fixturenames else QUICK_TILES
        for name, size in zip(NAMES, sizes, strict=True):
            monkeypatch.setattr(affine_warp_triton, name, size)


@pytest.fixture
def small_tiles():
    """Several tiles for each image."""


@pytest.fixture
def own_tiles():
    """The modules' own."""


def both(batch, given, device, dtype=torch.float32, seed=7):
    """(result, gradient) of the Triton twin, and of the reference in float64."""
    weight = images(*batch.shape, seed=seed)
    found = []
    for impl, kind, place in (("triton", dtype, device), ("reference", torch.float64, "cpu")):
        x = batch.to(place, kind).requires_grad_()
        out = ada_augment(x, given.to(place), impl)
        (gradient,) = torch.autograd.grad(out, x, weight.to(place, kind))
        found.append((out.detach().cpu().double(), gradient.cpu().double()))
    return found


def assert_is_the_reference(batch, given, device, tolerance=2e-5):
    (out, gradient), (exact_out, exact_gradient) = both(batch, given, device)
    torch.testing.assert_close(out, exact_out, rtol=0, atol=tolerance)
    torch.testing.assert_close(gradient, exact_gradient, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "channels, size",
    [
        (1, (2, 3)),
        pytest.param(5, (2, 3), marks=pytest.mark.slow),
        pytest.param(3, (7, 6), marks=pytest.mark.slow),
        pytest.param(5, (4, 5), marks=pytest.mark.slow),
    ],
)
def test_warps_and_their_adjoints_are_the_references(channels, size, device, small_tiles):
    given = AdaParams(G_inv=warps(2, *size, seed=channels).float())
    assert_is_the_reference(images(2, channels, *size), given, device)


AXES = {
    "mirrored": ((-1, 0), (0, 1)),
    "turned": ((0, 1), (-1, 0)),
    "turned and stretched": ((0, -1.3), (0.6, 0)),
    "stretched": ((2.9, 0), (0, 0.3)),
    "all there is room for": ((4, 0), (0, -4)),
    "more than there is room for": ((4.1, 0), (0, 0.24)),
}


HARD_AXES = ("turned and stretched", "all there is room for", "more than there is room for")


@pytest.mark.parametrize(
    "names, channels, height, width",
    [
        (HARD_AXES, 3, 6, 5),
        pytest.param(tuple(AXES), 3, 6, 5, marks=pytest.mark.slow),
        pytest.param(tuple(AXES), 3, 9, 4, marks=pytest.mark.slow),
    ],
)
def test_axes_that_are_not_mixed_go_one_after_the_other(names, channels, height, width, device):
    shape = (len(names), channels, height, width)
    G_inv = torch.eye(3).repeat(len(names), 1, 1)
    G_inv[:, :2, :2] = torch.tensor([AXES[name] for name in names])
    G_inv[-5:, 0, 2], G_inv[-5:, 1, 2] = 1.3, -0.6
    cut = params(*shape, ("cutout",))
    given = AdaParams(G_inv=G_inv, cut_size=cut.cut_size, cut_center=cut.cut_center)
    assert_is_the_reference(images(*shape), given, device, 5e-5)


def test_tiles_are_another_form_of_the_same_warp(device, monkeypatch):
    from fastload.ops.ada.kernels import affine_warp_triton

    monkeypatch.setattr(affine_warp_triton, "FORM", "tiles")
    given = params(1, 3, 5, 29, ("warp", "color", "noise", "cutout"))
    batch = images(1, 3, 5, 29, torch.float32)
    result = ada_augment(batch.to(device), given.to(device), "triton").cpu().double()
    expected = ada_augment(batch.double(), given, "reference")
    torch.testing.assert_close(result, expected, rtol=0, atol=3e-5)


@pytest.mark.parametrize("form", slow_but(["streaming"], ["streaming", "tiles"]))
def test_memory_that_nobody_wrote_reaches_no_result(form, device, monkeypatch):
    """Scratch is here full of what is no number, which not even a weight of 0 would hide."""
    from fastload.ops.ada.kernels import affine_warp_triton

    empty = torch.empty

    def spoiled(*arguments, **options):
        tensor = empty(*arguments, **options)
        return tensor.fill_(float("nan") if tensor.is_floating_point() else 2**30)

    monkeypatch.setattr(affine_warp_triton, "FORM", form)
    G_inv = torch.cat([warps(2, 3, 2).float(), torch.eye(3)[None]])
    G_inv[1, :2, :2] = torch.tensor([[0, 1.2], [-0.7, 0]])
    given, batch = AdaParams(G_inv=G_inv), images(3, 3, 3, 2)
    monkeypatch.setattr(torch, "empty", spoiled)
    found = both(batch, given, device)
    monkeypatch.undo()
    for result, expected in zip(*found, strict=True):
        torch.testing.assert_close(result, expected, rtol=0, atol=2e-5)


def test_a_batch_of_one_with_the_modules_own_tiles_is_the_reference(device, own_tiles):
    given = params(1, 3, 3, 2, ("warp", "color", "noise", "cutout"))
    assert_is_the_reference(images(1, 3, 3, 2), given, device)


@pytest.mark.parametrize("x, y", slow_but([(5, 5), (-6, 3)], [(0, 0), (2, -1), (5, 5), (-6, 3), (0.5, 0)]))
def test_whole_pixels_are_copied_exactly_as_long_as_reflection_reaches(x, y, device):
    G_inv = torch.eye(3)[None].clone()
    G_inv[0, 0, 2], G_inv[0, 1, 2] = x, y
    given, batch = AdaParams(G_inv=G_inv), images(1, 3, 9, 9)
    assert_is_the_reference(batch, given, device)
    is_copy = all(float(one).is_integer() and abs(one) <= 5 for one in (x, y))
    result = ada_augment(batch.float().to(device), given.to(device), "triton").cpu()
    source = set(batch.float().unique().tolist())
    assert (set(result.unique().tolist()) <= source) == is_copy


@pytest.mark.slow  # of the fast ones, that of memory has such a batch
def test_copied_and_warped_images_share_a_batch(device):
    G_inv = warps(2, 3, 2).float()
    G_inv[1] = torch.eye(3)
    given = params(2, 3, 3, 2, ("warp", "color", "cutout"))
    given = AdaParams(G_inv=G_inv, C=given.C, cut_size=given.cut_size, cut_center=given.cut_center)
    assert_is_the_reference(images(2, 3, 3, 2), given, device)


@pytest.mark.parametrize(
    "A",
    [
        ((6, 0), (0, 0.2)),
        pytest.param(((0, 0), (0, 0)), marks=pytest.mark.slow),
        pytest.param(((1e-3, 0), (0, 1e-3)), marks=pytest.mark.slow),
        pytest.param(((1, 1), (1, 1)), marks=pytest.mark.slow),
    ],
)
def test_matrices_that_no_dice_draw_are_the_references(A, device):
    G_inv = torch.eye(3)[None].clone()
    G_inv[0, :2, :2] = torch.tensor(A)
    assert_is_the_reference(images(1, 1, 5, 4), AdaParams(G_inv=G_inv), device)


@pytest.mark.parametrize(
    "row, column, number",
    slow_but([(1, 1, -1e20)], [(0, 2, 1e30), (0, 0, 1e30), (1, 1, -1e20)]),
)
def test_numbers_beyond_all_measure_read_nothing_outside(row, column, number, device):
    G_inv = torch.eye(3)[None].clone()
    G_inv[0, row, column] = number
    x = images(1, 1, 4, 4, torch.float32).to(device).requires_grad_()
    result = ada_augment(x, AdaParams(G_inv=G_inv.to(device)), "triton")
    (gradient,) = torch.autograd.grad(result.sum(), x)
    assert torch.isfinite(result).all() and torch.isfinite(gradient).all()


ALONE = list(itertools.product([1, 3], [(one,) for one in STAGES if one != "warp"]))


@pytest.mark.parametrize(
    "channels, stages", slow_but([one for one in ALONE if one != (3, ("filter",))], ALONE)
)
def test_stages_alone_are_the_references(stages, channels, device):
    n, size = (1, (22, 23)) if "filter" in stages else (3, (6, 5))
    assert_is_the_reference(images(n, channels, *size), params(n, channels, *size, stages), device)


@pytest.mark.parametrize(
    "stages",
    [
        pytest.param(("filter", "cutout"), marks=pytest.mark.slow),
        ("color", "filter", "noise"),
        ("color", "noise", "cutout"),
    ],
)
def test_stages_without_a_warp_follow_each_other_as_in_the_reference(stages, device):
    n, size = (1, (23, 22)) if "filter" in stages else (2, (6, 5))
    assert_is_the_reference(images(n, 3, *size), params(n, 3, *size, stages), device)


@pytest.mark.slow
def test_all_stages_together_are_the_reference(device):
    assert_is_the_reference(images(2, 3, 22, 24), params(2, 3, 22, 24), device, 5e-5)


def test_groups_of_samples_that_share_scratch_are_the_reference(device, monkeypatch):
    from fastload.ops.ada.kernels import affine_warp_triton

    monkeypatch.setattr(affine_warp_triton, "SCRATCH_BYTES", 1)
    given = params(2, 1, 3, 2, ("warp", "noise"))
    assert_is_the_reference(images(2, 1, 3, 2), given, device)


VIEWS = {
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "every second column": lambda x: torch.cat([x, x], 3)[..., ::2],
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "one image expanded": lambda x: x[:1].expand(2, -1, -1, -1),
}


@pytest.mark.parametrize("view", slow_but(["every second column"], VIEWS))
def test_views_are_as_their_copies(view, device):
    n = 2 if "expanded" in view else 1
    batch = VIEWS[view](images(n, 3, 3, 2, torch.float32).to(device))
    given = params(n, 3, 3, 2, ("warp", "color")).to(device)
    expected = ada_augment(batch.contiguous(), given, "triton")
    assert torch.equal(ada_augment(batch, given, "triton"), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype, device):
    given = params(1, 3, 3, 2, ("warp", "color", "noise")).to(device)
    batch = images(1, 3, 3, 2, dtype).to(device)
    result = ada_augment(batch, given, "triton")
    exact = ada_augment(batch.cpu().double(), given.to("cpu"), "reference")
    unit = 2.0**-10 if dtype == torch.float16 else 2.0**-7  # the interpreter truncates to bfloat16
    assert result.dtype == dtype
    assert ((result.cpu().double() - exact).abs() <= unit * exact.abs() + 1e-5).all()


def test_r1_is_that_of_the_reference(device):
    """Forward, backward and double backward in one: the penalty's gradient for a linear discriminator."""
    given, batch = params(1, 3, 3, 2, ("warp", "color", "noise", "cutout")), images(1, 3, 3, 2)
    found = []
    for impl, kind, place in (("triton", torch.float32, device), ("reference", torch.float64, "cpu")):
        x, weight = (
            batch.to(place, kind).requires_grad_(),
            images(1, 3, 3, 2, seed=3).to(place, kind).requires_grad_(),
        )
        score = (ada_augment(x, given.to(place), impl) * weight).sum()
        (gradient,) = torch.autograd.grad(score, x, create_graph=True)
        (penalty,) = torch.autograd.grad(gradient.square().sum(), weight)
        found.append(penalty.cpu().double())
    assert (found[0] - found[1]).abs().max() < 1e-4 * found[1].abs().max()


@pytest.mark.slow
def test_the_adjoint_is_one_to_a_millionth(device):
    """<w, L v> = <L^T w, v>, of the kernels' own results, summed in float64."""
    given = params(1, 3, 4, 3, ("warp", "color")).to(device)
    v, w = (images(1, 3, 4, 3, torch.float32, seed).to(device) for seed in (1, 2))
    v.requires_grad_()
    out = ada_augment(v, given, "triton")
    offset = ada_augment(torch.zeros_like(v), given, "triton")
    (adjoint,) = torch.autograd.grad(out, v, w)
    out, offset, v, w, adjoint = (one.detach().double() for one in (out, offset, v, w, adjoint))
    off = (w * (out - offset)).sum() - (adjoint * v).sum()
    assert abs(off) < 1e-6 * adjoint.norm() * v.norm()


def test_only_parameters_are_kept_for_the_gradient(device):
    """What autograd keeps between the passes is the parameters, whatever the size of the images."""
    given = params(1, 3, 6, 5, ("warp", "color")).to(device)
    x = images(1, 3, 6, 5, torch.float32).to(device).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t
    ):
        ada_augment(x, given, "triton")
    assert max(kept) <= 40


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("seed", range(4))
def test_at_256_pixels_a_gpu_is_the_reference(seed, device, own_tiles):
    given, batch = params(8, 3, 256, 256, seed=seed), images(8, 3, 256, 256, seed=seed)
    given.G_inv[2:, :2, :2] = torch.tensor([((1.0, 0.0), (0.0, 1.0)), *AXES.values()])[:6]
    given.G_inv[2, :2, 2] = torch.tensor([7.0, -3.0])  # copied; then straight and turned ones
    assert_is_the_reference(batch, given, device, 3e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_cuda_graph_draws_anew_in_each_replay(device):
    from fastload.augment import AdaPipe

    pipe, plain = (AdaPipe.named("bgcfnc", p=0.8).to(device) for _ in range(2))
    x = images(8, 3, 64, 64, torch.float32).to(device)
    pipe(x)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = pipe(x)
    pipe.calls.zero_()
    for _ in range(3):
        graph.replay()
        assert torch.equal(out, plain(x))
    assert pipe.calls.item() == 3


@pytest.mark.parametrize(
    "stages", [("color", "noise"), pytest.param(("warp", "color", "noise"), marks=pytest.mark.slow)]
)
def test_modes_of_the_operator_are_what_their_names_say(stages, device):
    from fastload.ops.ada import registered

    given = params(1, 3, 3, 2, stages).to(device)
    x = images(1, 3, 3, 2, torch.float32).to(device)
    rows = given.rows(x)
    out = registered.ada(x, rows, given.noise_key, None, int(given.stages), ADJOINT, "triton")
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(ada_augment(x, given, "triton"), x, x.detach())
    assert torch.equal(out, gradient)
