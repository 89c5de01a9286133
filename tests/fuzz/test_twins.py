"""Mutated tars and zips: the native and the plain indexer give the same rows, or refuse in the same words."""

import random

import pytest

from fastload.shards.tar import index_tar
from fastload.shards.zip import index_zip
from tests.fuzz.seeds import seeds
from tests.shards.shard_corpus import BLOCK, assert_same_outcome, with_checksum, write

INDEXERS = {"tar": index_tar, "zip": index_zip}
INPUTS = 1500
NUMBERS = (0, 1, 2, 22, 46, 511, 512, 513, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**62, 2**63, 2**64 - 1)


def mutated(content: bytes, dice: random.Random) -> bytes:
    out = bytearray(content)
    for _ in range(dice.randint(1, 4)):
        if not out:
            break
        at, kind = dice.randrange(len(out)), dice.randrange(6)
        if kind == 0:
            out[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            out[at] = dice.choice(b"\0\xff /.0789a_")
        elif kind == 2:
            width = dice.choice((1, 2, 4, 8))
            number = dice.choice((*NUMBERS, len(out), at)) % (1 << 8 * width)
            out[at : at + width] = number.to_bytes(width, dice.choice(("little", "big")))
        elif kind == 3:
            del out[at : at + dice.choice((1, 4, BLOCK))]
        elif kind == 4:
            start = at // BLOCK * BLOCK
            out[start:start] = out[start : start + BLOCK]
        else:
            digits = [place for place in range(at, min(at + BLOCK, len(out))) if chr(out[place]).isdigit()]
            if digits:
                out[digits[0]] = dice.choice(b"01234567")
    return bytes(out)


def with_right_checksums(tar: bytes) -> bytes:
    """Almost no mutation of a header would come past them."""
    blocks = [tar[at : at + BLOCK] for at in range(0, len(tar), BLOCK)]
    return b"".join(
        with_checksum(block) if len(block) == BLOCK and block[257:262] == b"ustar" else block
        for block in blocks
    )


@pytest.mark.parametrize("kind", INDEXERS)
def test_mutated_containers_are_read_alike_by_both_twins(tmp_path, kind):
    dice = random.Random(3)
    given = list(seeds(kind).values())
    accepted = 0
    for content in given:
        assert_same_outcome(INDEXERS[kind], write(tmp_path / "a", content))
    for _ in range(INPUTS):
        content = mutated(dice.choice(given), dice)
        if kind == "tar" and dice.random() < 0.8:
            content = with_right_checksums(content)
        got = assert_same_outcome(INDEXERS[kind], write(tmp_path / "a", content))
        accepted += not isinstance(got, str)
    assert INPUTS / 10 < accepted < INPUTS * 9 / 10, "mutations that all pass, or all fail, show little"
