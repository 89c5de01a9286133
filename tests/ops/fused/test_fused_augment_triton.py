"""The Triton twin of fused_augment against the float64 reference, at the tolerances of the contract.

Covers augment_stages_triton.py and tiles_triton.py.
"""

import itertools

import pytest
import torch

from fastload.ops.fused.augment_params import IDENTITY, AugmentParams, Stage
from fastload.ops.fused.fused_augment import augment_rows, fused_augment
from tests.quick import slow_but

pytest.importorskip("triton", reason="Triton is not installed: its kernels cannot run")

STAGES = {
    "warp": ("G_inv",),
    "jitter": ("jitter", "order"),
    "matrix": ("C",),
    "hsv": ("hsv",),
    "cutout": ("cut_size", "cut_center"),
}
WORDS, BYTES = (12, 44), (17, 47)  # rows that are read in words of four bytes, and rows that cannot be


def random_images(n, height, width, channels, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, height, width, channels), dtype=torch.uint8, generator=generator)


def random_params(n, stages=tuple(STAGES), seed=0):
    """Parameters of a strong augmentation; every third geometry is a mirror image."""
    generator = torch.Generator().manual_seed(seed)

    def within(low, high, *shape):
        return low + torch.rand(*shape, generator=generator) * (high - low)

    G_inv = torch.eye(3).repeat(n, 1, 1)
    G_inv[:, :2] += within(-1, 1, n, 2, 3) * torch.tensor([0.4, 0.4, 9.0])
    G_inv[1::3] = torch.diag(torch.tensor([-1.0, 1.0, 1.0]))
    orders = torch.tensor(list(itertools.permutations(range(4))))
    C = torch.eye(4) + within(-0.25, 0.25, n, 4, 4)
    given = {
        "G_inv": G_inv,
        "jitter": torch.cat([within(0.5, 1.5, n, 3), within(-0.5, 0.5, n, 1)], 1),
        "order": orders[torch.randint(0, 24, (n,), generator=generator)],
        "C": C,
        "hsv": torch.stack([within(-0.5, 0.5, n), within(0, 3, n)], 1),
        "cut_size": within(0, 0.8, n),
        "cut_center": within(0, 1, n, 2),
    }
    return AugmentParams(**{name: given[name] for stage in stages for name in STAGES[stage]})


def tolerance(images, params):
    """The contract's: 2e-6, and what float32 coordinates add where values change by 1 along both axes."""
    return 2e-6 + (2 * 2.0**-22 * max(images.shape[1:3]) if params.G_inv is not None else 0.0)


def triton_and_reference(images, params, device, **options):
    result = fused_augment(images.to(device), params.to(device), impl="triton", **options)
    exact = options | {"dtype": "float64"}
    return result.cpu(), fused_augment(images.cpu(), params, impl="reference", **exact)


def assert_is_the_reference(images, params, device, **options):
    options.setdefault("dtype", "float32")
    result, exact = triton_and_reference(images, params, device, **options)
    torch.testing.assert_close(result.double(), exact, rtol=0, atol=tolerance(images, params))


ALONE = list(itertools.product(["nothing", *STAGES], [1, 3], [WORDS, BYTES]))
QUICK_ALONE = [case for case in ALONE if case[1:] in ((1, BYTES), (3, WORDS))]


@pytest.mark.parametrize("stage, channels, size", slow_but(QUICK_ALONE, ALONE))
def test_every_stage_alone_is_the_reference(stage, channels, size, device):
    stages = () if stage == "nothing" else (stage,)
    assert_is_the_reference(random_images(5, *size, channels), random_params(5, stages), device)


SUBSETS = [chosen for count in range(2, 6) for chosen in itertools.combinations(STAGES, count)]


QUICK_NUMBERS = [number for number, chosen in enumerate(SUBSETS) if len(chosen) > 3 or number % 4 == 0]


