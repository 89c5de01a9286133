"""Torchvision's datasets as fastload's: the same samples, geometry and numbers, or a refusal with the reason.

The classes here stand in for torchvision's: they have the names, modules and attributes of the real ones,
which a test compares where torchvision can be imported.
"""

import importlib
import os

import numpy as np
import pytest
import torch
from PIL import Image

import fastload as fl
from fastload.drop_in.from_torchvision import lift
from fastload.errors import ConfigError
from tests import corpus

FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
SHARED = {
    "geometry": ["Resize", "CenterCrop", "RandomCrop", "RandomResizedCrop", "RandomHorizontalFlip"],
    "color": ["ColorJitter"],
    "misc": ["Normalize", "ConvertImageDtype", "Lambda", "GaussianBlur"],
    "type_conversion": ["PILToTensor"],
    "container": ["Compose", "RandomApply"],
    "augment": ["RandomErasing"],
    "deprecated": ["ToTensor"],
}
SHARED["geometry"] += ["RandomVerticalFlip", "RandomRotation", "Pad"]
V1 = dict.fromkeys([name for names in SHARED.values() for name in names], "transforms") | {
    "Grayscale": "transforms"
}
V1 |= {"AutoAugment": "autoaugment"}
V2 = {name: f"v2._{file}" for file, names in SHARED.items() for name in names}
V2 |= {"ToDtype": "v2._misc", "Identity": "v2._misc", "RGB": "v2._color", "CutMix": "v2._augment"}
V2 |= {"ToImage": "v2._type_conversion", "ToPureTensor": "v2._type_conversion"}


class Namespace:
    """torchvision.transforms or torchvision.transforms.v2, as far as attributes go."""

    def __init__(self, homes, version):
        self.homes, self.version = homes, version

    def __repr__(self):
        return self.version

    def __getattr__(self, name):
        if name.startswith("__") or name not in self.homes:
            raise AttributeError(name)
        kind = type(name, (), {"__module__": f"torchvision.transforms.{self.homes[name]}"})

        def make(*arguments, **named):
            one = kind()
            one.__dict__.update(attributes(self.version, name, *arguments, **named))
            return one

        return make


v1, v2 = Namespace(V1, "v1"), Namespace(V2, "v2")
both = pytest.mark.parametrize("tv", [v1, v2], ids=str)


class InterpolationMode:
    """An enum's member, to whom does not look closer."""

    def __init__(self, value):
        self.value, self.name = value, value.upper()


def attributes(version, name, *arguments, **named):
    """What the real class keeps of its arguments (torchvision 0.29)."""
    size = arguments[0] if arguments else None
    pair = tuple(size) if isinstance(size, (list, tuple)) else (size, size)
    if name in ("Resize", "RandomResizedCrop"):
        kept = {
            "interpolation": "bilinear" if version == "v2" else InterpolationMode("bilinear"),
            "antialias": True,
        }
        if name == "Resize":
            listed = [size] if isinstance(size, int) else size if size is None else list(size)
            kept |= {"size": listed if version == "v2" else size, "max_size": None}
        else:
            kept |= {"size": pair, "scale": (0.08, 1.0), "ratio": (3.0 / 4.0, 4.0 / 3.0)}
        return kept | named
    if name == "CenterCrop":
        return {"size": pair}
    if name == "RandomCrop":
        if version == "v2" and named.get("padding") is not None:
            named["padding"] = np.resize(named["padding"], 4).tolist()
        return {
            "size": pair,
            "padding": None,
            "pad_if_needed": False,
            "fill": 0,
            "padding_mode": "constant",
        } | named
    if name.endswith("Flip"):
        return {"p": size if arguments else 0.5}
    if name == "ColorJitter":
        return dict(zip(("brightness", "contrast", "saturation", "hue"), arguments, strict=True))
    if name == "Normalize":
        return dict(zip(("mean", "std"), arguments, strict=True)) | {"inplace": False}
    if name == "ConvertImageDtype":
        return {"dtype": size}
    if name == "ToDtype":
        return {"dtype": size, "scale": named.get("scale", False)}
    if name in ("Compose", "RandomApply"):
        return {"transforms": size}
    return {}


