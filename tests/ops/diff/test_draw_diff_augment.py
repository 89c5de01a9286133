"""The random draws of DiffAugment: word by word, in their ranges, equal on both twins, and counted.

Covers draw_diff_augment_triton.py and draw_reference.py.
"""

import itertools

import numpy as np
import pytest
import torch

from fastload import rng
from fastload.errors import ConfigError
from fastload.ops.diff.diff_augment import diff_augment
from fastload.ops.diff.diff_params import DiffAugmentParams
from fastload.ops.diff.draw_diff_augment import draw_diff_augment
from fastload.rng import Purpose
from tests.quick import slow_but

pytest.importorskip("triton", reason="Triton is not installed: its kernels cannot run")

each_twin = pytest.mark.parametrize("impl", ["reference", "triton"])
SEEDS = [0, 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1]
MANY = 1 << 14


def counters(device, calls=0):
    return (
        torch.tensor([calls], dtype=torch.int64, device=device),
        torch.zeros(1, dtype=torch.int32, device=device),
    )


def drawn(device, n, height=32, width=32, *, calls=0, **options):
    rows = draw_diff_augment(*counters(device, calls), n, height, width, **options)
    assert rows.dtype == torch.float32 and rows.shape == (n, 8) and rows.device.type == device.type
    return rows.cpu()


def bits_of(rows):
    return rows.view(torch.int32)


@pytest.mark.parametrize("seed", slow_but([2**31, 2**32, 2**64 - 1], SEEDS))
def test_twins_are_equal_bit_for_bit_for_every_seed_and_call(seed, device):
    for calls in (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32 + 7, 2**40):
        options = {"calls": calls, "seed": seed, "first_row": 5}
        expected = drawn(device, 9, 17, 23, impl="reference", **options)
        assert torch.equal(bits_of(drawn(device, 9, 17, 23, impl="triton", **options)), bits_of(expected))


BATCHES = list(itertools.product([0, 1, 32, 33, 257], [(1, 1), (5, 64), (1024, 4096)]))
QUICK = [(0, (5, 64)), (1, (1024, 4096)), (32, (1, 1)), (33, (5, 64)), (257, (1024, 4096))]


@pytest.mark.parametrize("n, size", slow_but(QUICK, BATCHES))
def test_twins_are_equal_bit_for_bit_for_every_size_and_batch(n, size, device):
    for first_row in (0, n, 2**31 - 1, 2**32 - n) if n < 100 else (n,):
        expected = drawn(device, n, *size, impl="reference", first_row=first_row)
        result = drawn(device, n, *size, impl="triton", first_row=first_row)
        assert torch.equal(bits_of(result), bits_of(expected)), first_row