@pytest.mark.parametrize(
    "number",
    slow_but(QUICK_NUMBERS, range(len(SUBSETS))),
    ids=["+".join(chosen) for chosen in SUBSETS],
)
def test_stages_together_are_the_reference(number, device):
    n, size = (1, BYTES) if number % 2 else (3, WORDS)
    params = random_params(n, SUBSETS[number], seed=number)
    assert_is_the_reference(random_images(n, *size, 3, seed=number), params, device)


@pytest.mark.parametrize("channels", slow_but([3], [1, 3]))
def test_all_24_orders_of_the_jitter_are_the_reference(channels, device):
    params = random_params(24, ("jitter",))
    params.order[:] = torch.tensor(list(itertools.permutations(range(4))))
    assert_is_the_reference(random_images(24, 6, 8, channels), params, device)


ODD = [(1, 1), (1, 7), (7, 1), (2, 2), (31, 37), (33, 47), (1, 139), (40, 64)]
QUICK_ODD = [((1, 1), 3), ((1, 7), 1), ((7, 1), 3), ((2, 2), 3), ((33, 47), 3), ((1, 139), 1)]


@pytest.mark.parametrize("size, channels", slow_but(QUICK_ODD, itertools.product(ODD, [1, 3])))
def test_odd_sizes_with_all_stages_are_the_reference(size, channels, device):
    assert_is_the_reference(random_images(2, *size, channels), random_params(2, seed=3), device)


def test_the_mean_over_more_tiles_than_partial_sums_is_the_reference(device, monkeypatch):
    from fastload.ops.fused import fused_augment_triton

    monkeypatch.setattr(fused_augment_triton, "SPLITS", 3)
    images, params = random_images(2, 40, 160, 3), random_params(2, ("jitter",))
    result, exact = triton_and_reference(images, params, device, dtype="float32")
    torch.testing.assert_close(result.double(), exact, rtol=0, atol=tolerance(images, params))
    again = fused_augment(images.to(device), params.to(device), impl="triton", dtype="float32").cpu()
    assert torch.equal(result, again), "sums in another order"


def test_a_jitter_without_contrast_needs_no_mean(device):
    images, params = random_images(3, *WORDS, 3), random_params(3, ("jitter",))
    params.jitter[:, 1] = 1
    rows = params.rows(3, device)
    out = torch.empty(3, 3, *WORDS, device=device)
    augment_rows(images.to(device), rows, Stage.JITTER, IDENTITY, out, impl="triton")
    exact = fused_augment(images, params, dtype="float64", impl="reference")
    torch.testing.assert_close(out.cpu().double(), exact, rtol=0, atol=2e-6)


VIEWS = {
    "every second row": lambda images: images[:, ::2],
    "every third column": lambda images: images[:, :, ::3],
    "a cropped batch": lambda images: images[1:, 3:, 4:, :],
    "a cropped batch at odd columns": lambda images: images[1:, 3:, 5:, :],
    "channels first": lambda images: images.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
    "transposed": lambda images: images.transpose(1, 2),
    "one image expanded": lambda images: images[:1].expand(3, -1, -1, -1),
    "batch innermost": lambda images: images.permute(3, 1, 2, 0).contiguous().permute(3, 1, 2, 0),
}


QUICK_VIEWS = [
    ("every third column", torch.uint8),
    ("a cropped batch", torch.uint8),
    ("a cropped batch at odd columns", torch.uint8),
    ("transposed", torch.float32),
    ("one image expanded", torch.float32),
    ("batch innermost", torch.uint8),
]