class Folder:
    """As torchvision.datasets.ImageFolder is after its construction."""

    def __init__(self, root, transform, **other):
        names = sorted(os.listdir(root))
        self.classes = names
        self.samples = [
            (os.path.join(root, name, file), label)
            for label, name in enumerate(names)
            for file in sorted(os.listdir(os.path.join(root, name)))
        ]
        self.transform, self.target_transform = transform, None
        self.__dict__.update(other)


def basic(tv, *more):
    """A transform list that is understood, with `more` behind the crop."""
    return tv.Compose([tv.Resize(40), tv.CenterCrop(32), *more, tv.ToTensor()])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two classes: photos, and pictures of odd sizes and modes, as a folder of class folders."""
    root = tmp_path_factory.mktemp("lifted")
    files = {f"photo/{name}": content for name, content in list(corpus.photos().items())[:6]}
    kinds = {
        "bmp": "bmp",
        "gif": "gif",
        "jpeg": "jpg",
        "png": "png",
        "ppm": "ppm",
        "tiff": "tif",
        "webp": "webp",
    }
    for name, content in corpus.pictures().items():
        kind = kinds.get(name.split()[0])
        if kind and "exif" not in name and "16" not in name and "float" not in name and "900" not in name:
            files[f"odd/{name}.{kind}"] = content
    for i, (width, height) in enumerate(
        [(1, 1), (1, 9), (9, 1), (41, 40), (40, 41), (333, 251), (251, 333), (64, 80)]
    ):
        files[f"odd/size {i}.png"] = corpus.encode(corpus.picture(width, height, i), "PNG")
    for name, content in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)
    return str(root)


def delivered(arguments, decode="native", **more):
    """All images and labels in order, as a loader makes them of what `lift` gave."""
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
    images, labels = delivered(lift(folder))
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
    images, labels = delivered(lift(folder))
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
        images, _ = delivered(lift(folder))
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


JITTER = ((0.9, 1.1), None, (0.5, 2.0), (-0.1, 0.1))


@both
def test_the_lists_of_common_trainings_are_understood(root, tv):
    normalize = tv.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    train = [tv.RandomResizedCrop(224, interpolation=3), tv.RandomHorizontalFlip(), tv.ToTensor(), normalize]
    lifted = lift(Folder(root, tv.Compose(train)), scaled="half")
    assert lifted["fields"] == {
        "image": fl.Image(size=224, resize="random", filter="bicubic"),
        "label": fl.Int("cls"),
    }
    assert lifted["augment"] == fl.Augment(xflip=0.5) and lifted["dtype"] == "float32"
    assert lifted["normalize"] == IMAGENET
    test = [tv.Resize(256), tv.CenterCrop(224), tv.ToTensor(), normalize]
    lifted = lift(Folder(root, tv.Compose(test)))
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
    lifted = lift(Folder(root, tv.Compose(again)))
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
            assert lift(Folder(root, tv.Compose([one, tv.ToTensor()])))["fields"]["image"].filter == "bicubic"


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
    lifted = lift(Folder(root, nested))
    assert lifted["fields"]["image"].size == (32, 32) and lifted["augment"].xflip == 1.0
    alone = torch.nn.Sequential()
    alone._modules.update(
        {"0": v2.Resize([8, 9]), "1": v2.ToImage(), "2": v2.ToDtype(torch.float32, scale=True)}
    )
    assert lift(Folder(root, alone))["fields"]["image"].resize == "exact"


def test_flips_and_jitter_come_in_any_order_behind_the_geometry(root):
    tv, jitter = v2, v2.ColorJitter(*JITTER)
    h, v, to, norm = (
        tv.RandomHorizontalFlip(0.1),
        tv.RandomVerticalFlip(0.2),
        tv.ToTensor(),
        tv.Normalize([0.5], [0.5]),
    )
    lists = [[h, v, jitter, to, norm], [jitter, v, h, to, norm], [to, jitter, h, norm, v], [v, to, norm, h]]
    got = [lift(Folder(root, tv.Compose([tv.Resize((8, 8)), *steps])))["augment"] for steps in lists]
    assert got[0] == got[1] == got[2] != got[3] == fl.Augment(xflip=0.1, yflip=0.2)
    for view in ([tv.Resize((8, 8))], [tv.RandomResizedCrop(8)], [tv.Resize(9), tv.RandomCrop(8)]):
        assert lift(Folder(root, tv.Compose([h, *view, to])))["augment"].xflip == 0.1
    assert lift(Folder(root, tv.Compose([tv.Resize(9), h, tv.RandomCrop(8), to])))["augment"].xflip == 0.1


def test_a_flip_with_certainty_is_the_mirrored_picture(root):
    images, _ = delivered(lift(Folder(root, basic(v1, v1.RandomHorizontalFlip(1.0)))))
    plain, _ = delivered(lift(Folder(root, basic(v1))))
    assert torch.equal(images, plain.flip(-1)) and not torch.equal(images, plain)
    upside, _ = delivered(lift(Folder(root, basic(v1, v1.RandomVerticalFlip(1.0)))))
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
    lifted = lift(Folder(root, v2.Compose([v2.Resize((8, 9)), *map(one_of, steps)])))
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


class Own:
    """A transform of the user's own."""


