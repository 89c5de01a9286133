"""torchvision's datasets and transforms, imitated: names, modules and attributes of the real classes.

A test compares them with the real ones where torchvision can be imported.
"""

import os

import numpy as np
import torch

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


JITTER = ((0.9, 1.1), None, (0.5, 2.0), (-0.1, 0.1))
r, c, h, to = v2.Resize(40), v2.CenterCrop(32), v2.RandomHorizontalFlip(), v2.ToTensor()
norm, jitter, image = v2.Normalize([0.5], [0.5]), v2.ColorJitter(*JITTER), v2.ToImage()


def subset(indices):
    return lambda folder: torch.utils.data.Subset(folder, indices)


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


def own_items(item, n=None):
    """A change to a class that is nobody's but the user's, and gives `item` of (image, label)."""

    class Mine:
        def __getitem__(self, place):
            image = torch.rand(3, 32, 32) + np.random.rand()
            return item(image, self.samples[place][1])

        def __len__(self):
            return n or len(self.samples)

    return own_kind(Mine)
