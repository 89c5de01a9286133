"""The state of a loader of torch datasets: what it looks like when it is given away, and whether it fits.

In: the record of an iteration (epoch_record.py), or what a checkpoint held. Out: a state of the same keys at
every place, or the record again. Promised: what varies in shape, as the states of samplers and datasets do,
is a leaf (opaque.py), so that torch.distributed.checkpoint finds what it looks for; states of fastload 0.1.0
are read; what does not fit the loader is refused with the reason, before anything is changed.
"""

from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from fastload.errors import CursorError
from fastload.loader.orders.sampler_state import is_place
from fastload.opaque import leaf, value_of

VERSION = 3
READ = (2, 3)  # 2, of fastload 0.1.0, has values in place of leaves, and no global generator
_ENTRIES = {
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
    """A state as it is given away: what varies in shape is a leaf."""
    leaves = {name: leaf(state[name]) for name in ("sampler", "dice")}
    return state | leaves | {"workers": [leaf(one) for one in state["workers"]]}


def decoded(state: dict) -> dict:
    """What was given to `encoded`, and a state of version 2 as one that has not saved the global generator.

    Raises CursorError for a leaf that is none. That an entry is missing, or of another type, is left to see.
    """
    if state.get("version") == 2:
        state = state | {"version": VERSION, "global_generator": None, "rank": 0}
    leaves = {name: value_of(state[name]) for name in ("sampler", "dice") if name in state}
    workers = state.get("workers")
    return state | leaves | {"workers": [value_of(one) for one in workers] if _is_list(workers) else None}


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def checked(state: Any, loader: DataLoader) -> dict:
    """The state as `decoded` has it. Raises CursorError for one that does not belong to the loader."""
    version = state.get("version") if isinstance(state, dict) else None
    if type(version) is int and version not in READ:
        raise CursorError(
            f"the state of a loader of torch datasets has version {version}, this fastload reads "
            f"{' and '.join(map(str, READ))}: resume with the fastload that wrote it."
        )
    given, state = state, decoded(state) if version in READ else None
    if not _is_whole(state):
        raise CursorError(
            f"this is no state of a loader of torch datasets: {str(given)[:80]!r}. Give what its "
            "state_dict() returned."
        )
    kind = "iterable" if isinstance(loader.dataset, IterableDataset) else "map"
    if state["kind"] != kind:
        raise CursorError(
            f"the checkpoint is of a dataset of kind {state['kind']!r}, this one is {kind!r}. Use the "
            "dataset that it was saved with."
        )
    if state["num_workers"] != loader.num_workers:
        raise CursorError(
            f"the checkpoint was saved with num_workers={state['num_workers']}, this loader has "
            f"{loader.num_workers}: each worker has a place of its own. Use "
            f"num_workers={state['num_workers']}, or begin the epoch anew."
        )
    then, now = state["batch_size"], loader.batch_size
    counts = kind == "iterable" and not any(state["workers"]) and not state["finished"]
    if counts and state["delivered"] and now != then:
        raise CursorError(
            f"the checkpoint was saved with batch_size={then}, this loader has {now}, and of a dataset "
            f"without a state the place is a number of batches. Use batch_size={then}, or begin anew."
        )
    if (state["generator"]["now"] is None) != (loader.generator is None):
        had, has = ("no", "one") if state["generator"]["now"] is None else ("a", "none")
        raise CursorError(
            f"the checkpoint was saved with {had} generator, this loader has {has}. Give generator= as when "
            "it was saved."
        )
    return state


def global_generator_of(state: dict | None) -> tuple[str | None, int]:
    """The global generator as it was saved, and the rank; None where there is none to draw from.

    An iterable dataset with a state that is read in this process may put the global generator back itself, at
    any time, and has no sampler: torch's seeds are then drawn from the global one, as they were.
    """
    if state is None or (state["kind"] == "iterable" and not state["num_workers"] and any(state["workers"])):
        return None, 0
    return state["global_generator"], state["rank"]


def _is_whole(state: Any) -> bool:
    """Whether it has all that a state has, as far as it is ours."""
    if not isinstance(state, dict) or state.get("version") != VERSION:
        return False
    if not all(name in state and isinstance(state[name], kind) for name, kind in _ENTRIES.items()):
        return False
    workers, sampler, dice = state["workers"], state["sampler"], state["dice"]
    return (
        len(workers) == max(1, state["num_workers"])
        and all(one is None or _has(one, "dataset", "iterator", "ended", "after") for one in workers)
        and _has(state["generator"], "start", "now")
        and (sampler is None or is_place(sampler))
        and (dice is None or _has(dice, "iter", "first"))
    )


def _has(one: Any, *names: str) -> bool:
    return isinstance(one, dict) and {*names} <= {*one}
