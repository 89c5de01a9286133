"""Torchvision's datasets as fastload's: the same samples, geometry and numbers.

What cannot be the same is refused: test_torchvision_refused.py.
"""

import importlib

import numpy as np
import pytest
import torch
from PIL import Image

import fastload as fl
from fastload.drop_in.from_torchvision import dataset_arguments
from fastload.errors import ConfigError
from tests.drop_in.fake_torchvision import (
    JITTER,
    Folder,
    InterpolationMode,
    basic,
    h,
    loader_named,
    own_items,
    standard,
    to,
    v1,
    v2,
)

FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

both = pytest.mark.parametrize("tv", [v1, v2], ids=str)


def delivered(arguments, decode="native", **more):
    """All images and labels in order, as a loader makes them of what `dataset_arguments` gave."""
    arguments = dict(arguments)
    assert arguments.pop("as_tuple") is True
    loader = fl.Loader(
        batch_size=16,
        shuffle=False,
        last="partial",
        decode=decode,
        device="cpu",
        on_bad="raise",
        **arguments,
        **more,
    )
    with loader:
        batches = list(loader)
    return torch.cat([b["image"] for b in batches]), torch.cat([b["label"] for b in batches])


def by_pillow(path, resize, crop, filter, normalize=None):
    """What torchvision's transforms make of a file: convert, resize, CenterCrop, ToTensor, Normalize."""
    with open(path, "rb") as file:
        image = Image.open(file).convert("RGB")
    if isinstance(resize, int):
        short, long = sorted(image.size)
        sides = (resize, int(resize * long / short))
        size = sides if image.width <= image.height else sides[::-1]
    else:
        size = resize[::-1]
    image = image.resize(size, FILTERS[filter]) if size != image.size else image
    if crop is not None:
        top, left = round((image.height - crop[0]) / 2.0), round((image.width - crop[1]) / 2.0)
        image = image.crop((left, top, left + crop[1], top + crop[0]))
    levels = torch.from_numpy(np.array(image)).permute(2, 0, 1).to(torch.float32).div(255)
    if normalize is None:
        return levels
    mean, std = (torch.tensor(one, dtype=torch.float32).view(-1, 1, 1) for one in normalize)
    return levels.sub(mean).div(std)


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
VIEWS = [
    (64, (56, 56), "bilinear", None),
    (64, (64, 64), "bicubic", None),
    (77, (33, 60), "bilinear", IMAGENET),
    (41, (40, 40), "bicubic", ((0.5,), (0.25,))),
    (90, (77, 1), "lanczos", ((0.5,) * 3, (0.5,) * 3)),
    ((31, 50), None, "bilinear", None),
    ((50, 31), None, "lanczos", IMAGENET),
]


def as_transforms(tv, resize, crop, filter, normalize, mode=lambda name: name):
    made = [tv.Resize(resize if isinstance(resize, int) else list(resize), interpolation=mode(filter))]
    made += [] if crop is None else [tv.CenterCrop(crop)]
    made += [tv.ToTensor()] if normalize is None else [tv.ToTensor(), tv.Normalize(*normalize)]
    return tv.Compose(made)


@both
@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_pixels_are_those_of_torchvisions_way_with_pillow(root, tv, view):
    folder = Folder(root, as_transforms(tv, *view))
    images, labels = delivered(dataset_arguments(folder))
    assert labels.tolist() == [label for _, label in folder.samples]
    for image, (path, _) in zip(images, folder.samples, strict=True):
        expected = by_pillow(path, *view)
        assert image.dtype == expected.dtype and image.shape == expected.shape
        assert torch.equal(image, expected), path


@pytest.mark.parametrize("version", ["transforms", "transforms.v2"])
@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_pixels_are_those_of_torchvision_itself(root, version, view):
    pytest.importorskip("torchvision")
    real, datasets = (importlib.import_module(f"torchvision.{name}") for name in (version, "datasets"))
    folder = datasets.ImageFolder(root, as_transforms(real, *view, mode=real.InterpolationMode))
    images, labels = delivered(dataset_arguments(folder))
    assert labels.tolist() == folder.targets and len(images) == len(folder)
    for i, image in enumerate(images):
        assert torch.equal(image, folder[i][0]), folder.samples[i]


