"""A torchvision ImageFolder and its transforms, translated into arguments of `fl.Dataset`.

In: a dataset with `samples` [(path, label)] and a transform, or torch Subsets of one. Out: the keyword
arguments of `fl.Dataset`: fl.Files of the same samples in the same order, an fl.Image with the same
geometry, an fl.Augment with the same probabilities. Promised: the transforms are not run; a transform
without a counterpart is refused, with its name, the reason and a way out; torchvision is never imported, its
classes (v1 and v2) are recognized by their names. A dataset with a __getitem__ of its own, which is not
torchvision's, is called once, for sample 0, whose label, dtype and shape must be those that fastload will
make; its pixels are not compared.

Pixels are those of the transforms on Pillow images, equal in uint8 and up to rounding in float32, with these
exceptions:
- fastload rotates an image upright by its EXIF orientation; torchvision's loader does not;
- 16-bit grayscale keeps its high byte, where Pillow's convert("RGB") clips; palettes and alpha are the same;
- flips, random crops and ColorJitter have the same probabilities and ranges, but other random draws; colours
  are changed in floats and rounded once; the filter of RandomResizedCrop sees the pixels around its box, as
  Pillow's resize(box=) does;
- after ToImage or PILToTensor torchvision resizes uint8 tensors, at most 1 of 255 off Pillow
  (in 3 of 1000 values); fastload does as Pillow does.
With `scaled`, JPEGs may be decoded at a fraction of their size, which is faster but changes pixels.
"""

from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np

from fastload.augment.pipe import Augment
from fastload.errors import ConfigError
from fastload.fields import Image, Int
from fastload.normalize import normalization
from fastload.shards.files import Files

_TRANSFORMS, _DATASETS = "torchvision.transforms", "torchvision.datasets"
_LIBRARIES = ("torchvision.", "torch.")
_FLOATS = ("float32", "float16", "bfloat16")
_FILTERS = ("bilinear", "bicubic", "lanczos")
_PILLOW_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
_ALTERNATIVES = {
    "RandomErasing": "use fl.Augment(cutout=...), or do it in map_batch",
    "RandomRotation": "use fl.Augment(rotate=...)",
    "RandomAffine": "use fl.Augment(rotate=..., scale=..., translate=...)",
    "MixUp": "use fl.Augment(mixup=...)",
    "CutMix": "use fl.Augment(cutmix=...)",
    "FiveCrop": "a sample must be one image; drop it",
    "TenCrop": "a sample must be one image; drop it",
}


def dataset_arguments(dataset: Any, scaled: str | None = None) -> dict[str, Any]:
    """The keyword arguments of `fl.Dataset` for a torchvision-style ImageFolder, or a Subset of one.

    dataset: has `samples`, a list of (path, int), and as `transform` a Compose, an nn.Sequential or a single
        one of torchvision's: Resize(int) with CenterCrop or RandomCrop, Resize((h, w)) or RandomResizedCrop;
        RandomHorizontalFlip, RandomVerticalFlip, ColorJitter; ToTensor, or ToImage or PILToTensor and ToDtype
        or ConvertImageDtype; Normalize. scaled: as in `fl.Image`; None is exact.

    Raises ConfigError for anything else.
    """
    folder, indices = _unwrapped(dataset)
    transforms = _Translator()
    transforms.add(_transform_of(folder))
    _check_item(folder, (3, *transforms.view["size"]), transforms.state)
    try:
        image = Image(scaled=scaled, **transforms.view)
        augment = Augment(**transforms.flips, color_jitter=transforms.jitter)
    except ConfigError as error:
        raise ConfigError(f"from_torch: {error}") from None
    return {
        "source": _files(folder, indices),
        "fields": {"image": image, "label": Int("cls")},
        "augment": augment,
        "normalize": transforms.normalize or "vae",
        "dtype": transforms.state,
        "as_tuple": True,
    }


def _refuse(what: Any, why: str) -> NoReturn:
    """Raises ConfigError about a transform or a dataset, with its name or that of its class."""
    name = what if isinstance(what, str) else getattr(what, "__name__", type(what).__name__)
    raise ConfigError(f"from_torch: {name}: {why}.")


def _is_class(kind: type, name: str, module: str) -> bool:
    """Whether a class has this name, and is defined in this module or below it."""
    return kind.__name__ == name and kind.__module__.startswith(module)


