"""What a checkpoint remembers of the data, so that a loader that refuses it can say what has changed since.

In: a dataset; later another one, and the inventory of the first. Out: an inventory, three JSON values of
constant shape; later sentences for a message. Promised: an inventory only explains, the fingerprint decides;
it takes 8 characters a container, and none for more than MAX_LISTED; the suggested solution was verified.
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

MAX_LISTED = 4096  # containers, 32 KiB of text; with more, only appended samples are recognised
MAX_SHOWN = 5  # names, in a message
_HASH_BYTES = 3  # of each name, and of each content; a collision only affects a message

Inventory = list  # [samples, containers, table: str]


def inventory_of(dataset: Dataset) -> Inventory:
    """[selected samples, containers that have any, a table of short hashes of these]."""
    listed = dataset.parts if len(dataset.parts) <= MAX_LISTED else []
    table = b"".join(_short(os.fsencode(name)) + _short(content.encode()) for name, content in listed)
    return [dataset.n, len(dataset.parts), base64.b64encode(table).decode()]


def is_inventory(value: object) -> bool:
    """Whether it has the form of an inventory; it may come from JSON."""
    if not isinstance(value, Sequence) or len(value) != 3:
        return False
    samples, containers, table = value
    if type(samples) is not int or type(containers) is not int or not isinstance(table, str):
        return False
    try:
        return len(base64.b64decode(table, validate=True)) % (2 * _HASH_BYTES) == 0
    except ValueError:
        return False


def what_changed(dataset: Dataset, then: Inventory, fingerprint_then: str, source: str | None = None) -> str:
    """Sentences for a message: how the dataset differs from that of the inventory, and how to continue.

    fingerprint_then: of the dataset then, or its beginning. source: its name in a mixture.
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
    rows = dataset.rows_of([samples - 1, samples])  # the last old one, and the first new one
    last_old, first_new = dataset.containers_of(rows).tolist()
    by_shard = last_old != first_new
    added = dataset.part_names(first_new)
    where = f"in {_few(added)}" if by_shard else f"the first of them {dataset.where(samples)}"
    if dataset.has_all_rows:
        kept = f"range({samples})" if source is None else f"{{{source!r}: range({samples})}}"
        way_out = f"Pass select={kept} to keep the previous samples"
        way_out += ", or name the source without the new shards" if by_shard else ""
    else:
        way_out = f"Let select= keep no id above {rows[0]}, the last one of the checkpoint"
    return f"{dataset.n - samples} samples were added to the {samples} of the checkpoint, {where}. {way_out}."


def _compared(dataset: Dataset, table: str, fingerprint_then: str) -> str:
    """Which containers are new, changed or gone, according to the table of then."""
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
        sentences.append(f"Changed since: {_few(changed)}.")
    if gone:
        sentences.append(f"Removed since: {gone} shards.")
    if added and not changed and not gone:
        from fastload.shards.dataset import fingerprint_of

        if fingerprint_of([dataset.parts[i] for i in known]).startswith(fingerprint_then):
            return (
                f"{sentences[0]} To resume, name the source without the new shards, or let select= keep only "
                "the previous samples."
            )
    if not sentences:
        return "The shards are in a different order."
    sentences.append(
        "If select= or exclude= was different, restore it; if samples were added to a shard, let select= "
        "keep only the previous ones; a shard that was rewritten is different data."
    )
    return " ".join(sentences)


def _short(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=_HASH_BYTES).digest()


def _few(names: list[str]) -> str:
    more = f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
    return ", ".join(names[:MAX_SHOWN]) + more
