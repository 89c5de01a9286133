"""Random bits as a pure function of (seed, position, purpose): the source of every random draw in fastload.

In: a seed, positions in the endless global order (`epoch * n + i`), a purpose, and a block for draws of
more than four words. Out: Philox 4x32-10 with key = (seed low, seed high) and counter = (position low,
position high, purpose, block), all uint32. Promised: the same bits in NumPy and C++ (csrc/order/philox.h) on
every machine, no state, and no dependence on worker, rank, batch or device. A position is unique, so a
sample seen twice gets other bits.
"""

import hashlib
from collections.abc import Sequence
from enum import IntEnum
from typing import TypeVar

import numpy as np

from fastload import _native
from fastload.errors import ConfigError

Item = TypeVar("Item")


class Purpose(IntEnum):
    """What a draw is for. New purposes append; a number never changes, or old checkpoints would differ.

    All are below 2^31; the others belong to names, see `purpose_of`.
    """

    XFLIP = 1
    CROP = 2
    ORDER = 3
    SHARD_ORDER = 4
    WINDOW_ORDER = 5
    YFLIP = 6
    ROTATE = 7
    SCALE = 8
    TRANSLATE = 9
    COLOR_JITTER = 10
    BRIGHTNESS = 11
    HSV = 12
    CUTOUT = 13
    MIX = 14
    REPLACEMENT = 15
    NOISE = 16
    ADA_XFLIP = 17
    ADA_YFLIP = 18
    ADA_ROTATE90 = 19
    ADA_XINT = 20
    ADA_SCALE = 21
    ADA_ROTATE = 22
    ADA_ROTATE_AFTER = 23
    ADA_ANISO = 24
    ADA_XFRAC = 25
    ADA_BRIGHTNESS = 26
    ADA_CONTRAST = 27
    ADA_LUMAFLIP = 28
    ADA_HUE = 29
    ADA_SATURATION = 30
    ADA_IMGFILTER = 31
    ADA_NOISE = 32
    ADA_CUTOUT = 33
    DIFF_COLOR = 40
    DIFF_TRANSLATION = 41
    DIFF_CUTOUT = 42


_names: dict[int, str] = {}  # purpose -> the name that it belongs to


def purpose_of(name: str) -> int:
    """The purpose of draws that are not fastload's own: the top bit, and 31 bits of the hash of their name.

    It is the same in every process. Raises ConfigError where another name of this process has it already.
    """
    hashed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little")
    purpose = hashed | 1 << 31
    owner = _names.setdefault(purpose, name)
    if owner != name:
        raise ConfigError(
            f"the names {owner!r} and {name!r} have the same hash, so their random draws would be the same. "
            "Rename one of them."
        )
    return purpose


class Draw:
    """The random numbers of one sample, for one purpose: a function of (seed, position, purpose) alone.

    seed, position, purpose: as `bits` has them. Each call returns the next number; they are the same on
    every machine, whatever thread, rank or batch asks, and after every resume. words: of `bits`, block 0.
    """

    __slots__ = ("_block", "_position", "_purpose", "_seed", "_words")

    def __init__(self, seed: int, position: int, purpose: int, words: Sequence[int] = ()):
        self._seed, self._position, self._purpose = seed, position, purpose
        self._block, self._words = (1 if words else 0), list(words)[::-1]

    def __repr__(self) -> str:
        return f"Draw(seed={self._seed}, position={self._position}, purpose={self._purpose})"

    def word(self) -> int:
        """32 random bits."""
        if not self._words:
            block = bits(self._seed, np.array([self._position]), self._purpose, self._block)
            self._block, self._words = self._block + 1, block[0, ::-1].tolist()
        return self._words.pop()

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number in [low, high), of 24 random bits."""
        return low + (self.word() >> 8) * 2.0**-24 * (high - low)

    def integer(self, stop: int) -> int:
        """An integer in [0, stop), for stop in [1, 2^32]; no value is favoured by more than 2^-32.

        Raises ConfigError for another stop.
        """
        if not 1 <= stop <= 1 << 32:
            raise ConfigError(f"stop must be in [1, 2**32], got {stop}.")
        return ((self.word() << 32 | self.word()) * stop) >> 64

    def choice(self, items: Sequence[Item]) -> Item:
        """One of the items. Raises ConfigError where there is none."""
        return items[self.integer(len(items))]


def draws(seed: int, positions: np.ndarray, purpose: int) -> list[Draw]:
    """A Draw for each position [N] int64."""
    words = bits(seed, positions, purpose).tolist()
    samples = zip(positions.tolist(), words, strict=True)
    return [Draw(seed, position, purpose, own) for position, own in samples]


def bits(seed: int, positions: np.ndarray, purpose: int, block: int = 0, *, impl: str = "auto") -> np.ndarray:
    """Four random words for each position.

    seed: in [0, 2^64). positions: [N] int64. purpose, block: in [0, 2^32). Returns [N, 4] uint32.
    impl: "auto" (native), "reference" or "native"; the twins are equal.

    Raises ConfigError for a seed, purpose or block out of range, TypeError for positions of another kind.
    """
    check_seed(seed)
    for name, word in (("purpose", purpose), ("block", block)):
        if not 0 <= word < 2**32:
            raise ConfigError(f"{name} must be in [0, 2**32), got {word}.")
    positions = np.ascontiguousarray(np.asarray(positions).astype(np.int64, casting="same_kind", copy=False))
    if positions.ndim != 1:
        raise ConfigError(
            f"positions must have one dimension, got {list(positions.shape)}: reshape them to [N]."
        )
    if impl not in ("auto", "reference", "native"):
        raise ConfigError(f'impl={impl!r}: give "auto", "reference" or "native".')
    twin = _reference if impl == "reference" else _native.philox_bits
    return twin(int(seed), positions, int(purpose), int(block))


def uniforms(
    seed: int, positions: np.ndarray, purpose: int, block: int = 0, *, impl: str = "auto"
) -> np.ndarray:
    """`bits` as numbers in [0, 1): [N, 4] float32, exact on every machine."""
    return as_uniforms(bits(seed, positions, purpose, block, impl=impl))


def as_uniforms(words: np.ndarray) -> np.ndarray:
    """Words of `bits`, uint32 in any shape, as numbers in [0, 1): float32, (word >> 8) * 2^-24."""
    return (words >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def check_seed(seed: int) -> None:
    """Raises ConfigError unless seed is an integer in [0, 2^64), the 64 bits of Philox's key."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**64:
        raise ConfigError(f"seed must be an integer in [0, 2**64), got {seed!r}.")


_LOW = np.uint64(0xFFFFFFFF)
_HIGH_SHIFT = np.uint64(32)


def _reference(seed: int, positions: np.ndarray, purpose: int, block: int) -> np.ndarray:
    # uint64 lanes that hold 32-bit words: the products need all 64 bits.
    counter = positions.view(np.uint64)
    c0, c1 = counter & _LOW, counter >> _HIGH_SHIFT
    c2, c3 = np.full_like(counter, purpose), np.full_like(counter, block)
    key0, key1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        product0, product1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1 = (product1 >> _HIGH_SHIFT) ^ c1 ^ np.uint64(key0), product1 & _LOW
        c2, c3 = (product0 >> _HIGH_SHIFT) ^ c3 ^ np.uint64(key1), product0 & _LOW
        key0, key1 = (key0 + 0x9E3779B9) & 0xFFFFFFFF, (key1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)
