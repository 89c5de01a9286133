"""A message about an argument shows what was given, as it was given, and the argument's name: for all
arguments of all public classes."""

import inspect

import numpy as np
import pytest
import torch

import fastload as fl
from fastload.augment import AdaController, AdaPipe, AugmentPipe, DiffAugment
from fastload.errors import ConfigError, FastloadError
from fastload.ops import AdaParams, AugmentParams, DiffAugmentParams, EdmParams

FIELDS = {"image": fl.Image(size=8)}
PICTURES = torch.zeros(2, 3, 32, 32)


def loader(**given):
    return fl.Loader(**{"source": "nowhere", "batch_size": 2, "fields": FIELDS} | given)


def data_loader(**given):
    return fl.DataLoader(**{"dataset": fl.Dataset("nowhere", FIELDS)} | given)


def used(params, operator):
    """Parameters are looked at where they are used."""
    return lambda **given: operator(params(**given))


def ada(params):
    return fl.ops.ada_augment(PICTURES, params)


def fused(params):
    return fl.ops.fused_augment(PICTURES.permute(0, 2, 3, 1), params)


def diff(params):
    everything = {"brightness": torch.zeros(2), "shift": torch.zeros(2, 2, dtype=torch.int32)}
    everything["cut_offset"] = everything["shift"]
    given = {name: value for name, value in vars(params).items() if value is not None}
    return fl.ops.diff_augment(PICTURES, DiffAugmentParams(**everything | given))


def edm(params):
    return AugmentPipe(rank=0).apply_params(PICTURES, params)


STRENGTH = (-1, "much", float("nan"))
TENSOR = (5, "much", [1.0])
NO_PATHS = (5, "folder", b"folder", [], [5], [b"a.jpg"], ["a.txt"], ["a\0.jpg"])