def own_function(image):
    return image


r, c, h, to = v2.Resize(40), v2.CenterCrop(32), v2.RandomHorizontalFlip(), v2.ToTensor()
norm, jitter, image = v2.Normalize([0.5], [0.5]), v2.ColorJitter(*JITTER), v2.ToImage()
f32 = v2.ToDtype(torch.float32, scale=True)
REFUSED = [
    ([to], "nothing makes the images one size; add Resize"),
    ([], "nothing makes the images one size"),
    ([r, to], r"Resize: alone it gives .*add CenterCrop\(40\)"),
    ([r, c], r"nothing makes a tensor .*add ToTensor\(\)"),
    ([c, to], r"CenterCrop: .*put Resize\(32\) before it"),
    ([c, r, to], "CenterCrop: .*before it"),
    ([r, r, c, to], "Resize: the images were resized before"),
    ([r, c, r, to], "Resize: the images were resized before"),
    ([r, v2.RandomResizedCrop(8), to], "RandomResizedCrop: the images were resized before"),
    ([r, c, v2.CenterCrop(30), to], "CenterCrop: a crop of what has its size already"),
    ([v2.Resize((40, 40)), c, to], "CenterCrop: a crop of what has its size"),
    ([r, v2.CenterCrop(41), to], r"CenterCrop: 41 x 41 pixels do not fit into Resize\(40\)"),
    ([r, v2.RandomCrop((8, 41)), to], r"RandomCrop: 8 x 41 pixels do not fit"),
    ([r, v1.RandomCrop(32, padding=4), to], "RandomCrop: padding=4 has no counterpart"),
    ([r, v2.RandomCrop(32, padding=[0, 4]), to], r"RandomCrop: padding=\[0, 4, 0, 4\] has no counterpart"),
    ([v2.Resize(40, max_size=50), c, to], "Resize: max_size=50"),
    ([v2.Resize(None, max_size=50), c, to], "Resize: size=None"),
    ([v2.Resize(40, antialias=False), c, to], "Resize: antialias=False.*give antialias=True"),
    ([v2.RandomResizedCrop(8, antialias=False), to], "RandomResizedCrop: antialias=False"),
    ([image, v2.Resize(40, antialias=None), c, f32], "Resize: antialias=None"),
    ([v2.Resize(40, interpolation="nearest"), c, to], "interpolation 'nearest' has no counterpart here"),
    ([v2.Resize(40, interpolation=InterpolationMode("nearest-exact")), c, to], "'nearest-exact'"),
    ([v2.Resize(40, interpolation=0), c, to], "'nearest'"),
    ([v2.Resize(40, interpolation=4), c, to], "'box'"),
    ([v2.RandomResizedCrop(40, interpolation="hamming"), to], "RandomResizedCrop: interpolation 'hamming'"),
    ([v2.RandomResizedCrop(40, scale=(0.5, 1.5)), to], r"from_torch: Image\(scale="),
    ([to, r, c], "Resize: it resizes floats.*move it before ToTensor"),
    ([image, f32, v2.RandomResizedCrop(8)], "RandomResizedCrop: it resizes floats"),
    ([h, r, c, to], "RandomHorizontalFlip: .*move it behind the crop"),
    ([r, v2.RandomVerticalFlip(), c, to], "RandomVerticalFlip: .*move it behind the crop"),
    ([r, c, h, h, to], "RandomHorizontalFlip: it comes twice"),
    ([jitter, r, c, to], "ColorJitter: .*move it behind the crop"),
    ([r, jitter, v2.RandomCrop(9), to], "ColorJitter: .*move it behind the crop"),
    ([r, c, jitter, jitter, to], "ColorJitter: it comes twice"),
    ([r, c, to, norm, jitter], "ColorJitter: .*move it before Normalize"),
    ([r, c, v2.ColorJitter(None, None, None, (-0.7, 0.1)), to], r"from_torch: Augment\(color_jitter="),
    ([r, c, to, to], "ToTensor: the image is a tensor already"),
    ([r, c, image, v2.PILToTensor()], "PILToTensor: the image is a tensor already"),
    ([r, c, to, norm, norm], "Normalize: it comes twice"),
    ([r, c, norm, to], "Normalize: it would compute in pil"),
    ([r, c, image, norm], "Normalize: it would compute in uint8"),
    ([r, c, image, v2.ToDtype(torch.float16, scale=True), norm], "Normalize: it would compute in float16"),
    ([r, c, to, v2.Normalize([0.5], [0.0])], "Normalize: .*std must be above 0"),
    ([r, c, to, v2.Normalize([0.5] * 4, [0.5] * 4)], "Normalize: .*one number or three"),
    ([r, c, f32, image], r"ToDtype: .*put ToImage\(\) before it"),
    ([r, c, image, v2.ToDtype(torch.float32)], "ToDtype: without scale=True"),
    ([r, c, image, v2.ToDtype(torch.float64, scale=True)], "ToDtype: dtype=float64"),
    ([r, c, to, v2.ToDtype(torch.uint8, scale=True)], "ToDtype: dtype=uint8"),
    ([r, c, image, v2.ToDtype({"others": None}, scale=True)], "ToDtype: dtype={'others': None}"),
    ([r, c, to, v2.ToDtype(torch.float16), f32], "ToDtype: from float16 to float32"),
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
        lift(Folder(root, v2.Compose(steps)))
    assert str(caught.value).startswith("from_torch: ") and "\n" not in str(caught.value)


def test_what_changes_nothing_is_passed_over(root):
    for padding in (None, 0):
        steps = [
            v2.Resize(40),
            v2.RGB(),
            v2.RandomCrop(32, padding=padding, pad_if_needed=True),
            v2.Identity(),
        ]
        assert lift(Folder(root, v2.Compose([*steps, to])))["fields"]["image"].size == (32, 32)
    for steps in (
        [v2.Resize((9, 8)), v2.CenterCrop((9, 8))],
        [v2.RandomResizedCrop((9, 8)), v2.RandomCrop((9, 8))],
        [h, v2.Resize((9, 8)), v2.CenterCrop((9, 8))],
    ):
        assert lift(Folder(root, v2.Compose([*steps, to])))["fields"]["image"].size == (9, 8)


def test_the_samples_are_the_datasets_in_its_order(root):
    folder = Folder(root, basic(v1))
    source = lift(folder)["source"]
    assert list(source.paths) == [path for path, _ in folder.samples]
    assert source.labels.tolist() == [label for _, label in folder.samples]
    assert source.classes == ("odd", "photo")
    folder.samples = [(folder.samples[0][0], np.int64(3)), (folder.samples[1][0], 4)]
    del folder.classes
    assert lift(folder)["source"].labels.tolist() == [3, 4]


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
        source = lift(subset)["source"]
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
    images, labels = delivered(lift(subset))
    for i, place in enumerate(subset.indices):
        path, label = folder.samples[place]
        assert torch.equal(images[i], by_pillow(path, 40, (32, 32), "bilinear")) and labels[i] == label


def subset(indices):
    return lambda folder: torch.utils.data.Subset(folder, indices)


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


def own_kind(kind):
    def change(folder):
        other = kind()
        other.__dict__.update(folder.__dict__)
        return other

    return change


def standard(transform, target):
    kind = type("StandardTransform", (), {"__module__": "torchvision.datasets.vision"})
    one = kind()
    one.transform, one.target_transform = transform, target
    return one


def loader_named(name, module):
    loader = lambda path: path  # noqa: E731
    loader.__name__, loader.__module__ = name, module
    return loader


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda _: object(), "object: it has no list `samples`.*fl.Loader"),
        (lambda _: [1, 2], "list: it has no list `samples`"),
        (changed(samples=[]), "Folder: it has no list `samples`"),
        (changed(transform=None), "it has no transform"),
        (changed(target_transform=own_function), "its target_transform is a function of the label"),
        (changed(transform=None, transforms=standard(basic(v1), own_function)), "its target_transform"),
        (
            changed(transform=None, transforms=own_function),
            "own_function: it changes images and labels together",
        ),
        (
            changed(loader=own_function),
            "its loader own_function is not torchvision's own default_loader or pil_loader",
        ),
        (changed(loader=loader_named("default_loader", "mine")), "its loader default_loader is not"),
        (
            changed(loader=loader_named("accimage_loader", "torchvision.datasets.folder")),
            "its loader accimage",
        ),
        (changed(samples=[("a.jpg", 1.0)]), "the label 1.0 is no int"),
        (changed(samples=[("a.jpg", 1), ("b.jpg", True)]), "the label True is no int"),
        (changed(samples=[("a.jpg", "cat")]), "the label 'cat' is no int"),
        (changed(samples=[("a.jpg", 0), ("b.pgm", 1)]), "'b.pgm' ends in no extension"),
        (changed(samples=[("a.npy", 0)]), "'a.npy' ends in no extension"),
        (subset([]), "Subset: it is empty; give"),
        (subset([0.5]), "Subset: its indices are float64"),
        (subset([True, False]), "Subset: its indices are bool"),
        (subset([[0, 1]]), r"Subset: its indices are int64 of shape \[1, 2\]"),
        (subset([0, 10**6]), "index 1000000 of a Subset is outside its"),
        (subset([-(10**6)]), "index -1000000 of a Subset is outside its"),
        (lambda f: torch.utils.data.Subset(subset([0, 1])(f), [2]), "Subset: index 2 is out of bounds"),
        (lambda f: OwnSubset(f, [0]), "OwnSubset: its own __getitem__ would not be called"),
        (own_kind(OwnFolder), "OwnFolder: its own __getitem__ would not be called"),
    ],
)
def test_a_dataset_that_means_more_is_refused_with_the_reason(root, change, message):
    with pytest.raises(ConfigError, match=message) as caught:
        lift(change(Folder(root, basic(v1))))
    assert "\n" not in str(caught.value)


