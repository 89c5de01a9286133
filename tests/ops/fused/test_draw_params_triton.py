"""The Triton twin of draw_params against NumPy: bits, gates, orders equal, numbers and matrices close.

Covers transfer.py.
"""

import math

import numpy as np
import pytest
import torch

from fastload import rng
from fastload.ops.fused import augment_params as columns
from fastload.ops.fused.augment_params import COLUMNS, IDENTITY, Stage
from fastload.ops.fused.draw_params import _reference, draw_params
from fastload.ops.fused.draw_plan import DrawPlan, LinearDraw
from fastload.ops.fused.fused_augment import augment_rows
from fastload.rng import Purpose
from tests.quick import slow_but

triton = pytest.importorskip("triton", reason="Triton is not installed: its kernels cannot run")
import triton.language as tl  # noqa: E402

from fastload.ops.fused import draw_params_triton  # noqa: E402
from fastload.ops.philox_triton import halves, words_at  # noqa: E402

# The interpreter's NumPy warns of 1 / v0 where v0 is 0, also where no draw asks for it.
pytestmark = pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
SEEDS = [0, 1, 16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1]
POSITIONS = np.concatenate(
    [np.arange(20), 2**31 + np.arange(-3, 3), 2**32 + np.arange(-3, 40), [2**62 + 1, 2**63 - 1]]
).astype(np.int64)
EYE = np.eye(4)


def rotation(purpose, **options):
    terms = {"cos v0": [[1, 0, 0], [0, 1, 0]], "sin v0": [[0, -1, 0], [1, 0, 0]]}
    return LinearDraw(purpose, False, terms, first=(-math.pi, math.pi), **options)


def hue_rotation(purpose, **options):
    """About the gray axis: the part along it stays, the part across it turns."""
    along = np.full((3, 3), 1 / 3)
    turned = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    terms = {"1": along, "cos v0": np.eye(3) - along, "sin v0": turned}
    padded = {name: np.pad(matrix, ((0, 1), (0, 1))) for name, matrix in terms.items()}
    return LinearDraw(purpose, True, padded, first=(-math.pi, math.pi), **options)


def plan_of_everything(probability=0.6):
    """A geometry and a colour of each kind, alternating, so that every order of multiplication counts."""
    p = {"probability": probability}
    linear = (
        LinearDraw(Purpose.XFLIP, False, {"1": [[-1, 0, 0], [0, 1, 0]]}, **p),
        LinearDraw(Purpose.BRIGHTNESS, True, {"1": EYE, "v0": np.eye(4, k=3)}, first=(-0.3, 0.3), **p),
        LinearDraw(Purpose.SCALE, False, {"1/v0": [[1, 0, 0], [0, 1, 0]]}, first=(0.5, 2), **p),
        rotation(Purpose.ROTATE, **p),
        hue_rotation(20, **p),
        LinearDraw(
            Purpose.TRANSLATE, False,
            {"1": EYE[:2, :3], "v0": [[0, 0, 1], [0, 0, 0]], "v1": [[0, 0, 0], [0, 0, 1]]},
            first=(-20, 20), second=(-10, 10), **p,
        ),
        LinearDraw(2**31 + 2**23 + 1, True, {"v0": np.diag([1, 1, 1, 0])}, first=(0.5, 1.5), **p),
    )  # fmt: skip
    jitter = ((0.6, 1.4), (0.5, 1.7), (-0.3, 1.9), (-0.5, 0.5))
    return DrawPlan(linear, jitter=jitter, hsv=((-0.1, 0.1), (0.5, 2.0)), cutout=(probability, 0.4))


def on_device(plan, positions, seed, device):
    positions = torch.as_tensor(positions).to(device)
    return draw_params(plan, positions, seed, device=device, impl="triton").cpu().numpy()


