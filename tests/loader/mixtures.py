"""A mixture of three small sources."""

from itertools import chain

import fastload as fl

SIZES = {"art": 7, "cats": 23, "dogs": 10}
FIRST = {"art": 1000, "cats": 2000, "dogs": 3000}  # the label of a source's first sample
WEIGHTS = {"art": 0.2, "cats": 0.5, "dogs": 0.3}
N = 50


def mixture(folders, weights=WEIGHTS, epoch_samples=N):
    return fl.Mixture({name: (folders[name], weight) for name, weight in weights.items()}, epoch_samples)


def sources(batches):
    return list(chain.from_iterable(batch["__source__"] for batch in batches))