def test_levels_and_halves_of_torchvision_itself_and_its_tensors(root):
    """Behind ToImage torchvision resizes a tensor: one level off in few places."""
    pytest.importorskip("torchvision")
    real, datasets = (
        importlib.import_module(f"torchvision.{name}") for name in ("transforms.v2", "datasets")
    )
    cut = [real.Resize(64, antialias=True), real.CenterCrop(60)]
    off = []
    for behind, tensor_first, most in (
        ([real.PILToTensor()], False, 0),
        ([real.ToImage(), real.ToDtype(torch.float16, scale=True)], False, 0),
        ([real.PILToTensor(), real.ConvertImageDtype(torch.bfloat16)], False, 0),
        ([real.ToImage(), real.ToDtype(torch.float32, scale=True)], False, 2**-23),
        ([real.ToImage()], True, 1),
    ):
        folder = datasets.ImageFolder(
            root, real.Compose([*behind, *cut] if tensor_first else [*cut, *behind])
        )
        images, _ = delivered(dataset_arguments(folder))
        expected = torch.stack([image for image, _ in folder])
        assert images.dtype == expected.dtype
        off = (images.double() - expected.double()).abs()
        assert off.max() <= most
    assert 0 < (off > 0).double().mean() < 0.01


STAND_INS = [
    ("Resize", (40,), {}),
    ("Resize", ([40],), {}),
    ("Resize", ((30, 40),), {"antialias": False}),
    ("Resize", (40,), {"max_size": 50}),
    ("CenterCrop", (32,), {}),
    ("CenterCrop", ((32, 30),), {}),
    ("RandomCrop", (32,), {}),
    ("RandomCrop", ((32, 30),), {"padding": 4}),
    ("RandomResizedCrop", (32,), {}),
    ("RandomResizedCrop", ((32, 30),), {"scale": (0.5, 1.0), "ratio": (1.0, 1.0), "antialias": None}),
    ("RandomHorizontalFlip", (), {}),
    ("RandomHorizontalFlip", (0.25,), {}),
    ("RandomVerticalFlip", (0.75,), {}),
    ("Normalize", ([0.5, 0.4, 0.3], [0.1, 0.2, 0.3]), {}),
    ("ToTensor", (), {}),
    ("PILToTensor", (), {}),
    ("ConvertImageDtype", (torch.float16,), {}),
    ("ToImage", (), {}),
    ("ToPureTensor", (), {}),
    ("ToDtype", (torch.float32,), {"scale": True}),
    ("ToDtype", (torch.float32,), {}),
    ("Identity", (), {}),
]


@both
@pytest.mark.filterwarnings("ignore:The transform `ToTensor")
def test_the_stand_ins_are_as_the_real_classes(tv):
    pytest.importorskip("torchvision")
    real = importlib.import_module("torchvision.transforms" + (".v2" if tv is v2 else ""))
    compared = 0
    for name, arguments, named in STAND_INS:
        if name not in tv.homes:
            continue
        mine, theirs = getattr(tv, name)(*arguments, **named), getattr(real, name)(*arguments, **named)
        assert (
            type(mine).__module__ == type(theirs).__module__ and type(mine).__name__ == type(theirs).__name__
        )
        for attribute, value in vars(mine).items():
            kept = getattr(theirs, attribute)
            value, kept = (getattr(one, "value", one) for one in (value, kept))
            assert kept == value and type(kept) is type(value), (name, attribute)
        compared += 1
    for name, home in tv.homes.items():
        assert getattr(real, name).__module__ == f"torchvision.transforms.{home}", name
    jitter = real.ColorJitter(0.1, 0, (0.5, 2.0), 0.1)
    assert (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) == JITTER
    assert compared > 15 and real.Compose([jitter]).transforms == [jitter]