@triton.jit(do_not_specialize=["purpose", "block", "seed_low", "seed_high"])
def _words_kernel(positions_ptr, words_ptr, purpose, block, seed_low, seed_high, BLOCK: tl.constexpr):
    lane = tl.arange(0, BLOCK)
    purpose = tl.zeros([BLOCK], tl.int32) + purpose
    w0, w1, w2, w3 = words_at(
        tl.load(positions_ptr + lane), purpose.to(tl.uint32), block, seed_low, seed_high
    )
    tl.store(words_ptr + lane * 4, w0)
    tl.store(words_ptr + lane * 4 + 1, w1)
    tl.store(words_ptr + lane * 4 + 2, w2)
    tl.store(words_ptr + lane * 4 + 3, w3)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_words_are_those_of_rng(seed, device):
    positions = POSITIONS[-64:]
    words = torch.empty(64, 4, dtype=torch.uint32, device=device)
    for purpose, block in [(Purpose.XFLIP, 0), (Purpose.COLOR_JITTER, 1), (2**31 - 1, 2**31 - 1)]:
        _words_kernel[(1,)](
            torch.from_numpy(positions).to(device), words, int(purpose), block,
            *halves(seed), BLOCK=64,
        )  # fmt: skip
        np.testing.assert_array_equal(words.cpu().numpy(), rng.bits(seed, positions, purpose, block))


@pytest.mark.parametrize("seed", slow_but([2**32, 2**64 - 1], [0, 2**31, 2**32, 2**64 - 1]))
def test_rows_are_the_reference(seed, device):
    plan = plan_of_everything()
    rows, expected = on_device(plan, POSITIONS, seed, device), _reference(plan, POSITIONS, seed)
    assert rows.shape == (len(POSITIONS), COLUMNS) and rows.dtype == np.float32
    orders, cut = slice(columns.ORDER, columns.ORDER + 4), columns.CUT_SIZE
    np.testing.assert_array_equal(rows[:, orders], expected[:, orders])
    np.testing.assert_array_equal(rows[:, cut], expected[:, cut])
    np.testing.assert_array_max_ulp(rows[:, columns.JITTER :], expected[:, columns.JITTER :], maxulp=4)
    for start, stop in [(columns.G_INV, columns.C), (columns.C, columns.JITTER)]:
        largest = np.abs(expected[:, start:stop]).max(1, keepdims=True)
        assert (np.abs(rows[:, start:stop] - expected[:, start:stop]) <= 2e-6 * largest).all()


@pytest.mark.parametrize("probability", slow_but([2.0**-24, 1.0], [0.0, 2.0**-24, 1 / 3, 1 - 2.0**-24, 1.0]))
def test_gates_are_equal_bit_for_bit(probability, device):
    """Each gate moves the image by another power of two, so that one number tells which were open."""
    terms = [{"1": [[1, 0, 2.0**k], [0, 1, 0]]} for k in range(8)]
    linear = [LinearDraw(k + 1, False, one, probability) for k, one in enumerate(terms)]
    plan = DrawPlan(tuple(linear), cutout=(probability, 0.25))
    positions = np.arange(90)
    rows = on_device(plan, positions, 3, device)
    np.testing.assert_array_equal(rows, _reference(plan, positions, 3))
    if probability in (0.0, 1.0):
        assert (rows[:, 2] == 255 * probability).all() and (
            rows[:, columns.CUT_SIZE] == probability / 4
        ).all()


def test_a_gate_opens_below_its_threshold_and_not_at_it(device):
    positions = np.arange(64)
    words = rng.bits(0, positions, Purpose.CUTOUT)[:, 0] >> 8
    at = float(words[7]) / 2**24
    for probability, is_open in [(at, False), (at + 2.0**-24, True)]:
        rows = on_device(DrawPlan(cutout=(probability, 0.5)), positions, 0, device)
        assert (rows[7, columns.CUT_SIZE] == 0.5) == is_open


def test_all_24_orders_come_and_are_the_reference(device):
    plan, positions = DrawPlan(jitter=((1.0, 1.0),) * 4), np.arange(400)
    rows = on_device(plan, positions, 5, device)
    np.testing.assert_array_equal(rows, _reference(plan, positions, 5))
    assert len(np.unique(rows[:, columns.ORDER : columns.ORDER + 4], axis=0)) == 24