@each_twin
@pytest.mark.parametrize("seed", [2**40 + 3, 2**64 - 1])
def test_each_number_is_its_word_of_philox(seed, impl, device):
    calls, first_row, height, width = 9, 1000, 21, 50
    rows = drawn(device, 64, height, width, calls=calls, seed=seed, first_row=first_row, impl=impl)
    params = DiffAugmentParams.from_rows(rows)
    positions = calls * 2**32 + first_row + np.arange(64)
    color, translation, cutout = (
        rng.bits(seed, positions, purpose) >> 8
        for purpose in (Purpose.DIFF_COLOR, Purpose.DIFF_TRANSLATION, Purpose.DIFF_CUTOUT)
    )
    u = color / 2.0**24
    np.testing.assert_array_equal(params.brightness, (u[:, 0] - 0.5).astype(np.float32))
    np.testing.assert_array_equal(params.saturation, (u[:, 1] * 2).astype(np.float32))
    np.testing.assert_array_equal(params.contrast, (u[:, 2] + 0.5).astype(np.float32))
    # 21 pixels: an eighth is 2.6, so 3, and half is 10.5, so 11; 50 pixels: 6 and 25.
    for axis, (most, last) in enumerate([(3, 20), (6, 49)]):
        words = translation[:, axis].astype(object)
        expected = [int(word) * (2 * most + 1) // 2**24 - most for word in words]
        np.testing.assert_array_equal(params.shift[:, axis], expected)
        expected = [int(word) * (last + 1) // 2**24 for word in cutout[:, axis]]
        np.testing.assert_array_equal(params.cut_offset[:, axis], expected)
    assert (rows[:, 7] == 0).all()


def chi_square(counts, expected):
    return float(((counts - expected) ** 2 / expected).sum())


# Distributions of the reference: the twins are equal, and Triton's interpreter would take minutes.
# side: the ends of the shift, and of the middle of the box, which are both drawn.
RANGES = {8: ((-1, 1), (0, 8)), 5: ((-1, 1), (0, 4)), 32: ((-4, 4), (0, 32)), 6: ((-1, 1), (0, 5))}


@pytest.mark.parametrize("side", RANGES)
def test_integers_come_evenly_up_to_both_ends(side, device):
    params = DiffAugmentParams.from_rows(drawn(device, MANY, side, side, impl="reference", seed=1))
    for tensor, (low, high) in zip((params.shift, params.cut_offset), RANGES[side], strict=True):
        for axis in range(2):
            values, counts = np.unique(tensor[:, axis], return_counts=True)
            assert values.tolist() == list(range(low, high + 1))
            freedom = high - low
            # 4.5 standard deviations above the mean of chi-square; the seed is fixed, so that luck is too.
            assert chi_square(counts, MANY / (freedom + 1)) < freedom + 4.5 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("ratio, most", [(0.0, 0), (0.25, 8), (1.0, 32)])
def test_the_ratios_set_the_ranges(ratio, most, device):
    rows = drawn(device, 4096, impl="reference", translation_ratio=ratio, cutout_ratio=1 / 32)
    params = DiffAugmentParams.from_rows(rows)
    assert params.shift.min() == -most and params.shift.max() == most
    assert params.cut_offset.min() == 0 and params.cut_offset.max() == 31  # a box of one pixel, inside


def test_colours_are_uniform_in_their_ranges_and_independent(device):
    params = DiffAugmentParams.from_rows(drawn(device, MANY, impl="reference", seed=2))
    columns = (params.brightness + 0.5, params.saturation / 2, params.contrast - 0.5)
    for uniform in columns:
        assert uniform.min() >= 0 and uniform.max() < 1
        counts, _ = np.histogram(uniform, bins=16, range=(0, 1))
        assert chi_square(counts, MANY / 16) < 15 + 4.5 * 30**0.5
    everything = torch.cat([torch.stack(columns, 1), params.shift, params.cut_offset], 1).double()
    correlations = torch.corrcoef(everything.T) - torch.eye(7)
    assert correlations.abs().max() < 4.5 / MANY**0.5


@each_twin
def test_a_call_counts_one_and_draws_anew(impl, device):
    calls, ticket = counters(device, calls=5)
    for n in (70, 70, 0, 1):
        before = calls.clone()
        rows = draw_diff_augment(calls, ticket, n, 32, 32, impl=impl)
        assert calls.tolist() == [int(before) + 1] and ticket.tolist() == [0]
        expected = drawn(device, n, calls=int(before), impl=impl)
        assert torch.equal(bits_of(rows.cpu()), bits_of(expected))
    first, second = (drawn(device, 70, calls=number, impl=impl)[:, :3] for number in (5, 6))
    assert (first != second).all()


@each_twin
def test_rows_are_those_of_all_ranks_together(impl, device):
    whole = drawn(device, 66, seed=4, calls=3, impl=impl)
    parts = [drawn(device, 33, seed=4, calls=3, first_row=rank * 33, impl=impl) for rank in range(2)]
    assert torch.equal(bits_of(torch.cat(parts)), bits_of(whole))


@each_twin
def test_drawn_rows_are_what_diff_augment_applies(impl, device):
    rows = drawn(device, 5, 12, 10, impl=impl, seed=3).to(device)
    params, images = DiffAugmentParams.from_rows(rows), torch.randn(5, 3, 12, 10, device=device)
    assert params.rows(images) is rows
    copied = DiffAugmentParams(params.brightness, params.saturation, params.contrast, params.shift,
                               params.cut_offset)  # fmt: skip
    assert torch.equal(bits_of(copied.rows(images)), bits_of(rows))
    result = diff_augment(images, params, impl="triton")
    torch.testing.assert_close(result, diff_augment(images, params, impl="reference"), rtol=0, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA: nothing is captured")
def test_a_captured_draw_counts_and_draws_anew_in_each_replay(device):
    calls, ticket = counters(device)
    draw_diff_augment(calls, ticket, 300, 32, 32, impl="triton")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        rows = draw_diff_augment(calls, ticket, 300, 32, 32, impl="triton")
    for number in range(1, 4):
        graph.replay()
        expected = drawn(device, 300, calls=number, impl="reference")
        assert torch.equal(bits_of(rows.cpu()), bits_of(expected)) and calls.tolist() == [number + 1]


@each_twin
def test_the_operator_is_what_torch_compile_takes_it_for(impl, device):
    from fastload.ops.diff import registered

    torch.library.opcheck(
        registered.draw_diff_augment, (*counters(device), 5, 8, 8, -1, 0, 0.125, 0.5, impl),
        test_utils=("test_schema", "test_faketensor"),
    )  # fmt: skip


def test_arguments_that_do_not_fit_are_refused(device):
    calls, ticket = counters(device)
    for seed in (-1, 2**64, 1.5):
        with pytest.raises(ConfigError, match="seed must be"):
            draw_diff_augment(calls, ticket, 1, 8, 8, seed=seed)
    with pytest.raises(ConfigError, match=r"calls=.*give a tensor \[1\] of torch.int64"):
        draw_diff_augment(calls.int(), ticket, 1, 8, 8)
    with pytest.raises(ConfigError, match=r"ticket=.*give a tensor \[1\] of torch.int32"):
        draw_diff_augment(calls, ticket.expand(2), 1, 8, 8)
    with pytest.raises(ConfigError, match="impl="):
        draw_diff_augment(calls, ticket, 1, 8, 8, impl="native")
    with pytest.raises(ConfigError, match="translation_ratio must be a share"):
        draw_diff_augment(calls, ticket, 1, 8, 8, translation_ratio=-0.1)
    for first_row in (-1, 2**32):
        with pytest.raises(ConfigError, match="first_row="):
            draw_diff_augment(calls, ticket, 1, 8, 8, first_row=first_row)
    assert calls.tolist() == [0]