@both
def test_the_lists_of_common_trainings_are_understood(root, tv):
    normalize = tv.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    train = [tv.RandomResizedCrop(224, interpolation=3), tv.RandomHorizontalFlip(), tv.ToTensor(), normalize]
    lifted = dataset_arguments(Folder(root, tv.Compose(train)), scaled="half")
    assert lifted["fields"] == {
        "image": fl.Image(size=224, resize="random", filter="bicubic"),
        "label": fl.Int("cls"),
    }
    assert lifted["augment"] == fl.Augment(xflip=0.5) and lifted["dtype"] == "float32"
    assert lifted["normalize"] == IMAGENET
    test = [tv.Resize(256), tv.CenterCrop(224), tv.ToTensor(), normalize]
    lifted = dataset_arguments(Folder(root, tv.Compose(test)))
    expected = fl.Image(size=224, resize=256, filter="bilinear", scaled=None)
    assert lifted["fields"]["image"] == expected and lifted["augment"] == fl.Augment()
    assert sorted(lifted) == ["as_tuple", "augment", "dtype", "fields", "normalize", "source"]
    again = [
        tv.Resize(72),
        tv.RandomCrop((64, 60)),
        tv.RandomVerticalFlip(0.25),
        tv.ColorJitter(*JITTER),
        tv.ToTensor(),
    ]
    lifted = dataset_arguments(Folder(root, tv.Compose(again)))
    assert lifted["fields"]["image"] == fl.Image(
        size=(64, 60), resize=72, crop="random", filter="bilinear", scaled=None
    )
    assert lifted["augment"] == fl.Augment(
        yflip=0.25, color_jitter=((0.9, 1.1), 0.0, (0.5, 2.0), (-0.1, 0.1))
    )
    assert lifted["normalize"] == "vae"


@pytest.mark.parametrize(
    "interpolation",
    ["bicubic", InterpolationMode("bicubic"), 3, Image.Resampling.BICUBIC],
    ids=["a name", "an enum", "a number", "Pillow's"],
)
def test_a_filter_may_be_an_enum_a_name_or_pillows_number(root, interpolation):
    for tv in (v1, v2):
        for one in (
            tv.Resize((8, 8), interpolation=interpolation),
            tv.RandomResizedCrop(8, interpolation=interpolation),
        ):
            assert (
                dataset_arguments(Folder(root, tv.Compose([one, tv.ToTensor()])))["fields"]["image"].filter
                == "bicubic"
            )


def test_what_wraps_transforms_is_looked_into(root):
    inner = torch.nn.Sequential(torch.nn.Identity())
    inner.extend([])
    flips = torch.nn.Sequential()
    flips._modules["0"] = v2.RandomHorizontalFlip(1.0)  # a stand-in is no Module
    nested = v1.Compose(
        [
            v1.Compose([v1.Resize(40), v1.Compose([v1.CenterCrop(32)])]),
            inner,
            flips,
            v2.Identity(),
            v2.ToTensor(),
        ]
    )
    lifted = dataset_arguments(Folder(root, nested))
    assert lifted["fields"]["image"].size == (32, 32) and lifted["augment"].xflip == 1.0
    alone = torch.nn.Sequential()
    alone._modules.update(
        {"0": v2.Resize([8, 9]), "1": v2.ToImage(), "2": v2.ToDtype(torch.float32, scale=True)}
    )
    assert dataset_arguments(Folder(root, alone))["fields"]["image"].resize == "exact"


def test_flips_and_jitter_come_in_any_order_behind_the_geometry(root):
    tv, jitter = v2, v2.ColorJitter(*JITTER)
    h, v, to, norm = (
        tv.RandomHorizontalFlip(0.1),
        tv.RandomVerticalFlip(0.2),
        tv.ToTensor(),
        tv.Normalize([0.5], [0.5]),
    )
    lists = [[h, v, jitter, to, norm], [jitter, v, h, to, norm], [to, jitter, h, norm, v], [v, to, norm, h]]
    got = [
        dataset_arguments(Folder(root, tv.Compose([tv.Resize((8, 8)), *steps])))["augment"] for steps in lists
    ]
    assert got[0] == got[1] == got[2] != got[3] == fl.Augment(xflip=0.1, yflip=0.2)
    for view in ([tv.Resize((8, 8))], [tv.RandomResizedCrop(8)], [tv.Resize(9), tv.RandomCrop(8)]):
        assert dataset_arguments(Folder(root, tv.Compose([h, *view, to])))["augment"].xflip == 0.1
    assert (
        dataset_arguments(Folder(root, tv.Compose([tv.Resize(9), h, tv.RandomCrop(8), to])))["augment"].xflip
        == 0.1
    )


