"""Transforms and datasets of torchvision that have no counterpart are refused by name, with the reason."""

import pytest
import torch

from fastload.drop_in.from_torchvision import dataset_arguments
from fastload.errors import ConfigError
from tests.drop_in.fake_torchvision import (
    Folder,
    InterpolationMode,
    basic,
    c,
    h,
    image,
    jitter,
    loader_named,
    norm,
    own_items,
    own_kind,
    r,
    standard,
    subset,
    to,
    v1,
    v2,
)


class Own:
    """A transform of the user's own."""


def own_function(image):
    return image


f32 = v2.ToDtype(torch.float32, scale=True)
REFUSED = [
    ([to], "they must make all images one size; add Resize"),
    ([], "they must make all images one size"),
    ([r, to], r"Resize: on its own it leaves .*add CenterCrop\(40\)"),
    ([r, c], r"they must return a tensor.*add ToTensor\(\)"),
    ([c, to], r"CenterCrop: .*put Resize\(32\) before it"),
    ([c, r, to], "CenterCrop: .*before it"),
    ([r, r, c, to], "Resize: the images are resized already"),
    ([r, c, r, to], "Resize: the images are resized already"),
    ([r, v2.RandomResizedCrop(8), to], "RandomResizedCrop: the images are resized already"),
    ([r, c, v2.CenterCrop(30), to], "CenterCrop: a crop of a cropped image"),
    ([v2.Resize((40, 40)), c, to], "CenterCrop: a crop of a cropped image"),
    ([r, v2.CenterCrop(41), to], r"CenterCrop: it must fit into Resize\(40\), got 41 x 41"),
    ([r, v2.RandomCrop((8, 41)), to], r"RandomCrop: it must fit into .*, got 8 x 41"),
    ([r, v1.RandomCrop(32, padding=4), to], "RandomCrop: padding=4 has no counterpart"),
    ([r, v2.RandomCrop(32, padding=[0, 4]), to], r"RandomCrop: padding=\[0, 4, 0, 4\] has no counterpart"),
    ([v2.Resize(40, max_size=50), c, to], "Resize: max_size=50"),
    ([v2.Resize(None, max_size=50), c, to], "Resize: size must be an integer.*got None"),
    ([v2.Resize(40, antialias=False), c, to], "Resize: antialias must be True, got False"),
    ([v2.RandomResizedCrop(8, antialias=False), to], "RandomResizedCrop: antialias must be True, got False"),
    ([image, v2.Resize(40, antialias=None), c, f32], "Resize: antialias must be True, got None"),
    ([v2.Resize(40, interpolation="nearest"), c, to], "interpolation must be one of .*, got 'nearest'"),
    ([v2.Resize(40, interpolation=InterpolationMode("nearest-exact")), c, to], "'nearest-exact'"),
    ([v2.Resize(40, interpolation=0), c, to], "'nearest'"),
    ([v2.Resize(40, interpolation=4), c, to], "'box'"),
    (
        [v2.RandomResizedCrop(40, interpolation="hamming"), to],
        "RandomResizedCrop: interpolation must be .* got 'hamming'",
    ),
    ([v2.RandomResizedCrop(40, scale=(0.5, 1.5)), to], r"from_torch: Image\(scale="),
    ([to, r, c], "Resize: resizing floats.*move it before ToTensor"),
    ([image, f32, v2.RandomResizedCrop(8)], "RandomResizedCrop: resizing floats"),
    ([h, r, c, to], "RandomHorizontalFlip: .*move it after the crop"),
    ([r, v2.RandomVerticalFlip(), c, to], "RandomVerticalFlip: .*move it after the crop"),
    ([r, c, h, h, to], "RandomHorizontalFlip: it must not come twice"),
    ([jitter, r, c, to], "ColorJitter: .*move it after the crop"),
    ([r, jitter, v2.RandomCrop(9), to], "ColorJitter: .*move it after the crop"),
    ([r, c, jitter, jitter, to], "ColorJitter: it must not come twice"),
    ([r, c, to, norm, jitter], "ColorJitter: .*move it before Normalize"),
    ([r, c, v2.ColorJitter(None, None, None, (-0.7, 0.1)), to], r"from_torch: Augment\(color_jitter="),
    ([r, c, to, to], "ToTensor: the image is a tensor already"),
    ([r, c, image, v2.PILToTensor()], "PILToTensor: the image is a tensor already"),
    ([r, c, to, norm, norm], "Normalize: it must not come twice"),
    ([r, c, norm, to], "Normalize: it must get float32, got pil"),
    ([r, c, image, norm], "Normalize: it must get float32, got uint8"),
    (
        [r, c, image, v2.ToDtype(torch.float16, scale=True), norm],
        "Normalize: it must get float32, got float16",
    ),
    ([r, c, to, v2.Normalize([0.5], [0.0])], "Normalize: .*std must be above 0"),
    ([r, c, to, v2.Normalize([0.5] * 4, [0.5] * 4)], "Normalize: .*one number or three"),
    ([r, c, f32, image], r"ToDtype: .*put ToImage\(\) before it"),
    ([r, c, image, v2.ToDtype(torch.float32)], "ToDtype: scale must be True"),
    ([r, c, image, v2.ToDtype(torch.float64, scale=True)], "ToDtype: dtype must be one of .*, got float64"),
    ([r, c, to, v2.ToDtype(torch.uint8, scale=True)], "ToDtype: dtype must be one of .*, got uint8"),
    (
        [r, c, image, v2.ToDtype({"others": None}, scale=True)],
        "ToDtype: dtype must be one of .*, got {'others': None}",
    ),
    ([r, c, to, v2.ToDtype(torch.float16), f32], "ToDtype: float16 would become float32"),
    (
        [r, c, to, v2.RandomErasing()],
        r"RandomErasing: it has no counterpart in fastload; use fl.Augment\(cutout",
    ),
    ([r, c, v1.RandomRotation(), to], r"RandomRotation: .*fl.Augment\(rotate"),
    ([r, c, v1.GaussianBlur(), to], "GaussianBlur: .*map_batch"),
    ([r, c, v1.RandomApply([jitter]), to], "RandomApply: .*map_batch"),
    ([r, c, v1.AutoAugment(), to], "AutoAugment: .*map_batch"),
    ([r, c, v1.Lambda(), to], "Lambda: .*map_batch"),
    ([r, c, v1.Pad(), to], "Pad: it has no counterpart"),
    ([r, c, v1.Grayscale(), to], "Grayscale: it has no counterpart"),
    ([r, c, Own(), to], "Own: it has no counterpart"),
    ([r, c, own_function, to], "own_function: it has no counterpart"),
    ([r, c, type("ToTensor", (), {})()], "ToTensor: it has no counterpart"),
    ([r, c, type("Compose", (), {"transforms": [to]})()], "Compose: it has no counterpart"),
]