def test_a_zero_that_nobody_divides_by_is_no_infinity(device):
    linear = (
        LinearDraw(1, False, {"1": [[0, 1, 0], [-1, 0, 0]]}),  # v0 is 0
        LinearDraw(2, True, {"1": EYE, "v1": np.eye(4, k=3)}, second=(0, 1)),
    )
    rows = on_device(DrawPlan(linear), POSITIONS, 9, device)
    assert np.isfinite(rows).all()
    np.testing.assert_array_equal(rows, _reference(DrawPlan(linear), POSITIONS, 9))


PARTS = [(), ("jitter",), ("hsv",), ("cutout",), ("linear",), ("hsv", "linear")]


@pytest.mark.parametrize(["parts"], slow_but([((),), (("hsv", "linear"),)], [(parts,) for parts in PARTS]))
def test_what_a_plan_does_not_have_stays_identity_and_zero(parts, device):
    whole = plan_of_everything()
    plan = DrawPlan(**{part: getattr(whole, part) for part in parts})
    rows, expected = on_device(plan, POSITIONS, 4, device), _reference(plan, POSITIONS, 4)
    np.testing.assert_allclose(rows, expected, rtol=0, atol=2e-6 * np.abs(expected).max())
    np.testing.assert_array_equal(rows == 0, expected == 0)


@pytest.mark.parametrize("count", slow_but([0, 33], [0, 1, 32, 33]))
def test_a_position_has_the_same_row_in_every_batch(count, device):
    plan, seed = plan_of_everything(), 2**40 + 7
    positions = torch.from_numpy(POSITIONS)
    whole = torch.from_numpy(on_device(plan, positions, seed, device))
    part = on_device(plan, positions[:count], seed, device)
    np.testing.assert_array_equal(part, whole[:count])
    strided = draw_params_triton.launch(plan, positions.flip(0).to(device)[: 2 * count : 2], seed)
    assert torch.equal(strided.cpu(), whole.flip(0)[: 2 * count : 2])


@pytest.mark.parametrize("seed", SEEDS)
def test_the_words_of_a_seed_are_int32_of_the_same_bits(seed):
    words = halves(seed)
    assert all(-(2**31) <= word < 2**31 for word in words)
    assert (words[0] % 2**32) + (words[1] % 2**32 << 32) == seed


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA: nothing is compiled")
def test_another_seed_batch_or_list_of_draws_compiles_nothing(device):
    def compiled():
        return len(draw_params_triton._kernel.device_caches[torch.cuda.current_device()][0])

    plan = plan_of_everything()
    on_device(plan, POSITIONS, 3, device)
    before = compiled()
    shorter = DrawPlan(plan.linear[:1], jitter=plan.jitter, hsv=plan.hsv, cutout=plan.cutout)
    for seed in SEEDS:
        on_device(shorter, POSITIONS, seed, device)
        on_device(plan, POSITIONS[:16], seed, device)
        on_device(plan, POSITIONS[:1], seed, device)
    assert compiled() == before


def test_drawn_rows_are_what_fused_augment_applies(device):
    plan, positions = plan_of_everything(), np.arange(6) + 2**34
    images = torch.randint(0, 256, (6, 20, 28, 3), dtype=torch.uint8, device=device)
    rows = draw_params(plan, positions, 11, device=device, impl="triton")
    out = torch.empty(6, 3, 20, 28, device=device)
    augment_rows(images, rows, plan.stages, IDENTITY, out, impl="triton")
    exact = torch.empty(6, 3, 20, 28, dtype=torch.float64)
    augment_rows(images.cpu(), rows.cpu(), plan.stages, IDENTITY, exact, impl="reference")
    assert plan.stages == Stage(63)
    # Up to 2^-22 of 28 pixels, made twice as steep by each of matrix, jitter and saturation.
    torch.testing.assert_close(out.cpu().double(), exact, rtol=0, atol=8 * 28 * 2.0**-22)
