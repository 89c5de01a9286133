"""What a checkpoint remembers of the data, so that a loader that refuses it can say what has changed since.

In: a dataset; later another one, and what was remembered. Out: an inventory, three JSON values of constant
shape; later sentences. Promised: an inventory decides nothing, the fingerprint does; it takes 8 characters a
container, and none where there are more than MAX_LISTED; the way out that is named is one that was tried.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastload.shards.dataset import Dataset

MAX_LISTED = 4096  # containers, 32 KiB of text; of more only what was appended is told
MAX_SHOWN = 5  # names, in a message
_HASH_BYTES = 3  # of each name, and of each content; an error in a message is no harm

Inventory = list  # [samples, containers, table: str]


def inventory_of(dataset: Dataset) -> Inventory:
    """[selected samples, containers that have some, a table of short hashes of these]."""
    listed = dataset.parts if len(dataset.parts) <= MAX_LISTED else []
    table = b"".join(_short(os.fsencode(name)) + _short(content.encode()) for name, content in listed)
    return [dataset.n, len(dataset.parts), base64.b64encode(table).decode()]


def is_inventory(one: object) -> bool:
    """Whether it has the form of an inventory; it may come from JSON."""
    if not isinstance(one, Sequence) or len(one) != 3 or not all(type(count) is int for count in one[:2]):
        return False
    try:
        table = base64.b64decode(one[2], validate=True) if isinstance(one[2], str) else None
    except ValueError:
        return False
    return table is not None and len(table) % (2 * _HASH_BYTES) == 0


def what_changed(dataset: Dataset, then: Inventory, fingerprint_then: str, source: str | None = None) -> str:
    """Sentences for a message: how the dataset differs from that of the inventory, and what goes on with it.

    fingerprint_then: that of the dataset then, or its beginning. source: what a mixture calls it.
    """
    samples, containers, table = then
    if 0 < samples < dataset.n:
        first = dataset.fingerprint_of_first(samples)
        if first is not None and first.startswith(fingerprint_then):
            return _grown_at_the_end(dataset, samples, source)
    now = f"this loader has {dataset.n} in {len(dataset.parts)}"
    counts = f"It was saved with {samples} samples in {containers} shards, and {now}."
    return f"{counts} {_compared(dataset, table, fingerprint_then)}".strip()


def _grown_at_the_end(dataset: Dataset, samples: int, source: str | None) -> str:
    rows = dataset.rows_of([samples - 1, samples])  # the last of then, and the first that is new
    home_then, home = dataset.containers_of(rows).tolist()
    by_shard = home_then != home
    where = (
        f"in {_few(dataset.part_names(home))}" if by_shard else f"the first of them {dataset.where(samples)}"
    )
    if dataset.has_all_rows:
        kept = f"range({samples})" if source is None else f"{{{source!r}: range({samples})}}"
        way_out = f"Pass select={kept} to keep what was there then"
        way_out += ", or name the source without what was added" if by_shard else ""
    else:
        way_out = f"Let select= keep no id above {rows[0]}: what was there then ends with it"
    return f"{dataset.n - samples} samples were added to the {samples} of then, {where}. {way_out}."


def _compared(dataset: Dataset, table: str, fingerprint_then: str) -> str:
    """What the table of then tells: which containers are new, changed or gone."""
    listed = base64.b64decode(table)
    if not listed:
        return ""
    size = 2 * _HASH_BYTES
    then = Counter(listed[at : at + size] for at in range(0, len(listed), size))
    names_then = Counter({entry[:_HASH_BYTES]: count for entry, count in then.items()})
    added, changed, known = [], [], []
    for i, ((name, content), shown) in enumerate(zip(dataset.parts, dataset.part_names(), strict=True)):
        entry = _short(os.fsencode(name)) + _short(content.encode())
        if then[entry] > 0:
            then[entry] -= 1
            known.append(i)
        else:
            (changed if names_then[entry[:_HASH_BYTES]] else added).append(shown)
    gone = max(0, then.total() - len(changed))
    sentences = []
    if added:
        sentences.append(f"Added since: {_few(added)}.")
    if changed:
        sentences.append(f"With other samples than then: {_few(changed)}.")
    if gone:
        sentences.append(f"No longer there: {gone} of the shards of then.")
    if added and not changed and not gone:
        from fastload.shards.dataset import fingerprint_of

        if fingerprint_of([dataset.parts[i] for i in known]).startswith(fingerprint_then):
            return (
                f"{sentences[0]} To go on, name the source without what was added, or let select= keep what "
                "was there then."
            )
    if not sentences:
        return "The shards come in another order than then."
    sentences.append(
        "Where select= or exclude= was another, restore it; where samples were added to a shard, let select= "
        "keep what was there then; what was written anew is other data."
    )
    return " ".join(sentences)


def _short(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=_HASH_BYTES).digest()


def _few(names: list[str]) -> str:
    more = f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
    return ", ".join(names[:MAX_SHOWN]) + more