@pytest.mark.parametrize("steps, message", REFUSED, ids=lambda one: one if isinstance(one, str) else "")
def test_what_has_no_counterpart_is_refused_by_name_with_the_reason(root, steps, message):
    with pytest.raises(ConfigError, match=message) as caught:
        dataset_arguments(Folder(root, v2.Compose(steps)))
    assert str(caught.value).startswith("from_torch: ") and "\n" not in str(caught.value)


def changed(**attributes):
    def change(folder):
        folder.__dict__.update(attributes)
        return folder

    return change


class OwnSubset(torch.utils.data.Subset):
    def __getitem__(self, place):
        return own_function(super().__getitem__(place))

    def __getitems__(self, places):
        return [self[place] for place in places]


TorchFolder = type(
    "ImageFolder", (), {"__module__": "torchvision.datasets.folder", "__getitem__": own_function}
)

TorchFolder.__getitem__.__module__ = __name__


class OwnFolder(TorchFolder):
    def __getitem__(self, place):
        return own_function(super().__getitem__(place))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda _: object(), "object: it must have a list `samples`.*fl.Loader"),
        (lambda _: [1, 2], "list: it must have a list `samples`"),
        (changed(samples=[]), "Folder: it must have a list `samples`"),
        (changed(transform=None), "it has no transform"),
        (changed(target_transform=own_function), "its target_transform changes labels"),
        (changed(transform=None, transforms=standard(basic(v1), own_function)), "its target_transform"),
        (
            changed(transform=None, transforms=own_function),
            "own_function: it changes images and labels together",
        ),
        (
            changed(loader=own_function),
            "its loader must be torchvision's default_loader or pil_loader, got own_function",
        ),
        (changed(loader=loader_named("default_loader", "mine")), "its loader must be .*, got default_loader"),
        (
            changed(loader=loader_named("accimage_loader", "torchvision.datasets.folder")),
            "its loader must be .*, got accimage",
        ),
        (changed(samples=[("a.jpg", 1.0)]), "labels must be integers, got 1.0"),
        (changed(samples=[("a.jpg", 1), ("b.jpg", True)]), "labels must be integers, got True"),
        (changed(samples=[("a.jpg", "cat")]), "labels must be integers, got 'cat'"),
        (changed(samples=[("a.jpg", 0), ("b.pgm", 1)]), "'b.pgm' does not have the extension"),
        (changed(samples=[("a.npy", 0)]), "'a.npy' does not have the extension"),
        (subset([]), "Subset: it is empty; it must have"),
        (subset([0.5]), "Subset: its indices must be .*, got float64"),
        (subset([True, False]), "Subset: its indices must be .*, got bool"),
        (subset([[0, 1]]), r"Subset: its indices must be .*, got int64 \[1, 2\]"),
        (subset([0, 10**6]), "indices of a Subset must be in .*, got 1000000"),
        (subset([-(10**6)]), "indices of a Subset must be in .*, got -1000000"),
        (lambda f: torch.utils.data.Subset(subset([0, 1])(f), [2]), "Subset: index 2 is out of bounds"),
        (lambda f: OwnSubset(f, [0]), "OwnSubset: its own __getitem__ would not be called"),
        (own_kind(OwnFolder), "OwnFolder: its own __getitem__ would not be called"),
    ],
)
def test_a_dataset_that_means_more_is_refused_with_the_reason(root, change, message):
    with pytest.raises(ConfigError, match=message) as caught:
        dataset_arguments(change(Folder(root, basic(v1))))
    assert "\n" not in str(caught.value)


