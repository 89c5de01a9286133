"""A state that does not fit the loader is refused, with what differs."""

import warnings

import pytest

from fastload import DataLoader as OurLoader
from fastload.errors import CursorError
from tests.drop_in.stateful_cases import (
    Counting,
    Numbers,
    StatefulStream,
    Stream,
    StreamOfWalks,
    after,
    epoch,
    generator,
    maker,
    rest_of,
    workers,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:neither the dataset nor its iterator"),
    pytest.mark.filterwarnings("ignore:with in_order=False"),
]


@workers
def test_of_another_batch_size_a_stream_without_a_state_is_refused(num_workers):
    _, state = after(lambda: OurLoader(Stream(), 4, num_workers=num_workers), 2)
    loader = OurLoader(Stream(), 3, num_workers=num_workers)
    with pytest.raises(
        CursorError, match=r"saved with batch_size=4, but this loader has 3.*Use batch_size=4"
    ):
        loader.load_state_dict(state)
    _, state = after(lambda: OurLoader(StatefulStream(), 4), 2)
    assert rest_of(lambda: OurLoader(StatefulStream(), 5), state)[0][0] == 1008


@pytest.mark.parametrize(
    "other",
    [
        lambda: OurLoader(Numbers(30), 2, shuffle=True, generator=generator()),
        lambda: OurLoader(Numbers(), 2, generator=generator()),
        lambda: OurLoader(Numbers(), 2, sampler=[3, 1, 2] * 4, generator=generator()),
    ],
)
def test_a_sampler_that_draws_others_than_it_drew_is_an_error(other):
    _, state = after(maker(OurLoader, "shuffled", 0), 2)
    loader = other()
    loader.load_state_dict(state)
    with pytest.raises(CursorError, match=r"draws other samples than|Sampler has none|list has none"):
        list(loader)


@pytest.mark.parametrize("own", [False, True])
def test_a_generator_that_is_there_only_then_or_only_now_is_refused(own):
    _, state = after(lambda: OurLoader(Numbers(), generator=generator() if own else None), 1)
    loader = OurLoader(Numbers(), generator=None if own else generator())
    with pytest.raises(
        CursorError, match=f"saved with {'a' if own else 'no'} generator, but this loader has"
    ):
        loader.load_state_dict(state)


@pytest.mark.parametrize(
    "damage",
    [{"sampler": {"taken": 1}}, {"generator": None}, {"workers": []}, {"workers": [3]}, {"delivered": "2"}],
)
def test_a_damaged_state_is_refused(damage):
    _, state = after(maker(OurLoader, "shuffled", 0), 2)
    loader = maker(OurLoader, "shuffled", 0)()
    for wrong in (state | damage, []):
        with pytest.raises(CursorError, match="not a state of a loader"):
            loader.load_state_dict(wrong)


def test_in_order_false_warns_when_its_state_is_asked_for():
    loader = OurLoader(Numbers(), num_workers=2, in_order=False)
    with pytest.warns(UserWarning, match="some may be repeated or missing.*in_order=True"):
        loader.state_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        OurLoader(Numbers(), num_workers=1, in_order=False).state_dict()


@pytest.mark.parametrize(
    ("state", "make", "message"),
    [
        ({"epoch": 1}, lambda: OurLoader(Numbers()), "not a state of a loader.*state_dict"),
        ("text", lambda: OurLoader(Numbers()), "not a state of a loader"),
        (None, lambda: OurLoader(Numbers(), num_workers=2), "num_workers=0, but this loader has 2"),
        (None, lambda: OurLoader(Stream()), "kind 'map', but this one is 'iterable'"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(state, make, message):
    if state is None:
        _, state = after(lambda: OurLoader(Numbers()), 1)
    loader = make()
    with pytest.raises(CursorError, match=message) as caught:
        loader.load_state_dict(state)
    assert "\n" not in str(caught.value)
    assert len(epoch(loader)) > 0


@pytest.mark.parametrize(
    ("saved", "now", "message"),
    [
        (lambda: Numbers(), lambda: Numbers(3), "saved after 5 draws, but the sampler makes only 3 now"),
        (lambda: Stream(), lambda: Stream(3), "saved after 5 batches, but the dataset has only 3 now"),
        (lambda: StreamOfWalks(), lambda: Stream(), "list_iterator|range_iterator has no state_dict"),
        (lambda: Counting(), lambda: Numbers(), "Numbers has no state_dict"),
    ],
)
def test_a_dataset_that_does_not_fit_is_an_error(saved, now, message):
    _, state = after(lambda: OurLoader(saved(), None), 5)
    loader = OurLoader(now(), None)
    loader.load_state_dict(state)
    with pytest.raises(CursorError, match=message) as caught:
        list(loader)
    assert "\n" not in str(caught.value)
