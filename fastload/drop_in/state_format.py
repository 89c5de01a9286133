"""The format of the states of a loader of torch datasets: encoded, decoded, checked.

In: the record of an iteration (epoch_record.py), or a checkpoint. Out: a state with the same keys at every
batch, or the record again. Promised: what varies in shape, such as the states of samplers and datasets, is a
leaf (opaque.py), so that torch.distributed.checkpoint finds the keys that it expects; states of fastload
0.1.0 can be read; a state that does not fit the loader is refused with the reason, before anything is
changed.
"""

from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from fastload.errors import CursorError
from fastload.loader.orders.sampler_state import is_sampler_state
from fastload.opaque import leaf, value_of

VERSION = 3
READABLE = (2, 3)  # 2, of fastload 0.1.0, has values in place of leaves, and no global generator
_ENTRIES = {  # "dice": the states of the generators that a dataset without a state drew from
    "kind": str,
    "num_workers": int,
    "batch_size": int | None,
    "delivered": int,
    "finished": bool,
    "sampler": dict | None,
    "workers": list,
    "last_worker": int | None,
    "generator": dict,
    "dice": dict | None,
    "global_generator": str | None,
    "rank": int,
}


def encoded(state: dict) -> dict:
    """The state for state_dict(): whatever varies in shape is a leaf."""
    leaves = {name: leaf(state[name]) for name in ("sampler", "dice")}
    return state | leaves | {"workers": [leaf(worker) for worker in state["workers"]]}


def decoded(state: dict) -> dict:
    """The inverse of `encoded`; a state of version 2 becomes one without a global generator.

    Raises CursorError for an invalid leaf. Entries that are missing or of a wrong type are not looked for.
    """
    if state.get("version") == 2:
        state = state | {"version": VERSION, "global_generator": None, "rank": 0}
    leaves = {name: value_of(state[name]) for name in ("sampler", "dice") if name in state}
    workers = state.get("workers")
    is_list = isinstance(workers, (list, tuple))
    return state | leaves | {"workers": [value_of(worker) for worker in workers] if is_list else None}


def checked(state: Any, loader: DataLoader) -> dict:
    """The decoded state. Raises CursorError where it does not belong to the loader."""
    version = state.get("version") if isinstance(state, dict) else None
    if type(version) is int and version not in READABLE:
        raise CursorError(
            f"the state of a loader of torch datasets has version {version}, but this fastload reads only "
            f"{' and '.join(map(str, READABLE))}. Resume with the fastload that wrote it."
        )
    given, state = state, decoded(state) if version in READABLE else None
    if not _is_complete(state):
        raise CursorError(
            f"not a state of a loader of torch datasets: {str(given)[:80]!r}. Pass what its state_dict() "
            "returned."
        )
    _check_belongs(state, loader)
    return state


def _check_belongs(state: dict, loader: DataLoader) -> None:
    kind = "iterable" if isinstance(loader.dataset, IterableDataset) else "map"
    if state["kind"] != kind:
        raise CursorError(
            f"the checkpoint is of a dataset of kind {state['kind']!r}, but this one is {kind!r}. Use the "
            "dataset that it was saved with."
        )
    if state["num_workers"] != loader.num_workers:
        raise CursorError(
            f"the checkpoint was saved with num_workers={state['num_workers']}, but this loader has "
            f"{loader.num_workers}, and each worker has a state of its own. Use "
            f"num_workers={state['num_workers']}, or begin the epoch again."
        )
    then, now = state["batch_size"], loader.batch_size
    counts_batches = kind == "iterable" and not any(state["workers"]) and not state["finished"]
    if counts_batches and state["delivered"] and now != then:
        raise CursorError(
            f"the checkpoint was saved with batch_size={then}, but this loader has {now}, and for a dataset "
            f"without a state batches are counted. Use batch_size={then}, or begin the epoch again."
        )
    if (state["generator"]["now"] is None) != (loader.generator is None):
        had, has = ("no", "one") if state["generator"]["now"] is None else ("a", "none")
        raise CursorError(
            f"the checkpoint was saved with {had} generator, but this loader has {has}. Pass generator= as "
            "when it was saved."
        )


def global_generator_of(state: dict | None) -> tuple[str | None, int]:
    """The saved global generator, and the rank that saved it; (None, 0) where it is not to be restored.

    That is so for an iterable dataset with a state that is read in this process: it may restore the global
    generator itself at any time, and has no sampler, so torch draws its seeds from the global one as before.
    """
    if state is None or (state["kind"] == "iterable" and not state["num_workers"] and any(state["workers"])):
        return None, 0
    return state["global_generator"], state["rank"]


def _is_complete(state: Any) -> bool:
    """Whether all entries are there; states of datasets and samplers are not looked into."""
    if not isinstance(state, dict) or state.get("version") != VERSION:
        return False
    if not all(name in state and isinstance(state[name], kind) for name, kind in _ENTRIES.items()):
        return False
    workers, sampler, generators = state["workers"], state["sampler"], state["dice"]
    return (
        len(workers) == max(1, state["num_workers"])
        and all(worker is None or _has(worker, "dataset", "iterator", "ended", "after") for worker in workers)
        and _has(state["generator"], "start", "now")
        and (sampler is None or is_sampler_state(sampler))
        and (generators is None or _has(generators, "iter", "first"))
    )


def _has(entry: Any, *names: str) -> bool:
    return isinstance(entry, dict) and {*names} <= {*entry}
