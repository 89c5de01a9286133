"""Whether a checkpoint belongs to the loader that is to go on from it.

In: a cursor that was loaded, and what this loader's own would have. Out: what the user is to be warned of.
Promised: another order is an error that names the parts that differ; other pixels are no error; sizes of
batches and worlds are not looked at.
"""

from collections.abc import Callable, Mapping, Sequence

from fastload.errors import CursorError
from fastload.loader.config import MAX_EPOCH
from fastload.order.cursor import Cursor, differing


def check_restored(
    restored: Cursor,
    order: Mapping,
    pixels: Mapping,
    n: int,
    shares: Sequence[int] | None,
    explain: Callable[[], str] = str,
) -> list[str]:
    """Sentences to warn with, one for the weights of a mixture and one for pixels.

    order, pixels: the loader's own fingerprints. n: positions in an epoch. shares: with which its mixture was
    made. explain: says what has become of the data. Raises CursorError for another order, and for numbers
    that do not belong together.
    """
    differ = differing(restored.order, order)
    if differ:
        raise CursorError(
            f"the checkpoint belongs to another order: it differs in {', '.join(differ)}. "
            f"{explain() or 'Restore what differs.'} Or start anew without load_state_dict."
        )
    _check_numbers(restored, n, shares)
    sentences = []
    if restored.made_with != shares:
        sentences.append(
            "fl.Mixture was given other weights when the checkpoint was saved: the checkpoint's stay in "
            "force; loader.set_weights(...) changes them"
        )
    differ = differing(restored.pixels, pixels)
    if differ:
        sentences.append(
            f"{', '.join(differ)} differ from when the checkpoint was saved: the order goes on exactly, the "
            "pixels are made differently"
        )
    return sentences


def _check_numbers(restored: Cursor, n: int, shares: Sequence[int] | None) -> None:
    place, epoch = restored.state, restored.epoch
    if place.position // n != epoch or epoch > MAX_EPOCH:
        raise CursorError(
            f"the checkpoint is damaged: position {place.position} is not in epoch {epoch} of {n} samples. "
            "Pass what state_dict() returned."
        )
    of_epoch = place.mixture is None or place.epoch_mixture.position == epoch * n
    if len(restored.made_with or ()) != len(shares or ()) or not of_epoch:
        raise CursorError(
            "the checkpoint is damaged: its mixture is not that of its sources and its epoch. "
            "Pass what state_dict() returned."
        )