@pytest.mark.parametrize(
    "view, dtype", slow_but(QUICK_VIEWS, itertools.product(VIEWS, [torch.uint8, torch.float32]))
)
def test_views_are_as_their_copies(view, dtype, device):
    images = random_images(4, *WORDS, 3).to(device)
    images = images if dtype == torch.uint8 else images.to(dtype) / 255
    images = VIEWS[view](images)
    params = random_params(len(images), ("warp", "matrix")).to(device)
    result = fused_augment(images, params, dtype="float32", impl="triton")
    copied = fused_augment(
        images.clone(memory_format=torch.contiguous_format), params, dtype="float32", impl="triton"
    )
    # Words and bytes are other loads, and may be other instructions behind them.
    torch.testing.assert_close(result, copied, rtol=0, atol=2e-7)


FLOATS = list(itertools.product([torch.float32, torch.float16, torch.float64], [1, 3]))
QUICK_FLOATS = [(torch.float32, 3), (torch.float16, 1), (torch.float64, 3)]


@pytest.mark.parametrize("dtype, channels", slow_but(QUICK_FLOATS, FLOATS))
def test_floats_are_the_reference(channels, dtype, device):
    images = (random_images(2, *BYTES, channels) / 255).to(dtype)
    assert_is_the_reference(images, random_params(2), device)


def test_only_aligned_rows_are_read_in_words(device):
    """An unaligned word is an error on a GPU; the interpreter's CPU would read it."""
    from fastload.ops.fused.fused_augment_triton import _is_read_in_words

    images = random_images(3, 12, 48, 3).to(device)
    odd_rows, odd_images = random_images(3, 12, 47, 3).to(device), random_images(3, 5, 46, 3).to(device)
    in_words = {
        "whole": (images, True),
        "from column 4": (images[:, :, 4:], True),
        "a start at byte 3": (images[:, :, 1:41], False),
        "41 columns": (images[:, :, :41], False),
        "rows of 141 bytes": (odd_rows[:, :, :44], False),
        "images of 690 bytes": (odd_images[:, ::2, :44], False),
        "every second column": (images[:, :, ::2], False),
        "floats": (images.float(), False),
    }
    for name, (view, expected) in in_words.items():
        assert _is_read_in_words(view) == expected, name
        result = fused_augment(view, dtype=view.dtype, impl="triton")
        assert torch.equal(result, view.permute(0, 3, 1, 2)), name


def test_offsets_beyond_31_bits_within_an_image_are_right(device):
    row = 2**31 - 2**20
    memory = torch.empty(
        2 * row + 64, dtype=torch.uint8, device=device
    )  # on the CPU only what is written exists
    images = memory.as_strided((1, 3, 4, 3), (0, row, 3, 1))
    small = random_images(1, 3, 4, 3).to(device)
    images.copy_(small)
    for view in (images, images[:, :, 1:3]):
        result = fused_augment(view, dtype="uint8", impl="triton")
        assert torch.equal(result, view.contiguous().permute(0, 3, 1, 2))


def test_a_batch_beyond_the_limit_of_a_grid_is_done_in_parts(device, monkeypatch):
    from fastload.ops import tiles_triton

    monkeypatch.setattr(tiles_triton, "MAX_IMAGES", 2)
    assert_is_the_reference(random_images(5, *WORDS, 3), random_params(5), device)


@pytest.mark.parametrize("size", [WORDS, BYTES, (5, 300)])
def test_mirror_images_are_exact(size, device):
    images = random_images(4, *size, 3).to(device)
    G_inv = torch.eye(3, device=device).repeat(4, 1, 1)
    G_inv[:, 0, 0] = torch.tensor([1, -1, 1, -1])
    G_inv[:, 1, 1] = torch.tensor([1, 1, -1, -1])
    result = fused_augment(images, AugmentParams(G_inv=G_inv), impl="triton").permute(0, 2, 3, 1)
    expected = [images[0], images[1].flip(1), images[2].flip(0), images[3].flip(0, 1)]
    assert result.dtype == torch.uint8
    assert torch.equal(result, torch.stack(expected))


