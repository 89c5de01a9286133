"""Both twins of move_pixels against NumPy's flips, turns and reflecting pad; the adjoint against torch's.

Covers move_columns.py and move_pixels_triton.py.
"""

import numpy as np
import pytest
import torch

from fastload.errors import ConfigError
from fastload.ops.move.move_pixels import move_pixels, move_rows
from tests.quick import slow_but

pytest.importorskip("triton", reason="Triton is not installed: its kernels cannot run")

each_twin = pytest.mark.parametrize("impl", ["reference", "triton"])
SIZES = [(1, 1), (1, 6), (7, 1), (2, 2), (2, 5), (3, 3), (33, 31), (32, 32), (40, 70)]
QUICK_SIZES = [(size,) for size in SIZES if size not in ((33, 31), (32, 32))]


def integers(*values, shape=(-1,)):
    return torch.tensor(values, dtype=torch.int32).reshape(shape)


def random_moves(n, height, width, seed=0, most=3):
    """Shifts of up to `most` sides; turns where images are square."""
    generator = torch.Generator().manual_seed(seed)

    def one(low, high):
        return torch.randint(low, high, (n,), generator=generator, dtype=torch.int32)

    moves = {"xflip": one(0, 2), "yflip": one(0, 2)}
    if height == width:
        moves["rotate"] = one(0, 4)
    x, y = one(-most * width, most * width + 1), one(-most * height, most * height + 1)
    return moves | {"shift": torch.stack([x, y], 1)}


def random_images(n, channels, height, width, seed=0):
    return torch.randn(n, channels, height, width, generator=torch.Generator().manual_seed(seed))


def with_numpy(images, moves):
    """One step after the other, image by image."""
    results = []
    for n, image in enumerate(np.asarray(images.cpu())):
        of_image = {name: np.asarray(one[n].cpu()) for name, one in moves.items()}
        image = image.transpose(1, 2, 0)
        if of_image.get("xflip"):
            image = np.fliplr(image)
        if of_image.get("yflip"):
            image = np.flipud(image)
        image = np.rot90(image, int(of_image.get("rotate", 0)))
        x, y = (int(one) for one in of_image.get("shift", (0, 0)))
        height, width = image.shape[:2]
        padded = np.pad(image, ((abs(y), abs(y)), (abs(x), abs(x)), (0, 0)), mode="reflect")
        top, left = abs(y) + y, abs(x) - x
        results.append(padded[top : top + height, left : left + width].transpose(2, 0, 1))
    return torch.from_numpy(np.stack(results))


def moved(images, moves, device, impl):
    return move_pixels(images.to(device), **{k: v.to(device) for k, v in moves.items()}, impl=impl)


@each_twin
@pytest.mark.parametrize(["size"], slow_but(QUICK_SIZES, ((size,) for size in SIZES)))
def test_all_moves_together_are_numpys(size, impl, device):
    images, moves = random_images(7, 3, *size), random_moves(7, *size)
    result = moved(images, moves, device, impl)
    assert torch.equal(result.cpu(), with_numpy(images, moves)) and result.is_contiguous()


ALONE = {
    "xflip": {"xflip": integers(0, 1, 1, 0)},
    "yflip": {"yflip": integers(1, 0, 1, 0)},
    "rotate": {"rotate": integers(0, 1, 2, 3)},
    "shift x": {"shift": integers(0, 0, 1, 0, -3, 0, 4, 0, shape=(4, 2))},
    "shift y": {"shift": integers(0, 0, 0, 1, 0, -3, 0, 4, shape=(4, 2))},
    "nothing": {},
}


@each_twin
@pytest.mark.parametrize("move", ALONE)
def test_each_move_alone_is_numpys(move, impl, device):
    images = random_images(4, 2, 5, 5)
    assert torch.equal(moved(images, ALONE[move], device, impl).cpu(), with_numpy(images, ALONE[move]))


@each_twin
def test_all_16_flips_and_turns_are_numpys(impl, device):
    code = torch.arange(16, dtype=torch.int32)
    moves = {"xflip": code & 1, "yflip": code >> 1 & 1, "rotate": code >> 2}
    images = random_images(16, 1, 4, 4)
    assert torch.equal(moved(images, moves, device, impl).cpu(), with_numpy(images, moves))


@each_twin
def test_a_shift_goes_right_and_up(impl, device):
    image = torch.arange(20).reshape(1, 1, 4, 5)
    result = moved(image, {"shift": integers(1, 2, shape=(1, 2))}, device, impl)[0, 0]
    assert result[0].tolist() == [11, 10, 11, 12, 13]  # row 2, column 1 mirrored in before column 0
    assert result[:, 1].tolist() == [10, 15, 10, 5]


