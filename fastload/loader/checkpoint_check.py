"""Whether a checkpoint belongs to the loader that resumes from it.

In: a cursor that was loaded, and the fingerprints of the loader. Out: warnings for the user. Promised:
another order is an error that names the parts that differ; other pixels are a warning; batch sizes and world
sizes are not compared.
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

    order, pixels: the loader's own fingerprints. n: positions in an epoch. shares: those that its mixture was
    made with. explain(): says how the data has changed. Raises CursorError for another order, and for numbers
    that contradict each other.
    """
    differ = differing(restored.order, order)
    if differ:
        raise CursorError(
            f"the checkpoint belongs to another order: it differs in {', '.join(differ)}. "
            f"{explain() or 'Restore what differs.'} Or start again without load_state_dict."
        )
    _check_numbers(restored, n, shares)
    sentences = []
    if restored.made_with != shares:
        sentences.append(
            "fl.Mixture had other weights when the checkpoint was saved: the checkpoint's weights stay in "
            "force; loader.set_weights(...) changes them"
        )
    differ = differing(restored.pixels, pixels)
    if differ:
        sentences.append(
            f"{', '.join(differ)} differ from when the checkpoint was saved: the order is resumed exactly, "
            "but pixels are computed differently"
        )
    return sentences


def _check_numbers(restored: Cursor, n: int, shares: Sequence[int] | None) -> None:
    state, epoch = restored.state, restored.epoch
    if state.position // n != epoch or epoch > MAX_EPOCH:
        raise CursorError(
            f"the checkpoint is damaged: position {state.position} is not in epoch {epoch} of {n} samples. "
            "Pass what state_dict() returned."
        )
    has_same_epoch = state.mixture is None or state.epoch_mixture.position == epoch * n
    if len(restored.made_with or ()) != len(shares or ()) or not has_same_epoch:
        raise CursorError(
            "the checkpoint is damaged: its mixture does not fit its sources and its epoch. "
            "Pass what state_dict() returned."
        )