def own_items(item, n=None):
    """A change to a class that is nobody's but the user's, and gives `item` of (image, label)."""

    class Mine:
        def __getitem__(self, place):
            image = torch.rand(3, 32, 32) + np.random.rand()
            return item(image, self.samples[place][1])

        def __len__(self):
            return n or len(self.samples)

    return own_kind(Mine)


def fail(*_):
    raise RuntimeError("no\nfile")


@pytest.mark.parametrize(
    "change, message",
    [
        (
            own_items(lambda image, label: (image, label, 0)),
            r"gives \(float32 \[3, 32, 32\], 0, 0\) as sample 0",
        ),
        (
            own_items(lambda image, label: (image, label + 1)),
            r"\[3, 32, 32\], 1\) as sample 0, which fastload",
        ),
        (own_items(lambda image, label: (image[:1], label)), r"would make \(float32 \[3, 32, 32\], 0\) of"),
        (own_items(lambda image, label: (image.half(), label)), r"gives \(float16 .*use map_batch"),
        (own_items(lambda image, label: {"image": image}), r"gives \(dict\)"),
        (own_items(lambda image, label: (image.numpy, [label])), r"gives \(builtin_.*, list\)"),
        (own_items(fail), r"Mine: its own __getitem__ gives no sample 0 \(RuntimeError: no file\)"),
        (own_items(lambda *item: item, 3), "it has 3 items, and [0-9]+ in samples"),
    ],
)
def test_a_class_of_yours_that_gives_something_else_is_refused(root, change, message):
    with pytest.raises(ConfigError, match=message) as caught:
        lift(change(Folder(root, basic(v1))))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("label", [int, torch.tensor, np.int64])