def fail(*_):
    raise RuntimeError("no\nfile")


@pytest.mark.parametrize(
    "change, message",
    [
        (
            own_items(lambda image, label: (image, label, 0)),
            r"returns \(float32 \[3, 32, 32\], 0, 0\)",
        ),
        (
            own_items(lambda image, label: (image, label + 1)),
            r"returns \(float32 \[3, 32, 32\], 1\)",
        ),
        (
            own_items(lambda image, label: (image[:1], label)),
            r"must return \(float32 \[3, 32, 32\], 0\) for sample 0",
        ),
        (own_items(lambda image, label: (image.half(), label)), r"returns \(float16 .*use map_batch"),
        (own_items(lambda image, label: {"image": image}), r"returns \(dict\)"),
        (own_items(lambda image, label: (image.numpy, [label])), r"returns \(builtin_.*, list\)"),
        (own_items(fail), r"Mine: its own __getitem__ raises for sample 0 \(RuntimeError: no file\)"),
        (own_items(lambda *item: item, 3), "it must have [0-9]+ items, as samples has, got 3"),
    ],
)
def test_a_class_of_yours_that_gives_something_else_is_refused(root, change, message):
    with pytest.raises(ConfigError, match=message) as caught:
        dataset_arguments(change(Folder(root, basic(v1))))
    assert "\n" not in str(caught.value)


def test_a_std_of_zero_is_refused_in_the_transforms_name(root):
    with pytest.raises(
        ConfigError, match=r"^from_torch: Normalize: std must be above 0, got \(0\.5, 0\.0, 0\.5\)"
    ):
        dataset_arguments(Folder(root, v1.Compose([basic(v1), v1.Normalize([0.5] * 3, [0.5, 0.0, 0.5])])))
