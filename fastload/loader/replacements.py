"""Other samples in the places of bad ones, so that a batch stays whole.

In: a batch of which all that can be made is made, with what is wrong with its samples. Out: the same batch
with stand-ins in their places, and its part of the ledger. Promised: only content that is damaged, or a field
that is missing, is replaced; anything else is raised, and so is a sample whose stand-ins are all bad; a
sample is replaced as a whole, picture, mask and caption together; the good ones are not made again.
"""

from collections.abc import Callable

import numpy as np

from fastload.errors import SampleError
from fastload.loader.pending_batch import Fault, PendingBatch
from fastload.order.replacement import MAX_ATTEMPTS
from fastload.order.sample_order import RankBatch, SampleOrder
from fastload.read.ledger import BadSample


class Replacements:
    """Replaces the bad samples of batches.

    walk: which samples stand in. source_names: of a mixture, else [].
    """

    def __init__(self, config, dataset, source_names: list[str], walk: SampleOrder):
        self._config, self._dataset, self._source_names = config, dataset, source_names
        self._walk = walk
        self._field_order = {name: place for place, name in enumerate(config.fields)}

    def replace(self, trip: PendingBatch, make: Callable[[PendingBatch, RankBatch], PendingBatch]) -> None:
        """Replaces the bad samples of a batch that has some, and notes them in `trip.bad`.

        make(trip, taken): a batch of other samples for some places of `trip`, of which all that can be made
        is made; it holds what is wrong with them in turn. Raises the first error of the samples where
        on_bad="raise" or where no sample is at fault, SampleError where all stand-ins of one are bad, and
        ShardError where a shard with a bad sample is not the one that was indexed.
        """
        self._raise_what_is_raised(trip)
        faults = self._first_faults(trip)
        for i in faults:
            self._dataset.check_unchanged(int(trip.sample_ids[i]))
        places = np.array(sorted(faults), np.int64)
        trip.bad += [self.entry(trip, i, 0, *faults[i]) for i in places.tolist()]
        trip.wrong.clear()  # tracebacks hold the batch, and would keep its memory until garbage is collected
        for attempt in range(1, MAX_ATTEMPTS + 1):
            drawn = self._walk.replacements(trip.taken, places, attempt, self._config.seed)
            made = make(trip, drawn)
            self._raise_what_is_raised(made)
            still_bad = self._first_faults(made)
            trip.bad += [self.entry(made, i, attempt, *still_bad[i]) for i in sorted(still_bad)]
            made.wrong.clear()
            good = np.array([i not in still_bad for i in range(len(places))])
            _adopt(trip, places[good], made, np.flatnonzero(good))
            if made.images is not None:
                made.images.release(None)
            places = places[~good]
            if not len(places):
                return
        i = int(places[0])
        raise self._gave_up(trip, i) from faults[i][1].error

    def entry(self, trip: PendingBatch, i: int, attempt: int, name: str, fault: Fault) -> BadSample:
        """The line of the ledger for sample i of a batch, of which one field is bad."""
        row = self._dataset.row(int(trip.sample_ids[i]))
        offsets = {extension: start for extension, (start, _) in row.extensions.items()}
        stored = [offsets[one] for one in self._config.fields[name].extensions if one in offsets]
        source = None if trip.taken.sources is None else self._source_names[trip.taken.sources[i]]
        return BadSample(
            position=int(trip.positions[i]),
            attempt=attempt,
            sample_id=row.id,
            shard=row.container,
            key=row.key,
            offset_bytes=stored[0] if stored else min(offsets.values()),
            field=name,
            field_type=type(self._config.fields[name]).__name__,
            ext=self._config.fields[name].ext,
            reason=fault.reason,
            source=source,
        )

    def _first_faults(self, trip: PendingBatch) -> dict[int, tuple[str, Fault]]:
        """sample -> the first field, in the order of the user's, that is wrong with it."""
        faults: dict[int, tuple[str, Fault]] = {}
        for i, name in sorted(trip.wrong, key=self._place):
            faults.setdefault(i, (name, trip.wrong[i, name]))
        return faults

    def _raise_what_is_raised(self, trip: PendingBatch) -> None:
        """Of several, the first in the batch, so that every run names the same."""
        for place in sorted(trip.wrong, key=self._place):
            fault = trip.wrong[place]
            if self._config.on_bad == "raise" or not fault.is_of_the_content:
                raise fault.error

    def _place(self, place: tuple[int, str]) -> tuple[int, int]:
        return place[0], self._field_order[place[1]]

    def _gave_up(self, trip: PendingBatch, i: int) -> SampleError:
        of_place = [one for one in trip.bad if one.position == int(trip.positions[i])]
        return SampleError(
            f"{of_place[0]}; all {MAX_ATTEMPTS} samples that were to stand in for it are bad as well, the "
            f"last {of_place[-1]}. Look for what they have in common: fastload check lists the bad samples."
        )


def _adopt(trip: PendingBatch, places: np.ndarray, made: PendingBatch, theirs: np.ndarray) -> None:
    """Samples `theirs` of another batch take places in this one."""
    if not len(places):
        return
    trip.sample_ids[places] = made.sample_ids[theirs]
    for name, own in trip.values.items():
        for place, their in zip(places.tolist(), theirs.tolist(), strict=True):
            own[place] = made.values[name][their]
    if trip.images is not None:
        trip.images.adopt(places, made.images, theirs)