def test_a_class_of_yours_that_gives_the_same_is_lifted_and_no_dice_are_lost(root, label):
    before = torch.get_rng_state(), np.random.get_state()[2]
    mine = own_items(lambda image, number: (image, label(number)))(Folder(root, basic(v1)))
    assert lift(mine)["fields"] == lift(Folder(root, basic(v1)))["fields"]
    assert torch.equal(torch.get_rng_state(), before[0]) and np.random.get_state()[2] == before[1]


def test_a_std_of_zero_is_refused_in_the_transforms_name(root):
    with pytest.raises(
        ConfigError, match=r"^from_torch: Normalize: std=\(0\.5, 0\.0, 0\.5\): std must be above"
    ):
        lift(Folder(root, v1.Compose([basic(v1), v1.Normalize([0.5] * 3, [0.5, 0.0, 0.5])])))


def test_what_torchvision_keeps_beside_the_transform_is_no_matter(root):
    folder = Folder(root, basic(v1))
    expected = lift(folder)["fields"]
    folder.transforms = standard(folder.transform, None)
    folder.loader = loader_named("default_loader", "torchvision.datasets.folder")
    assert lift(folder)["fields"] == expected
    folder.loader = loader_named("pil_loader", "torchvision.datasets.folder")
    folder.transform = None
    assert lift(folder)["fields"] == expected
    folder.transform = basic(
        v1, v1.RandomHorizontalFlip()
    )  # exchanged, as is usual between training and test
    assert lift(folder)["augment"] == fl.Augment(xflip=0.5)


