"""Other samples in the places of bad ones, so that a batch stays whole.

In: a settled batch, with what is wrong with its samples. Out: the same batch with replacement samples, and
its part of the ledger. Promised: only content that is damaged, or a field that is missing, is replaced;
anything else is raised, and so is a sample whose replacements are all bad; a sample is replaced as a whole,
image, mask and caption together; good samples are not made again.
"""

from collections.abc import Callable

import numpy as np

from fastload.errors import SampleError
from fastload.loader.pending_batch import Fault, PendingBatch
from fastload.loader.specs import PipelineSpec
from fastload.order.replacement import MAX_ATTEMPTS
from fastload.order.sample_order import RankBatch, SampleOrder
from fastload.read.ledger import BadSample


class Replacements:
    """Replaces the bad samples of batches. sample_order: says by which ones."""

    def __init__(self, spec: PipelineSpec, dataset, sample_order: SampleOrder):
        self._spec, self._dataset, self._sample_order = spec, dataset, sample_order
        self._field_order = {name: i for i, name in enumerate(spec.fields)}

    def replace(self, pending: PendingBatch, make: Callable[[PendingBatch, RankBatch], PendingBatch]) -> None:
        """Replaces the bad samples of a batch, and lists them in `pending.bad`.

        make(pending, rank_batch): a settled batch of other samples for some of `pending`; it holds what is
        wrong with them in turn. Raises the first error of the samples where on_bad="raise" or where no sample
        is at fault, SampleError where all replacements of a sample are bad, and ShardError where a shard with
        a bad sample is not the one that was indexed.
        """
        self._raise_what_is_raised(pending)
        faults = self._first_faults(pending)
        for i in faults:
            self._dataset.check_unchanged(int(pending.sample_ids[i]))
        bad = np.array(sorted(faults), np.int64)
        pending.bad += [self.entry(pending, i, 0, *faults[i]) for i in bad.tolist()]
        pending.wrong.clear()  # or tracebacks would keep the batch's memory until garbage is collected
        for attempt in range(1, MAX_ATTEMPTS + 1):
            drawn = self._sample_order.replacements(pending.rank_batch, bad, attempt, self._spec.decode.seed)
            made = make(pending, drawn)
            self._raise_what_is_raised(made)
            still_bad = self._first_faults(made)
            pending.bad += [self.entry(made, i, attempt, *still_bad[i]) for i in sorted(still_bad)]
            made.wrong.clear()
            good = np.array([i not in still_bad for i in range(len(bad))])
            pending.adopt(bad[good], made, np.flatnonzero(good))
            bad = bad[~good]
            if not len(bad):
                return
        i = int(bad[0])
        raise self._gave_up(pending, i) from faults[i][1].error

    def entry(self, pending: PendingBatch, i: int, attempt: int, name: str, fault: Fault) -> BadSample:
        """The ledger's line for sample i of a batch, whose field `name` is bad."""
        row = self._dataset.row(int(pending.sample_ids[i]))
        offsets = {extension: start for extension, (start, _) in row.extensions.items()}
        stored = [offsets[ext] for ext in self._spec.fields[name].extensions if ext in offsets]
        source = (
            None
            if pending.rank_batch.sources is None
            else self._spec.source_names[pending.rank_batch.sources[i]]
        )
        return BadSample(
            position=int(pending.positions[i]),
            attempt=attempt,
            sample_id=row.id,
            shard=row.container,
            key=row.key,
            offset_bytes=stored[0] if stored else min(offsets.values()),
            field=name,
            field_type=type(self._spec.fields[name]).__name__,
            ext=self._spec.fields[name].ext,
            reason=fault.reason,
            source=source,
        )

    def _first_faults(self, pending: PendingBatch) -> dict[int, tuple[str, Fault]]:
        """sample -> its first bad field, in the user's order."""
        faults: dict[int, tuple[str, Fault]] = {}
        for i, name in sorted(pending.wrong, key=self._in_order):
            faults.setdefault(i, (name, pending.wrong[i, name]))
        return faults

    def _raise_what_is_raised(self, pending: PendingBatch) -> None:
        """The first in the batch, so that every run names the same."""
        for at in sorted(pending.wrong, key=self._in_order):
            fault = pending.wrong[at]
            if self._spec.on_bad == "raise" or not fault.is_of_the_content:
                raise fault.error

    def _in_order(self, at: tuple[int, str]) -> tuple[int, int]:
        return at[0], self._field_order[at[1]]

    def _gave_up(self, pending: PendingBatch, i: int) -> SampleError:
        tried = [entry for entry in pending.bad if entry.position == int(pending.positions[i])]
        return SampleError(
            f"{tried[0]}; all {MAX_ATTEMPTS} replacement samples are bad as well, the last "
            f" {tried[-1]}. Look for what they have in common: fastload check lists the bad samples."
        )