@pytest.mark.parametrize("filter", ["bilinear", "nearest"])
@pytest.mark.parametrize("size", [(9, 13), (2, 5), (1, 4)])
def test_beyond_the_edge_an_image_goes_on_as_its_mirror_image(size, filter, device):
    height, width = size
    images = random_images(6, *size, 3)
    shifts = torch.tensor([[1, 0], [-3, 2], [width, -height], [-width, 1], [40, -33], [0, 100]])
    G_inv = torch.eye(3).repeat(6, 1, 1)
    G_inv[:, :2, 2] = shifts.float()
    params = AugmentParams(G_inv=G_inv)
    result = fused_augment(images.to(device), params.to(device), filter=filter, impl="triton").cpu()

    def reflected(place, side):
        place = place % max(2 * (side - 1), 1)
        return torch.minimum(place, 2 * (side - 1) - place) if side > 1 else torch.zeros_like(place)

    for number, (dx, dy) in enumerate(shifts):
        rows = reflected(torch.arange(height) + dy, height)
        columns = reflected(torch.arange(width) + dx, width)
        expected = images[number][rows][:, columns].permute(2, 0, 1)
        assert torch.equal(result[number], expected), (dx, dy)


def test_nearest_is_the_reference_where_float32_is_exact(device):
    images = random_images(5, 24, 40, 3)
    G_inv = torch.eye(3).repeat(5, 1, 1)
    G_inv[:, :2] = (
        torch.tensor(  # multiples of 1/8: no place is rounded, none lies halfway between two pixels
            [
                [[0, 1, 0.125], [-1, 0, 0.25]],
                [[0.5, 0, 0.125], [0, 0.5, -3.375]],
                [[1.5, 0.25, 7.0625], [-0.25, 1.5, 0.0625]],
                [[3, 0, 0.125], [0, -3, 0.125]],
                [[-0.5, 0.75, 50.0625], [0.75, 0.5, -70.0625]],
            ]
        )
    )
    result, exact = triton_and_reference(
        images, AugmentParams(G_inv=G_inv), device, filter="nearest", dtype="float32"
    )
    torch.testing.assert_close(result.double(), exact, rtol=0, atol=2e-6)


def test_nearest_with_all_stages_is_the_reference_but_for_pixels_halfway(device):
    images, params = (
        random_images(3, *BYTES, 3),
        random_params(3, ("warp", "matrix", "hsv", "cutout"), seed=1),
    )
    result, exact = triton_and_reference(images, params, device, filter="nearest", dtype="float32")
    # A place that float32 rounds to the other side of a half shows the neighbour: 2^-22 * 47 pixels, 2 axes.
    assert ((result - exact).abs() > 2e-6).double().mean() < 1e-3


@pytest.mark.parametrize("normalize", [None, "gan", "imagenet"])
@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_floats_come_out_normalized_and_rounded_once(dtype, layout, normalize, device):
    images, params = random_images(2, *WORDS, 3), random_params(2, ("matrix", "cutout"))
    result, exact = triton_and_reference(
        images, params, device, dtype=dtype, layout=layout, normalize=normalize
    )
    form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    assert result.dtype == getattr(torch, dtype) and result.is_contiguous(memory_format=form)
    # A number is rounded by half a unit in the last place; Triton's interpreter cuts bfloat16 off instead.
    cuts_off = dtype == "bfloat16" and device.type == "cpu"
    rounding = torch.finfo(result.dtype).eps / (1 if cuts_off else 2)
    # imagenet's range [0, 1] is 1 / 0.224 wide.
    torch.testing.assert_close(result.double(), exact, rtol=rounding, atol=2e-6 * 4.5)


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_differ_by_one_at_most(channels, layout, device):
    images, params = random_images(3, *WORDS, channels), random_params(3)
    result = fused_augment(images.to(device), params.to(device), layout=layout, impl="triton").cpu()
    expected = fused_augment(images, params, layout=layout, impl="reference")
    assert result.dtype == torch.uint8 and result.stride() == expected.stride()
    difference = (result.int() - expected.int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).double().mean() < 2e-3  # only where 255 v + 1/2 is an integer to float32