@each_twin
def test_turns_count_modulo_four_and_shifts_modulo_their_period(impl, device):
    images = random_images(4, 1, 5, 5)
    far = {
        "rotate": integers(4, -1, 7, -(2**31)),
        "shift": integers(8, -8, 2**31 - 1, -(2**31), 1, 800, 3, 3, shape=(4, 2)),
    }
    near = {"rotate": integers(0, 3, 3, 0), "shift": integers(0, 0, 7, 0, 1, 0, 3, 3, shape=(4, 2))}
    assert torch.equal(moved(images, far, device, impl).cpu(), with_numpy(images, near))


@pytest.mark.parametrize(
    "dtype", ["uint8", "bool", "int16", "int64", "float16", "bfloat16", "float64", "complex64"]
)
def test_every_dtype_is_copied_bit_for_bit(dtype, device):
    dtype = getattr(torch, dtype)
    images = (random_images(3, 3, 6, 6) * 40).to(dtype)
    moves = random_moves(3, 6, 6)
    expected = with_numpy(images.float() if dtype == torch.bfloat16 else images, moves)
    for impl in ("reference",) if dtype.is_complex else ("reference", "triton"):
        result = moved(images, moves, device, impl)
        assert result.dtype == dtype and torch.equal(result.cpu().to(expected.dtype), expected)


@each_twin
def test_what_is_no_number_keeps_its_bits(impl, device):
    patterns = torch.arange(-50, 50, dtype=torch.int32).reshape(
        1, 1, 10, 10
    )  # half of them are NaN as floats
    moves = random_moves(1, 10, 10)
    result = moved(patterns.view(torch.float32), moves, device, impl)
    assert torch.equal(result.cpu().view(torch.int32), with_numpy(patterns, moves))


VIEWS = {
    "every second row": lambda images: images[:, :, ::2],
    "a cropped batch": lambda images: images[1:, :, 3:, 2:],
    "channels last": lambda images: images.contiguous(memory_format=torch.channels_last),
    "transposed": lambda images: images.transpose(2, 3),
    "one image expanded": lambda images: images[:1].expand(3, -1, -1, -1),
    "batch innermost": lambda images: images.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
}


@each_twin
@pytest.mark.parametrize("view", VIEWS)
def test_views_are_as_their_copies(view, impl, device):
    images = VIEWS[view](random_images(4, 3, 12, 9))
    moves = random_moves(len(images), *images.shape[2:])
    assert torch.equal(moved(images, moves, device, impl).cpu(), with_numpy(images, moves))


@each_twin
def test_rows_may_be_columns_of_a_larger_table(impl, device):
    images, moves = random_images(3, 2, 6, 6), random_moves(3, 6, 6)
    table = torch.full((3, 40), 77, dtype=torch.int32)
    for column, name in enumerate(("xflip", "yflip", "rotate")):
        table[:, 35 + column] = moves[name]
    table[:, 38:] = moves["shift"]
    result = move_rows(images.to(device), table.to(device)[:, 35:], impl)
    assert torch.equal(result.cpu(), with_numpy(images, moves))


def gradients(images, moves, weights, device, impl):
    images = images.to(device).requires_grad_()
    return torch.autograd.grad(moved(images, moves, device, impl), images, weights.to(device))[0].cpu()


@pytest.mark.parametrize(["size"], slow_but(QUICK_SIZES, ((size,) for size in SIZES)))
def test_the_adjoint_is_what_torch_makes_of_the_reference(size, device):
    images, moves = random_images(6, 2, *size), random_moves(6, *size, seed=1)
    weights = torch.round(random_images(6, 2, *size, seed=2) * 100)  # whole numbers add up exactly
    expected = gradients(images, moves, weights, device, "reference")
    assert torch.equal(gradients(images, moves, weights, device, "triton"), expected)