def test_a_real_image_folder_and_its_parts(root):
    pytest.importorskip("torchvision")
    real, datasets = (importlib.import_module(f"torchvision.{name}") for name in ("transforms", "datasets"))
    steps = [real.Resize(40), real.CenterCrop(32), real.ToTensor()]
    folder = datasets.ImageFolder(root, real.Compose(steps))
    parts = torch.utils.data.random_split(folder, [0.5, 0.5])
    for part in parts:
        images, labels = delivered(lift(part))
        assert labels.tolist() == [label for _, label in part]
        assert torch.equal(images, torch.stack([image for image, _ in part]))
    joint = datasets.ImageFolder(root, target_transform=int, transform=real.Compose(steps))
    with pytest.raises(ConfigError, match="target_transform"):
        lift(joint)

    class Mine(datasets.ImageFolder):
        def __getitem__(self, place):
            return super().__getitem__(place)[0]

    with pytest.raises(ConfigError, match="Mine: its own __getitem__"):
        lift(Mine(root, real.Compose(steps)))


@both
def test_colours_and_crops_that_are_dice_stay_within_their_ranges(root, tv):
    """A factor of exactly 0.5 is no dice: half as bright, to float32's rounding."""
    half = tv.ColorJitter((0.5, 0.5), None, None, None)
    images, _ = delivered(lift(Folder(root, basic(tv, half))))
    plain, _ = delivered(lift(Folder(root, basic(tv))))
    torch.testing.assert_close(images, plain / 2, rtol=0, atol=1e-6)
    random = tv.Compose([tv.Resize(40), tv.RandomCrop(32), tv.ToTensor()])
    crops, _ = delivered(lift(Folder(root, random)))
    assert crops.shape == plain.shape and not torch.equal(crops, plain)
