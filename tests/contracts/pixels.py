"""A sample's tensors do not depend on where they were made: SHA-256 for every position.

A loader here is what `elastic` describes, whose batches hold tensors [N, ...] or lists of N as well; mixup
and CutMix mix neighbours of a batch and are to be left out. `make_loader(**arguments)` takes rank,
world_size, batch_size, last, and whatever else a variation changes (threads, prefetch); without a variation
it needs only the rank.
"""

import hashlib
import json
from collections.abc import Callable, Iterable

import torch


def digests(batches: Iterable[dict]) -> dict[int, str]:
    """position -> SHA-256 of the sample there: the names, types, shapes and bytes of all it consists of.

    A position that comes twice, as padding does, must be the same sample both times.
    """
    found = {}
    for batch in batches:
        names = sorted(name for name in batch if name not in ("__position__", "__mask__"))
        for i, position in enumerate(map(int, batch["__position__"])):
            digest = hashlib.sha256()
            for name in names:
                digest.update(f"\n{name}: ".encode())
                _update(digest, batch[name][i])
            assert found.setdefault(position, digest.hexdigest()) == digest.hexdigest(), position
    return found


def assert_same_samples(make_loader: Callable, variations: Iterable[dict]) -> int:
    """Over all ranks of every variation, each position has the digest that it has with no variation.

    Returns the number of cases: the samples that were compared, in each variation anew.
    """
    usual, cases = _of_all_ranks(make_loader, {}), 0
    assert len(set(usual.values())) == len(usual) > 1, "samples that are all alike would pass anyway"
    for variation in variations:
        assert_equal_digests(_of_all_ranks(make_loader, variation), usual, variation)
        cases += len(usual)
    return cases


def assert_same_samples_after_resuming(
    make_loader: Callable, before: dict, after: dict, steps: Iterable[int]
) -> int:
    """Saved after so many steps of one variation and loaded by another: the digests of an unbroken run.

    Returns the number of cases: the samples that were compared, for each of `steps` anew.
    """
    usual, cases = _of_all_ranks(make_loader, {}), 0
    for k in steps:
        found = {}
        for loader in _all_ranks(make_loader, before):
            stream = iter(loader)
            found |= digests(next(stream) for _ in range(k))
            state = json.dumps(loader.state_dict())
            del stream
        for loader in _all_ranks(make_loader, after):
            loader.load_state_dict(json.loads(state))
            rest = digests(loader)
            both = rest.keys() & found.keys()
            assert all(rest[position] == found[position] for position in both)
            found |= rest
        assert_equal_digests(found, usual, f"{before}, after {k} steps {after}")
        cases += len(usual)
    return cases


def assert_equal_digests(found: dict[int, str], usual: dict[int, str], where) -> None:
    assert found.keys() == usual.keys(), f"{where}: other positions"
    other = sorted(position for position in usual if found[position] != usual[position])
    assert not other, f"{where}: other tensors at positions {other}"


def _of_all_ranks(make_loader: Callable, variation: dict) -> dict[int, str]:
    return digests(batch for loader in _all_ranks(make_loader, variation) for batch in loader)


def _all_ranks(make_loader: Callable, variation: dict) -> Iterable:
    """One after the other, so that a machine with two cores need not hold eight decoders."""
    for rank in range(variation.get("world_size", 1)):
        yield make_loader(rank=rank, **variation)


def _update(digest, value) -> None:
    if isinstance(value, torch.Tensor):
        whole = value.detach().cpu().contiguous()
        digest.update(f"{whole.dtype} {tuple(whole.shape)} ".encode())
        digest.update(whole.reshape(-1).view(torch.uint8).numpy().tobytes())
    elif hasattr(value, "tobytes"):
        digest.update(f"{value.dtype} {value.shape} ".encode() + value.tobytes())
    elif isinstance(value, dict):
        for name in sorted(value):
            digest.update(f"\n{name}: ".encode())
            _update(digest, value[name])
    else:
        assert isinstance(value, (str, bytes, int, float, list, tuple, type(None))), type(value)
        digest.update(f"{type(value).__name__} {value!r}".encode())