def test_a_flip_with_certainty_is_the_mirrored_picture(root):
    images, _ = delivered(dataset_arguments(Folder(root, basic(v1, v1.RandomHorizontalFlip(1.0)))))
    plain, _ = delivered(dataset_arguments(Folder(root, basic(v1))))
    assert torch.equal(images, plain.flip(-1)) and not torch.equal(images, plain)
    upside, _ = delivered(dataset_arguments(Folder(root, basic(v1, v1.RandomVerticalFlip(1.0)))))
    torch.testing.assert_close(upside, plain.flip(-2), rtol=0, atol=1e-6)  # a warp computes in floats


@pytest.mark.parametrize(
    "steps, dtype, normalize",
    [
        (["ToTensor"], "float32", "vae"),
        (["PILToTensor"], "uint8", "vae"),
        (["ToImage"], "uint8", "vae"),
        (["ToImage", "ToPureTensor", "ToImage"], "uint8", "vae"),
        (["ToPureTensor", "ToTensor"], "float32", "vae"),
        (["ToImage", ("ToDtype", torch.uint8)], "uint8", "vae"),
        (["ToImage", ("ToDtype", torch.float32)], "float32", "vae"),
        (["ToImage", ("ToDtype", torch.float16)], "float16", "vae"),
        (["PILToTensor", ("ConvertImageDtype", torch.bfloat16)], "bfloat16", "vae"),
        (["ToTensor", ("ConvertImageDtype", torch.float32)], "float32", "vae"),
        (["ToTensor", "Normalize", ("ToDtype", torch.bfloat16)], "bfloat16", (0.5, 0.25)),
        (["ToImage", ("ToDtype", torch.float32), "Normalize"], "float32", (0.5, 0.25)),
    ],
)
def test_the_end_of_the_list_says_dtype_and_normalization(root, steps, dtype, normalize):
    lifted = dataset_arguments(Folder(root, v2.Compose([v2.Resize((8, 9)), *map(one_of, steps)])))
    assert (lifted["dtype"], lifted["normalize"]) == (dtype, normalize)
    images, _ = delivered(lifted)
    assert images.dtype == getattr(torch, dtype) and images.shape[1:] == (3, 8, 9)
    levels, _ = delivered({**lifted, "dtype": "uint8"})
    expected = levels if dtype == "uint8" else levels.float() / 255
    expected = expected if normalize == "vae" else (expected - 0.5) / 0.25
    assert torch.equal(images, expected.to(images.dtype))


def one_of(step):
    if step == "Normalize":
        return v2.Normalize([0.5], [0.25])
    if isinstance(step, str):
        return getattr(v2, step)()
    return getattr(v2, step[0])(step[1], **({"scale": True} if step[0] == "ToDtype" else {}))


def test_what_changes_nothing_is_passed_over(root):
    for padding in (None, 0):
        steps = [
            v2.Resize(40),
            v2.RGB(),
            v2.RandomCrop(32, padding=padding, pad_if_needed=True),
            v2.Identity(),
        ]
        assert dataset_arguments(Folder(root, v2.Compose([*steps, to])))["fields"]["image"].size == (32, 32)
    for steps in (
        [v2.Resize((9, 8)), v2.CenterCrop((9, 8))],
        [v2.RandomResizedCrop((9, 8)), v2.RandomCrop((9, 8))],
        [h, v2.Resize((9, 8)), v2.CenterCrop((9, 8))],
    ):
        assert dataset_arguments(Folder(root, v2.Compose([*steps, to])))["fields"]["image"].size == (9, 8)


def test_the_samples_are_the_datasets_in_its_order(root):
    folder = Folder(root, basic(v1))
    source = dataset_arguments(folder)["source"]
    assert list(source.paths) == [path for path, _ in folder.samples]
    assert source.labels.tolist() == [label for _, label in folder.samples]
    assert source.classes == ("odd", "photo")
    folder.samples = [(folder.samples[0][0], np.int64(3)), (folder.samples[1][0], 4)]
    del folder.classes
    assert dataset_arguments(folder)["source"].labels.tolist() == [3, 4]


