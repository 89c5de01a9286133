"""A settled batch as the dict that is delivered.

In: a PendingBatch of which everything is made. Out: the fields in the order that the user gave, then
"__key__", "__id__", "__position__", of a mixture "__source__", and with last="pad" "__mask__".
"""

from collections.abc import Iterable

import numpy as np

from fastload.loader.pending_batch import PendingBatch


class Assembly:
    """Puts batches together.

    names: of all fields. labelled: of those that are the dataset's labels. source_names: of a mixture, else
    []. masks: whether a batch marks samples that repeat the start of the epoch.
    """

    def __init__(
        self,
        names: Iterable[str],
        labelled: set[str],
        dataset,
        source_names: list[str],
        rank: int,
        masks: bool,
    ):
        self._names, self._labelled, self._dataset = list(names), labelled, dataset
        self._source_names, self._rank, self._masks = source_names, rank, masks

    def assemble(self, pending: PendingBatch) -> dict:
        """Tensors and lists; nothing waits."""
        batch = {}
        columns = {name: part for part in pending.parts for name in part.names}
        for name in self._names:
            if name in self._labelled:
                batch[name] = _as_tensor(self._dataset.labels(pending.sample_ids))
            else:
                batch |= columns[name].column(name, pending.where_of)
        batch["__key__"] = self._dataset.keys(pending.sample_ids)
        batch["__id__"] = _as_tensor(self._dataset.rows_of(pending.sample_ids))
        batch["__position__"] = _as_tensor(pending.positions)
        if pending.rank_batch.sources is not None:
            batch["__source__"] = [self._source_names[i] for i in pending.rank_batch.sources.tolist()]
        if self._masks:
            batch["__mask__"] = _as_tensor(pending.step.valid(self._rank))
        return batch


def _as_tensor(array: np.ndarray):
    import torch

    return torch.from_numpy(np.ascontiguousarray(array))