# class -> (what makes one, argument -> what is wrong). A tuple of no values: everything is taken, or it is
# looked at later.
LOADING = {
    "batch_size": (0, 2.5, "two"),
    "fields": (5, {}, {"image": 5}, {5: fl.Int()}),
    "augment": (5, {"xflip": 0.5}),
    "normalize": (5, "gann", (-1, 1), (0.5, 0), (0.5, "x"), ((0.5, 0.5), 0.5)),
    "dtype": (5, "float8", torch.int32),
    "layout": (5, "hwc"),
    "shuffle": (5, "yes"),
    "window": (0, "all"),
    "seed": (-1, 2**64, 0.5),
    "epochs": (0, "one"),
    "last": (5, "keep"),
    "map_batch": (5,),
    "device": (),
    "decode": (5, "fast"),
    "threads": (0, 10**9, 2.5),
    "prefetch": (0, "many"),
    "max_bytes": (0, 1.5),
    "max_pixels": (0, "all"),
    "on_bad": (5, "ignore"),
    "max_bad_fraction": (2, "all", -0.5),
    "ledger": (5, ""),
    "rank": (-1, 5, "one"),
    "world_size": (0, "one"),
    "deterministic": (5, None),
    "hw_decoder_load": (2, "half", -0.5),
    "sampler": (5,),
    "batch_sampler": (5,),
    "timeout_seconds": (0, "long", -1.5),
    "source": (5, [b"a.tar"]),
    "select": (5, "0001", [], [0.5], ["0001", 1], [[1]], [True]),
    "exclude": (5, [0.5], ["0001", 1], [[1]], [True]),
}
OF_A_DATASET = set(inspect.signature(fl.Dataset).parameters)
PIPE = {"seed": (-1, 0.5, "one"), "rank": (-1, 0.5, "one"), "impl": (5, "fast")}
CASES = {
    fl.Augment: (
        fl.Augment,
        {
            "xflip": (1.5, "yes", True),
            "yflip": (-0.5, "no"),
            "rotate": (200, "much"),
            "scale": (0.1, (1,), (1.2, 0.8), "big", 0),
            "translate": (2, (0.1,), (1.5, 0), "far"),
            "color_jitter": (0.4, (0.4, 0.4), (0.4, 0.4, 0.4, 0.9), "much"),
            "brightness": (2, "much", (0.1, 0.2)),
            "hsv": (0.1, (0.9, 0.3), (0.1, -1), "much"),
            "cutout": (0.5, (2, 0.5), (0.5, 3), "much"),
            "mixup": (-1, "much"),
            "cutmix": (1e9, "much"),
            "registered": (5, "shear", (("shear", 0.5),)),
        },
    ),
    AdaPipe: (
        AdaPipe,
        dict.fromkeys(inspect.signature(AdaPipe).parameters, STRENGTH)
        | {"imgfilter_bands": (1, (1, 1), (1, 1, -1, 1), "much")}
        | PIPE,
    ),
    AugmentPipe: (
        AugmentPipe,
        dict.fromkeys(inspect.signature(AugmentPipe).parameters, STRENGTH)
        | {"translate_int_max": (-1, 2, "much")}
        | PIPE,
    ),
    DiffAugment: (DiffAugment, {"policy": (5, "colour", "color,color", "color,")} | PIPE),
    AdaController: (
        lambda **given: AdaController(**{"pipe": AdaPipe(), "batch_size": 8} | given),
        {
            "pipe": (5, "pipe", None),
            "batch_size": (0, 2.5, "many"),
            "ada_target": (2, "high", float("nan")),
            "ada_interval": (0, 2.5, "often"),
            "ada_kimg": (0, -1, "5"),
            "p": (-1, "", "half", float("inf")),
            "group": (),  # torch's own
        },
    ),
    AdaParams: (
        used(AdaParams, ada),
        dict.fromkeys(("G_inv", "C", "gains", "sigma", "eps", "cut_size", "cut_center", "noise_key"), TENSOR),
    ),
    EdmParams: (
        used(EdmParams, edm),
        dict.fromkeys(("xflip", "yflip", "rotate_int", "translate_int", "G_inv", "C"), TENSOR)
        | {"labels": ()},
    ),
    AugmentParams: (
        used(AugmentParams, fused),
        dict.fromkeys(("G_inv", "jitter", "order", "C", "hsv", "cut_size", "cut_center"), TENSOR),
    ),
    DiffAugmentParams: (
        used(DiffAugmentParams, diff),
        dict.fromkeys(("brightness", "saturation", "contrast", "shift", "cut_offset"), TENSOR),
    ),
    fl.Image: (
        lambda **given: fl.Image(**{"size": 8} | given),
        {
            "ext": (5, "", ".jpg", "jpg;;png"),
            "size": (0, (1, 2, 3), "big", 2.5, (8, 0)),
            "resize": (5, "long", 0, 2.5),
            "crop": (5, "left", (1,), (-1, 0)),
            "filter": (5, "box"),
            "scaled": (5, "quarter"),
            "normalize": (5, (0.5,), (0.5, None)),
            "like": (5, ""),
            "report": (5, None),
            "scale": (5, (0, 1), (1, 0.5), "much"),
            "ratio": (5, (0, 1), (2, 1), "wide"),
            "default": (300, "red", (0, 0)),
        },
    ),
    fl.Int: (fl.Int, {"ext": (5, ""), "default": ("one", 2**63, 0.5)}),
    fl.Text: (fl.Text, {"ext": (5, "", "a/b"), "default": ()}),
    fl.Json: (fl.Json, {"ext": (5, ""), "default": ()}),
    fl.Tensor: (
        lambda **given: fl.Tensor(**{"ext": "npy"} | given),
        {
            "ext": (5, ""),
            "shape": (5, (1, -1), (1, 0.5), "big"),
            "dtype": (5, "float8", torch.float8_e4m3fn),
            "default": (),
        },
    ),
    fl.Bytes: (fl.Bytes, {"ext": (5, ""), "default": ()}),
    fl.Custom: (
        lambda **given: fl.Custom(**{"ext": "bin", "fn": len} | given),
        {"ext": (5, ""), "fn": (5, "len"), "default": (), "draws": (5, "yes")},
    ),
    fl.Mixture: (
        lambda **given: fl.Mixture(**{"sources": {"a": ("a", 1)}, "epoch_samples": 8} | given),
        {
            "sources": (
                5,
                {},
                {5: ("a", 1)},
                {"a": 5},
                {"a": ("a", -1)},
                {"a": ("a", "much")},
                {"a": ("a", 0)},
            ),
            "epoch_samples": (0, "many", True, 2.5),
        },
    ),
    fl.Files: (
        lambda **given: fl.Files(**{"paths": ["a.jpg"], "labels": [0]} | given).absolute(),
        {"paths": NO_PATHS, "labels": (5, [0, 1], [0.5], ["a"], [2**40]), "classes": (5, "cats")},
    ),
    fl.Loader: (loader, LOADING),
    fl.Dataset: (
        lambda **given: fl.Dataset(**{"source": "nowhere", "fields": FIELDS} | given),
        {name: wrong for name, wrong in LOADING.items() if name in OF_A_DATASET} | {"as_tuple": (5, "yes")},
    ),
    fl.DataLoader: (
        data_loader,
        {
            "batch_size": (0, 2.5, None),
            "sampler": (5,),
            "batch_sampler": (5,),
            "num_workers": (-1, 2.5),
            "collate_fn": (5, "stack"),
            "timeout": (-1, "long"),
            "generator": (5,),
            "prefetch_factor": (-1, "many"),
            "snapshot_every_n_steps": (0, 2.5, "many"),
        },
    ),
}
EVERY = [
    pytest.param(make, name, value, id=f"{kind.__name__}-{name}-{value!r}"[:60])
    for kind, (make, arguments) in CASES.items()
    for name, values in arguments.items()
    for value in values
]