def _unwrapped(dataset: Any) -> tuple[Any, np.ndarray | None]:
    """The dataset inside all Subsets, and the indices of its samples, int64 [N]; None for all."""
    selected = None
    while any(_is_class(base, "Subset", "torch.utils.data") for base in type(dataset).__mro__):
        _check_class(dataset, "torch.utils.data")
        indices = np.asarray(dataset.indices)
        if indices.shape == (0,):
            _refuse(dataset, "it is empty; it must have at least one index")
        if indices.ndim != 1 or not (indices.size and indices.dtype.kind in "iu"):
            _refuse(dataset, f"its indices must be integers [N], got {indices.dtype} {list(indices.shape)}")
        try:
            selected = indices if selected is None else indices[selected]
        except IndexError as error:
            _refuse(dataset, f"{error}; its indices must be those of existing samples")
        dataset = dataset.dataset
    samples = getattr(dataset, "samples", None)
    if not isinstance(samples, (list, tuple)) or not samples:
        _refuse(dataset, "it must have a list `samples` of (path, label), as ImageFolder has; use fl.Loader")
    _check_class(dataset, _DATASETS)
    return dataset, selected


def _check_class(dataset: Any, module: str) -> None:
    """Refuses a subclass of a class of torch or torchvision that overrides how items are loaded."""
    if any(base.__module__.startswith(module) for base in type(dataset).__mro__):
        for name in ("__getitem__", "__getitems__"):
            if _overrides(dataset, name):
                _refuse(dataset, f"its own {name} would not be called; use the original class, and map_batch")


def _overrides(dataset: Any, name: str) -> bool:
    """Whether a method is defined outside torch and torchvision."""
    owner = next((base for base in type(dataset).__mro__ if name in vars(base)), object)
    return owner is not object and not owner.__module__.startswith(_LIBRARIES)


def _check_item(folder: Any, shape: tuple[int, ...], dtype: str) -> None:
    """Compares sample 0 of a dataset with a __getitem__ of its own to what fastload will make of it."""
    if not _overrides(folder, "__getitem__"):
        return
    from fastload.loader.orders.generators import generator_states, restored

    if hasattr(folder, "__len__") and len(folder) != len(folder.samples):
        _refuse(
            folder,
            f"it must have {len(folder.samples)} items, as samples has, got {len(folder)}; use fl.Loader",
        )
    try:
        with restored(generator_states(None), None):
            item = folder[0]
    except Exception as error:
        reason = " ".join(str(error).split())
        _refuse(
            folder, f"its own __getitem__ raises for sample 0 ({type(error).__name__}: {reason}); correct it"
        )
    expected = f"{dtype} {list(shape)}, {folder.samples[0][1]!r}"
    values = item if isinstance(item, (tuple, list)) else [item]
    returned = ", ".join(map(_described, values))
    if returned != expected:
        _refuse(
            folder,
            f"its own __getitem__ must return ({expected}) for sample 0, as fastload would from samples and "
            f"transform, but returns ({returned[:200]}); use map_batch, or fl.Loader",
        )


def _described(value: Any) -> str:
    """The dtype and shape of an array, or the value of a number."""
    if not hasattr(value, "shape"):
        return repr(value) if isinstance(value, (int, str)) else type(value).__name__
    if len(value.shape) == 0:
        return repr(value.item())
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def _transform_of(folder: Any) -> Any:
    transform, target = getattr(folder, "transform", None), getattr(folder, "target_transform", None)
    both = getattr(folder, "transforms", None)
    if transform is None and both is not None:
        if type(both).__name__ != "StandardTransform":
            _refuse(both, "it changes images and labels together; use transform=, of the image alone")
        transform, target = both.transform, target or both.target_transform
    if target is not None:
        _refuse(folder, "its target_transform changes labels; drop it, and use map_batch")
    loader = getattr(folder, "loader", None)
    name, module = getattr(loader, "__name__", ""), getattr(loader, "__module__", "")
    is_known = name in ("default_loader", "pil_loader") and module.startswith(_DATASETS)
    if loader is not None and not is_known:
        _refuse(
            folder,
            "its loader must be torchvision's default_loader or pil_loader, got "
            f"{name or repr(loader)}; drop it",
        )
    if transform is None:
        _refuse(folder, "it has no transform, so its images have different sizes; use fl.Loader")
    return transform


def _files(folder: Any, indices: np.ndarray | None) -> Files:
    samples = folder.samples
    if indices is not None:
        n = len(samples)
        outside = indices[(indices < -n) | (indices >= n)]
        if outside.size:
            _refuse(folder, f"the indices of a Subset must be in [-{n}, {n}), got {outside[0]}")
        samples = [samples[index] for index in indices.tolist()]
    labels = [label for _, label in samples]
    wrong = {
        kind for kind in set(map(type, labels)) if not issubclass(kind, (int, np.integer)) or kind is bool
    }
    if wrong:
        label = next(label for label in labels if type(label) in wrong)
        _refuse(folder, f"labels must be integers, got {label!r}; use integers, or fl.Files without labels")
    classes = getattr(folder, "classes", None)
    classes = list(classes) if isinstance(classes, (list, tuple)) else None
    return Files([path for path, _ in samples], labels, classes)