def test_pixels_and_floats_that_nothing_changes_stay_as_they_are(device):
    every_level = torch.arange(256, dtype=torch.uint8, device=device).reshape(1, 8, 32, 1).repeat(1, 1, 1, 3)
    result = fused_augment(every_level, impl="triton")
    assert torch.equal(result, every_level.permute(0, 3, 1, 2))
    floats = torch.rand(1, 8, 32, 3, device=device)
    assert torch.equal(fused_augment(floats, impl="triton"), floats.permute(0, 3, 1, 2))


def test_pixels_beyond_the_range_are_clamped(device):
    floats = torch.tensor([-1.0, -0.001, 0.0, 1.0, 1.001, 300.0], device=device).reshape(1, 1, 6, 1)
    result = fused_augment(floats, dtype="uint8", impl="triton")
    assert result.flatten().tolist() == [0, 0, 0, 255, 255, 255]


def test_gray_pixels_have_no_hue_and_no_saturation_to_change(device):
    images = random_images(2, *WORDS, 1).expand(-1, -1, -1, 3)
    assert_is_the_reference(images, random_params(2, ("jitter", "hsv")), device)
    unchanged, _ = triton_and_reference(images, random_params(2, ("hsv",)), device, dtype="float32")
    torch.testing.assert_close(unchanged, images.permute(0, 3, 1, 2) / 255, rtol=0, atol=2e-7)


@pytest.mark.parametrize("turns", [0.0, 1 / 3, -1 / 3, 0.5, -0.5, 1.0, 2.25])
def test_the_hue_of_pure_colours_turns_to_the_next_ones(turns, device):
    colours = torch.tensor(
        [[255, 0, 0], [255, 255, 0], [0, 255, 0], [0, 255, 255], [0, 0, 255], [255, 0, 255]]
    )
    images = colours.to(torch.uint8).reshape(1, 1, 6, 3)
    params = AugmentParams(hsv=torch.tensor([[turns, 1.0]]))
    assert_is_the_reference(images, params, device)
    if turns == 1 / 3:
        result = fused_augment(images.to(device), params.to(device), impl="triton")
        assert torch.equal(result[0, :, 0].T.cpu(), colours.roll(-2, 0).to(torch.uint8))


def test_a_cut_out_square_is_zero_in_the_result(device):
    images = torch.full((3, 8, 16, 3), 200, dtype=torch.uint8, device=device)
    center = torch.tensor([[0.5, 0.5], [0.0, 1.0], [0.5, 0.5]], device=device)
    params = AugmentParams(cut_size=torch.tensor([0.5, 0.5, 0.0], device=device), cut_center=center)
    cut = fused_augment(images, params, normalize="gan", impl="triton") == 0
    expected = torch.zeros(3, 8, 16, dtype=torch.bool, device=device)
    expected[0, 2:6, 4:12] = True
    expected[1, 6:, :4] = True
    assert torch.equal(cut, expected[:, None].expand(-1, 3, -1, -1))


def test_places_that_are_no_numbers_show_some_pixel_of_the_image(device):
    images = torch.full((3, 8, 16, 3), 200, dtype=torch.uint8, device=device)
    G_inv = torch.eye(3, device=device).repeat(3, 1, 1)
    G_inv[0, 0, 0], G_inv[1, 1, 2], G_inv[2, 0, 2] = float("nan"), float("inf"), 1e30
    rows = AugmentParams(G_inv=G_inv).rows(3, device)  # on the CPU `fused_augment` would refuse them
    result = torch.empty(3, 3, 8, 16, device=device)
    for filter in ("bilinear", "nearest"):
        augment_rows(images, rows, Stage.WARP, IDENTITY, result, filter=filter, impl="triton")
    assert result.shape == (3, 3, 8, 16)
    assert torch.allclose(result[2], torch.tensor(200 / 255, device=device))
