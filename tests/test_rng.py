"""Random bits: Philox 4x32-10 against published answers of Random123, and its twins against each other."""

import numpy as np
import pytest

from fastload import rng
from fastload.errors import ConfigError
from fastload.rng import Purpose

# Random123's kat_vectors, philox4x32 with 10 rounds: (counter, key, answer).
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
BOTH = pytest.mark.parametrize("impl", ["reference", "native"])


@BOTH
@pytest.mark.parametrize("counter, key, answer", KNOWN_ANSWERS)
def test_known_answers_of_random123(counter, key, answer, impl):
    position = np.array([counter[0] | counter[1] << 32], dtype=np.uint64).view(np.int64)
    words = rng.bits(key[0] | key[1] << 32, position, counter[2], counter[3], impl=impl)
    assert words.dtype == np.uint32
    assert words.tolist() == [list(answer)]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 63, 64, 65, 1009])
def test_the_twins_are_equal_for_every_count(count):
    positions = np.random.default_rng(count).integers(0, 2**63 - 1, count)
    for seed, purpose, block in [
        (0, Purpose.XFLIP, 0),
        (2**64 - 1, Purpose.CROP, 7),
        (2**32, 2**32 - 1, 2**32 - 1),
    ]:
        reference = rng.bits(seed, positions, purpose, block, impl="reference")
        native = rng.bits(seed, positions, purpose, block, impl="native")
        assert reference.shape == native.shape == (count, 4)
        np.testing.assert_array_equal(reference, native)


@BOTH
def test_non_contiguous_positions_give_the_bits_of_their_copy(impl):
    positions = np.arange(1000, dtype=np.int64)
    for strided in (positions[::3], positions[::-1], positions.astype(np.int32)[5:50:7]):
        expected = rng.bits(5, strided.astype(np.int64).copy(), Purpose.CROP, impl=impl)
        np.testing.assert_array_equal(rng.bits(5, strided, Purpose.CROP, impl=impl), expected)


@BOTH
def test_uniforms_lie_in_zero_to_one_and_are_multiples_of_2_to_the_minus_24(impl):
    draws = rng.uniforms(3, np.arange(50_000), Purpose.CROP, impl=impl)
    assert draws.dtype == np.float32 and draws.shape == (50_000, 4)
    assert draws.min() >= 0 and draws.max() < 1
    steps = draws.astype(np.float64) * 2**24
    np.testing.assert_array_equal(steps, np.round(steps))
    # 200,000 uniforms: the mean's standard error is 0.29 / sqrt(200,000) = 0.00065; five of them.
    assert abs(draws.mean(dtype=np.float64) - 0.5) < 0.0033


def test_every_part_of_the_counter_and_of_the_key_changes_the_bits():
    high = 2**32
    base = (1, 2, 3, 4)
    others = [
        (1 + high, 2, 3, 4),
        (2, 2, 3, 4),
        (1, 2 + high, 3, 4),
        (1, 3, 3, 4),
        (1, 2, 4, 4),
        (1, 2, 3, 5),
    ]
    words = [rng.bits(s, np.array([position]), p, b) for s, position, p, b in [base, *others]]
    assert len({tuple(word[0].tolist()) for word in words}) == 7


def test_the_purposes_keep_their_numbers():
    names = ["XFLIP", "CROP", "ORDER", "SHARD_ORDER", "WINDOW_ORDER"]
    assert [Purpose[name].value for name in names] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, True, None, "0"])
def test_a_seed_that_is_no_key_is_an_error(seed):
    with pytest.raises(ConfigError, match=r"seed must be an integer in \[0, 2\*\*64\), got"):
        rng.bits(seed, np.arange(3), Purpose.CROP)


@pytest.mark.parametrize(
    "purpose, block, name", [(-1, 0, "purpose"), (2**32, 0, "purpose"), (0, -1, "block")]
)
def test_a_purpose_or_block_beyond_32_bits_is_an_error(purpose, block, name):
    with pytest.raises(ConfigError, match=rf"{name} must be in \[0, 2\*\*32\), got"):
        rng.bits(0, np.arange(3), purpose, block)


@BOTH
def test_positions_of_another_kind_are_an_error(impl):
    with pytest.raises(TypeError, match="same_kind"):
        rng.bits(0, np.arange(3) / 2, Purpose.CROP, impl=impl)
    with pytest.raises(ValueError, match="one dimension"):
        rng.bits(0, np.zeros((2, 2), dtype=np.int64), Purpose.CROP, impl=impl)


def test_an_unknown_impl_is_an_error():
    with pytest.raises(ConfigError, match="impl='fast': give"):
        rng.bits(0, np.arange(3), Purpose.CROP, impl="fast")


def test_the_purpose_of_a_name_is_its_own_and_the_same_in_every_process():
    assert rng.purpose_of("field caption") == rng.purpose_of("field caption") == 3_878_055_955
    assert all(rng.purpose_of(f"field {i}") > max(Purpose) for i in range(100))
    assert len({rng.purpose_of(f"field {i}") for i in range(100)}) == 100


def test_two_names_with_the_same_purpose_are_an_error(monkeypatch):
    monkeypatch.setattr(rng, "_names", {rng.purpose_of("one"): "another"})
    with pytest.raises(ConfigError, match="'another' and 'one' have the same hash"):
        rng.purpose_of("one")


def test_a_draw_gives_the_words_of_its_position_block_after_block():
    positions, purpose = np.array([5, 2**40]), rng.purpose_of("field caption")
    blocks = [rng.bits(7, positions, purpose, block) for block in range(3)]
    for i, draw in enumerate(rng.draws(7, positions, purpose)):
        expected = np.concatenate([block[i] for block in blocks]).tolist()
        assert [draw.word() for _ in range(12)] == expected
        assert [rng.Draw(7, int(positions[i]), purpose).word() for _ in range(1)] == expected[:1]


def test_uniforms_integers_and_choices_are_in_their_ranges_and_all_occur():
    draws = rng.draws(0, np.arange(2000), 40)
    uniforms = [draw.uniform(-1, 3) for draw in draws]
    assert -1 <= min(uniforms) < -0.98 and 2.98 < max(uniforms) < 3
    assert abs(sum(uniforms) / 2000 - 1) < 0.1
    counts = np.bincount([draw.integer(5) for draw in draws], minlength=5)
    assert len(counts) == 5 and counts.min() > 320
    assert {draw.choice("abc") for draw in draws} == set("abc")
    assert rng.Draw(0, 0, 40).integer(1) == 0
    for stop in (0, 2**32 + 1):
        with pytest.raises(ConfigError, match=rf"stop must be in \[1, 2\*\*32\], got {stop}"):
            draws[0].integer(stop)