def _parts(transform: Any) -> Iterator[Any]:
    """The single transforms inside any Compose and nn.Sequential, in order."""
    if _is_class(type(transform), "Compose", _TRANSFORMS):
        inner = transform.transforms
    elif _is_class(type(transform), "Sequential", "torch.nn"):
        inner = transform
    else:
        yield transform
        return
    for part in inner:
        yield from _parts(part)


class _Translator:
    """The arguments of fl.Image and fl.Augment that mean the transforms added so far.

    state: what those make of an image: "pil", "uint8", or one of _FLOATS. view: arguments of fl.Image;
    complete when it has a "size".
    """

    def __init__(self) -> None:
        self.state = "pil"
        self.view: dict[str, Any] = {}
        self.flips: dict[str, float] = {}
        self.early_flip: Any = None  # a flip before the geometry was complete
        self.jitter: tuple | None = None
        self.normalize: tuple | None = None

    def add(self, transform: Any) -> None:
        """Adds all transforms; raises ConfigError for the first without a counterpart."""
        for part in _parts(transform):
            name, module = type(part).__name__, type(part).__module__
            if name in ("Identity", "RGB") and module.startswith((_TRANSFORMS, "torch.nn")):
                continue
            step = _STEPS.get(name) if module.startswith(_TRANSFORMS) else None
            if step is None:
                way_out = _ALTERNATIVES.get(name, "do it in map_batch, or on the files beforehand")
                _refuse(part, f"it has no counterpart in fastload; {way_out}")
            step(self, part)
        self._check_end()

    def _check_end(self) -> None:
        if not self.view:
            _refuse(
                "the transforms", "they must make all images one size; add Resize(256) and CenterCrop(224)"
            )
        if "size" not in self.view:
            side = self.view["resize"]
            _refuse("Resize", f"on its own it leaves images of different sizes; add CenterCrop({side})")
        if self.state == "pil":
            _refuse("the transforms", "they must return a tensor; add ToTensor() at the end")

    def resize(self, transform: Any) -> None:
        self._check_resampling(transform)
        sides = _sides(transform)
        if getattr(transform, "max_size", None) is not None:
            _refuse(transform, f"max_size={transform.max_size} has no counterpart; drop it, and crop")
        self.view["filter"] = _filter(transform)
        if len(sides) == 1:
            self.view["resize"] = sides[0]
        else:
            self.view |= {"resize": "exact", "size": sides}

    def random_resized_crop(self, transform: Any) -> None:
        self._check_resampling(transform)
        scale, ratio = tuple(transform.scale), tuple(transform.ratio)
        self.view = {
            "resize": "random",
            "size": _height_width(transform),
            "scale": scale,
            "ratio": ratio,
            "filter": _filter(transform),
        }

    def center_crop(self, transform: Any) -> None:
        self._crop(transform, "center")
        if self.early_flip is not None and self.view.get("crop") == "center":
            _refuse(
                self.early_flip, "before a CenterCrop it moves the crop by a pixel; move it after the crop"
            )

    def random_crop(self, transform: Any) -> None:
        if np.any(transform.padding or 0):
            _refuse(
                transform,
                f"padding={transform.padding!r} has no counterpart; drop it, and resize to more pixels",
            )
        self._crop(transform, "random")

    def _crop(self, transform: Any, crop: str) -> None:
        size = _height_width(transform)
        if self.view.get("size") == size:
            return  # the crop is the whole image
        if not self.view:
            _refuse(
                transform, f"the images before it have different sizes; put Resize({max(size)}) before it"
            )
        if "size" in self.view:
            _refuse(transform, "a crop of a cropped image has no counterpart; crop once, to this size")
        side = self.view["resize"]
        if max(size) > side:
            _refuse(
                transform,
                f"it must fit into Resize({side}), got {size[0]} x {size[1]}; make the crop smaller",
            )
        self.view |= {"size": size, "crop": crop}

    def _check_resampling(self, transform: Any) -> None:
        if self.view:
            _refuse(transform, "the images are resized already; resize once")
        if self.state in _FLOATS:
            _refuse(transform, "resizing floats gives other values; move it before ToTensor or ToDtype")
        if transform.antialias is False or (transform.antialias is None and self.state != "pil"):
            _refuse(transform, f"antialias must be True, got {transform.antialias}: fastload always filters")

    def flip(self, transform: Any) -> None:
        name = {"RandomHorizontalFlip": "xflip", "RandomVerticalFlip": "yflip"}[type(transform).__name__]
        if name in self.flips:
            _refuse(transform, "it must not come twice; keep one")
        self.flips[name] = transform.p
        if "size" not in self.view:
            self.early_flip = transform

    def color_jitter(self, transform: Any) -> None:
        if self.jitter is not None:
            _refuse(transform, "it must not come twice; keep one")
        if "size" not in self.view:
            _refuse(
                transform, "pixels that are cropped away would affect the contrast; move it after the crop"
            )
        if self.normalize is not None:
            _refuse(transform, "it must get colours in [0, 1]; move it before Normalize")
        ranges = (transform.brightness, transform.contrast, transform.saturation, transform.hue)
        self.jitter = tuple(0.0 if pair is None else tuple(pair) for pair in ranges)

    def to_tensor(self, transform: Any) -> None:
        is_wrapper = type(transform).__name__ in ("ToImage", "ToPureTensor")
        if self.state == "pil" and type(transform).__name__ != "ToPureTensor":
            self.state = "float32" if type(transform).__name__ == "ToTensor" else "uint8"
        elif self.state != "pil" and not is_wrapper:
            _refuse(transform, "the image is a tensor already; drop it")

    def to_dtype(self, transform: Any) -> None:
        dtype = str(transform.dtype).removeprefix("torch.")
        if self.state == "pil":
            _refuse(transform, "it does not change Pillow images; put ToImage() before it")
        if dtype == self.state:
            return
        if dtype not in _FLOATS:
            _refuse(transform, f"dtype must be one of {', '.join(_FLOATS)}, got {dtype}")
        if self.state == "uint8" and not getattr(transform, "scale", True):
            _refuse(transform, "scale must be True, or values stay in 0 to 255")
        if self.state not in ("uint8", "float32"):
            _refuse(
                transform, f"{self.state} would become {dtype}, with bits already lost; drop one of the two"
            )
        self.state = dtype

    def normalization(self, transform: Any) -> None:
        if self.normalize is not None:
            _refuse(transform, "it must not come twice; keep one")
        if self.state != "float32":
            _refuse(
                transform,
                f"it must get float32, got {self.state}; put it between float32 and any other dtype",
            )
        channels = (tuple(map(float, values)) for values in (transform.mean, transform.std))
        self.normalize = tuple(values[0] if len(values) == 1 else values for values in channels)
        if np.min(self.normalize[1], initial=1) <= 0:
            _refuse(transform, f"std must be above 0, got {self.normalize[1]}")
        try:
            normalization(self.normalize)
        except ConfigError as error:
            _refuse(transform, str(error).rstrip("."))