@pytest.mark.parametrize("n", slow_but([1, 2, 3, 4], [1, 2, 3, 4, 7]))
def test_the_adjoint_of_every_shift_is_what_torch_makes_of_the_reference(n, device):
    """Two periods of them, along both axes at once."""
    shifts = torch.arange(-2 * n, 2 * n, dtype=torch.int32)
    moves = {"shift": torch.stack([shifts, shifts.flip(0)], 1)}
    images = torch.zeros(len(shifts), 1, n + 2, n)
    weights = torch.randint(1, 100, images.shape, generator=torch.Generator().manual_seed(n)).float()
    expected = gradients(images, moves, weights, device, "reference")
    assert torch.equal(gradients(images, moves, weights, device, "triton"), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_gradients_of_other_floats_are_summed_before_they_are_rounded(dtype, device):
    images, moves = random_images(4, 3, 6, 6).to(dtype), random_moves(4, 6, 6)
    weights = random_images(4, 3, 6, 6, seed=3).to(dtype)
    exact = gradients(images.double(), moves, weights.double(), device, "reference")
    result = gradients(images, moves, weights, device, "triton")
    # Half a unit in the last place; Triton's interpreter cuts bfloat16 off instead. Sums of four, so far as
    # float32 rounds them where they cancel.
    cuts_off = dtype == torch.bfloat16 and device.type == "cpu"
    rounding = torch.finfo(dtype).eps / (1 if cuts_off else 2)
    atol = 1e-15 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(result.double(), exact, rtol=rounding, atol=atol)


def test_gradients_of_gradients_are_moves_again(device):
    moves = {name: one.to(device) for name, one in random_moves(3, 5, 5).items()}
    images, weights, v, u = (
        torch.round(random_images(3, 2, 5, 5, seed) * 50).to(device).requires_grad_() for seed in range(4)
    )
    result = move_pixels(images, **moves, impl="triton")
    (adjoint,) = torch.autograd.grad(result, images, weights, create_graph=True)
    (linear,) = torch.autograd.grad(adjoint, weights, v, create_graph=True)
    (third,) = torch.autograd.grad(linear, v, u)
    assert torch.equal(linear, move_pixels(v, **moves, impl="reference"))
    assert (weights * linear).sum() == (adjoint * v).sum()  # whole numbers below 2^24
    expected = torch.autograd.grad(move_pixels(images, **moves, impl="reference"), images, u)[0]
    assert torch.equal(third, expected)


def test_the_reference_is_differentiable_twice():
    images, moves = random_images(2, 1, 3, 3).double().requires_grad_(), random_moves(2, 3, 3)
    assert torch.autograd.gradcheck(lambda x: move_pixels(x, **moves), images)
    assert torch.autograd.gradgradcheck(lambda x: move_pixels(x, **moves), images)


def test_the_operator_is_what_torch_compile_takes_it_for(device):
    from fastload.ops.move import registered

    images = random_images(2, 3, 6, 6).to(device).requires_grad_()
    rows = torch.ones(2, 5, dtype=torch.int32, device=device)
    for mode in (1, 2):
        torch.library.opcheck(
            registered.move_pixels, (images, rows, mode),
            test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
        )  # fmt: skip


def test_a_batch_beyond_the_limit_of_a_grid_is_done_in_parts(device, monkeypatch):
    from fastload.ops import tiles_triton

    monkeypatch.setattr(tiles_triton, "MAX_IMAGES", 2)
    images, moves = random_images(5, 3, 4, 6), random_moves(5, 4, 6)
    assert torch.equal(moved(images, moves, device, "triton").cpu(), with_numpy(images, moves))


def test_offsets_beyond_31_bits_within_an_image_are_right(device):
    row = 2**31 - 2**20
    memory = torch.empty(
        2 * row + 64, dtype=torch.uint8, device=device
    )  # on the CPU only what is written exists
    small = (random_images(1, 3, 3, 4) * 50).to(torch.uint8)
    images = memory.as_strided((1, 3, 3, 4), (0, 4, row, 1)).copy_(small)
    moves = random_moves(1, 3, 4)
    assert torch.equal(moved(images, moves, device, "triton").cpu(), with_numpy(small, moves))


@each_twin
def test_no_images_and_no_pixels_stay_so(impl, device):
    assert moved(torch.zeros(0, 3, 4, 4), random_moves(0, 4, 4), device, impl).shape == (0, 3, 4, 4)
    assert moved(torch.zeros(2, 3, 0, 4), {"xflip": integers(0, 1)}, device, impl).shape == (2, 3, 0, 4)


REFUSED = {
    "no square": ((2, 3, 4, 5), {"rotate": integers(1, 0)}, "4x5 pixels cannot be rotated"),
    "three axes": ((3, 4, 4), {}, r"give \[N, C, H, W\]"),
    "a shape": ((2, 3, 4, 4), {"shift": integers(1, 0)}, r"shift is \[2\]: give a tensor \[2, 2\]"),
    "int64": ((2, 3, 4, 4), {"xflip": torch.tensor([0, 1])}, "xflip is of torch.int64: give int32"),
    "a number": ((2, 3, 4, 4), {"yflip": 1}, "yflip is 1:"),
    "elsewhere": ((2, 3, 4, 4), {"yflip": integers(1, 1).to("meta")}, "yflip is on meta, not on cpu"),
    "impl": ((2, 3, 4, 4), {"impl": "native"}, "impl='native'"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_arguments_that_do_not_fit_are_refused(fault):
    shape, arguments, message = REFUSED[fault]
    with pytest.raises(ConfigError, match=message):
        move_pixels(torch.zeros(shape), **arguments)


def test_complex_numbers_are_refused_by_triton(device):
    with pytest.raises(ConfigError, match='complex64 are for impl="reference"'):
        move_pixels(torch.zeros(1, 1, 2, 2, dtype=torch.complex64, device=device), impl="triton")