def test_subsets_and_subsets_of_subsets_choose_samples(root):
    folder = Folder(root, basic(v1))
    folder.__class__.__len__ = lambda self: len(self.samples)
    one, other = torch.utils.data.random_split(
        folder, [7, len(folder.samples) - 7], torch.Generator().manual_seed(1)
    )
    inner = torch.utils.data.Subset(other, np.array([3, 1, 1, -1]))
    for subset in (
        one,
        other,
        inner,
        torch.utils.data.Subset(inner, [2, 0]),
        torch.utils.data.Subset(folder, range(3)),
    ):
        source = dataset_arguments(subset)["source"]
        places = list(subset.indices)
        while subset.dataset is not folder:
            subset = subset.dataset
            places = [subset.indices[place] for place in places]
        assert list(source.paths) == [folder.samples[place][0] for place in places]
        assert source.labels.tolist() == [folder.samples[place][1] for place in places]
        assert source.classes == ("odd", "photo")


def test_a_subset_delivers_what_torchs_loader_would(root):
    folder = Folder(root, basic(v1))
    subset = torch.utils.data.Subset(folder, [5, 0, 30, 5])
    images, labels = delivered(dataset_arguments(subset))
    for i, place in enumerate(subset.indices):
        path, label = folder.samples[place]
        assert torch.equal(images[i], by_pillow(path, 40, (32, 32), "bilinear")) and labels[i] == label


@pytest.mark.parametrize("label", [int, torch.tensor, np.int64])
def test_a_class_of_yours_that_gives_the_same_is_lifted_and_no_dice_are_lost(root, label):
    before = torch.get_rng_state(), np.random.get_state()[2]
    mine = own_items(lambda image, number: (image, label(number)))(Folder(root, basic(v1)))
    assert dataset_arguments(mine)["fields"] == dataset_arguments(Folder(root, basic(v1)))["fields"]
    assert torch.equal(torch.get_rng_state(), before[0]) and np.random.get_state()[2] == before[1]


def test_what_torchvision_keeps_beside_the_transform_is_no_matter(root):
    folder = Folder(root, basic(v1))
    expected = dataset_arguments(folder)["fields"]
    folder.transforms = standard(folder.transform, None)
    folder.loader = loader_named("default_loader", "torchvision.datasets.folder")
    assert dataset_arguments(folder)["fields"] == expected
    folder.loader = loader_named("pil_loader", "torchvision.datasets.folder")
    folder.transform = None
    assert dataset_arguments(folder)["fields"] == expected
    folder.transform = basic(
        v1, v1.RandomHorizontalFlip()
    )  # exchanged, as is usual between training and test
    assert dataset_arguments(folder)["augment"] == fl.Augment(xflip=0.5)


def test_a_real_image_folder_and_its_parts(root):
    pytest.importorskip("torchvision")
    real, datasets = (importlib.import_module(f"torchvision.{name}") for name in ("transforms", "datasets"))
    steps = [real.Resize(40), real.CenterCrop(32), real.ToTensor()]
    folder = datasets.ImageFolder(root, real.Compose(steps))
    parts = torch.utils.data.random_split(folder, [0.5, 0.5])
    for part in parts:
        images, labels = delivered(dataset_arguments(part))
        assert labels.tolist() == [label for _, label in part]
        assert torch.equal(images, torch.stack([image for image, _ in part]))
    joint = datasets.ImageFolder(root, target_transform=int, transform=real.Compose(steps))
    with pytest.raises(ConfigError, match="target_transform"):
        dataset_arguments(joint)

    class Mine(datasets.ImageFolder):
        def __getitem__(self, place):
            return super().__getitem__(place)[0]

    with pytest.raises(ConfigError, match="Mine: its own __getitem__"):
        dataset_arguments(Mine(root, real.Compose(steps)))


@both
def test_colours_and_crops_that_are_dice_stay_within_their_ranges(root, tv):
    """A factor of exactly 0.5 is no dice: half as bright, to float32's rounding."""
    half = tv.ColorJitter((0.5, 0.5), None, None, None)
    images, _ = delivered(dataset_arguments(Folder(root, basic(tv, half))))
    plain, _ = delivered(dataset_arguments(Folder(root, basic(tv))))
    torch.testing.assert_close(images, plain / 2, rtol=0, atol=1e-6)
    random = tv.Compose([tv.Resize(40), tv.RandomCrop(32), tv.ToTensor()])
    crops, _ = delivered(dataset_arguments(Folder(root, random)))
    assert crops.shape == plain.shape and not torch.equal(crops, plain)