def _sides(transform: Any) -> tuple[int, ...]:
    """The size of a transform: (side,) or (height, width)."""
    size = transform.size
    sides = tuple(size) if isinstance(size, (list, tuple)) else (size,)
    if len(sides) not in (1, 2) or not all(isinstance(side, int) for side in sides):
        _refuse(transform, f"size must be an integer, or (height, width), got {size!r}")
    return sides


def _height_width(transform: Any) -> tuple[int, int]:
    sides = _sides(transform)
    return sides if len(sides) == 2 else sides * 2


def _filter(transform: Any) -> str:
    """The name of a transform's filter, which is an enum, a string or Pillow's number."""
    given = getattr(transform.interpolation, "value", transform.interpolation)
    name = _PILLOW_FILTERS.get(given, given) if isinstance(given, int) else given
    if name not in _FILTERS:
        _refuse(transform, f"interpolation must be one of {', '.join(_FILTERS)}, got {name!r}")
    return name


_STEPS = {
    "Resize": _Translator.resize,
    "RandomResizedCrop": _Translator.random_resized_crop,
    "CenterCrop": _Translator.center_crop,
    "RandomCrop": _Translator.random_crop,
    "RandomHorizontalFlip": _Translator.flip,
    "RandomVerticalFlip": _Translator.flip,
    "ColorJitter": _Translator.color_jitter,
    "ToTensor": _Translator.to_tensor,
    "PILToTensor": _Translator.to_tensor,
    "ToImage": _Translator.to_tensor,
    "ToPureTensor": _Translator.to_tensor,
    "ConvertImageDtype": _Translator.to_dtype,
    "ToDtype": _Translator.to_dtype,
    "Normalize": _Translator.normalization,
}