@pytest.mark.parametrize("make, name, value", EVERY)
def test_a_message_shows_the_argument_and_what_was_given(make, name, value):
    also = {"world_size": 1} if name == "rank" and make is loader else {}
    also |= {"rank": 0} if name == "world_size" else {}
    also |= {"batch_size": None} if name == "batch_sampler" and make is loader else {}
    also |= {"num_workers": 2} if name == "prefetch_factor" else {}
    with pytest.raises(FastloadError) as caught:
        make(**{name: value} | also)
    message = str(caught.value)
    assert isinstance(caught.value, ConfigError) and "\n" not in message
    shown = list(map(repr, value.values())) if isinstance(value, dict) and value else [repr(value)]
    if isinstance(value, list):
        shown += map(repr, value)
    if isinstance(value, dict) and value:  # one entry is wrong, and is what is shown
        shown += [repr(key) for key in value] + [
            repr(one[-1]) for one in value.values() if isinstance(one, tuple)
        ]
    named = name in message or (name == "sources" and message.startswith("weights"))
    assert named and any(one in message for one in shown), message


@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.__name__)
def test_no_argument_is_left_out(kind):
    arguments = {name for name in inspect.signature(kind).parameters if name not in ("_", "self")}
    if kind is fl.DataLoader:  # torch's, whose others are switches, or have no effect
        switches = {
            "shuffle",
            "pin_memory",
            "drop_last",
            "persistent_workers",
            "in_order",
            "pin_memory_device",
        }
        arguments = set(inspect.signature(kind.__init__).parameters) - switches
        arguments -= {"self", "dataset", "worker_init_fn", "multiprocessing_context", "device"}
    assert arguments <= set(CASES[kind][1])


@pytest.mark.parametrize(
    "make, shown",
    [
        (lambda: fl.Augment(scale=0.1), "scale=0.1"),
        (lambda: fl.Image(size=256, resize=200), "size=256"),
        (lambda: fl.Image(size=(256, 8), resize=np.int64(200)), "size=(256, 8)"),
        (lambda: fl.Image(like="image", size=16), "size=16"),
        (lambda: fl.Image(size=8, resize="exact", crop=[1, 2]), "crop=[1, 2]"),
        (lambda: AugmentPipe(translate_int=1, translate_int_max=0.0), "translate_int_max=0.0"),
        (lambda: fl.Loader("a", 1, FIELDS, hw_decoder_load=0.5, decode="native"), "hw_decoder_load=0.5"),
        (lambda: fl.Files(["a.jpg"], classes=["cat"]), "classes=['cat']"),
        (lambda: fl.Loader("a", 1, {"image": fl.Image(size=8, normalize=(-1, 1))}), "normalize=(-1, 1)"),
        (lambda: AdaPipe.named("bcg"), "'bcg'"),
        (lambda: AdaController(torch.nn.Linear(1, 1), 8), "pipe=Linear(...)"),
        (lambda: AdaPipe(rank=0)(PICTURES, 1.5), "debug_percentile=1.5"),
    ],
)
def test_what_contradicts_something_else_is_shown_as_it_was_given(make, shown):
    with pytest.raises(ConfigError) as caught:
        make()
    assert shown in str(caught.value)
