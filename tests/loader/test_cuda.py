"""A loader on a GPU: the pixels of the CPU, in any order of streams. Where there is no GPU nothing of it can
run."""

import pytest
import torch

import fastload as fl
from fastload import backends
from tests.loader.samples import flat
from tests.loader.test_augment import SEED, SIZE, STRENGTHS, by_position, largest_difference, loader

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
needs_dali = pytest.mark.skipif(not backends.has("nvidia.dali"), reason="DALI is not installed")
DECODERS = ["native", pytest.param("dali", marks=needs_dali)]


@pytest.mark.parametrize("strengths", STRENGTHS)
@pytest.mark.parametrize("decode", DECODERS)
def test_a_batch_is_the_reference_of_its_own_levels(shards, decode, strengths):
    how = {"decode": decode, "device": "cuda"}
    augment = fl.Augment(**STRENGTHS[strengths])
    made = by_position(loader(shards, augment=augment, **how))
    for batch in loader(shards, dtype="uint8", **how):
        assert batch["image"].device.type == "cuda"
        reference = {"normalize": "gan", "dtype": "float64", "impl": "reference"}
        images = augment(batch["image"], batch["__position__"], SEED, **reference)
        for position, image in zip(batch["__position__"].tolist(), images, strict=True):
            # The contract's bounds, times 2 for [-1, 1]; a hue of a nearly gray pixel is a quotient of small
            # numbers.
            assert (made[position] - image).abs().max() < 5e-4


def test_levels_of_the_cpu_finished_on_the_gpu_are_those_of_the_cpu(shards):
    how = {"decode": "native", "augment": fl.Augment(**STRENGTHS["all"])}
    there = {key: image.cpu() for key, image in by_position(loader(shards, device="cuda", **how)).items()}
    assert largest_difference(there, by_position(loader(shards, device="cpu", **how))) < 5e-4


@pytest.mark.parametrize("arguments", [{"dtype": "uint8", "layout": "channels_last"}, {"dtype": "bfloat16"}])
@pytest.mark.parametrize("decode", DECODERS)
def test_batches_in_hand_are_never_written_again(shards, decode, arguments):
    """Beside a stream that is kept busy, so that the loader runs ahead of the readers."""
    made = loader(shards, 4, decode=decode, device="cuda", prefetch=6, **arguments)
    kept, weights = [], torch.randn(2048, 2048, device="cuda")
    for _ in range(4):
        for batch in made:
            weights = (weights @ weights).tanh()
            kept.append((batch["image"], batch["image"].clone()))
            other = batch["image"].float() * 2  # memory that comes and goes
            del other
    torch.cuda.synchronize()
    assert all(torch.equal(image, then) for image, then in kept)


@pytest.mark.parametrize("decode", DECODERS)
def test_two_runs_and_two_depths_give_the_same_bits(shards, decode):
    how = {"decode": decode, "device": "cuda", "augment": fl.Augment(**STRENGTHS["all"])}
    first = by_position(loader(shards, 5, prefetch=1, **how))
    second = by_position(loader(shards, 3, prefetch=8, **how))
    assert largest_difference(first, second) == 0


@pytest.mark.parametrize("decode", DECODERS)
def test_epochs_share_one_stream_and_close_leaves_nothing(shards, decode):
    made = loader(shards, 4, decode=decode, device="cuda")
    for _ in range(5):
        assert len(flat(made)) == 23
    delivery = made._kept["delivery"]
    torch.cuda.synchronize()
    assert made.stats()["device"]["batches"] == 30
    made.close()
    assert len(delivery._in_flight) == 0


def test_mixing_and_stand_ins_on_the_gpu(shards):
    augment = fl.Augment(mixup=0.5, cutmix=1.0)
    for batch in loader(shards, 6, device="cuda", decode="native", augment=augment):
        assert {batch[name].device.type for name in ("image", "label", "label.mixed", "__lambda__")} == {
            "cuda"
        }
        assert batch["image"].shape[1:] == (3, *SIZE)
        mixed = augment.mix(batch["image"], batch["label"], batch["__position__"], SEED)
        assert mixed.images.device.type == "cuda"
