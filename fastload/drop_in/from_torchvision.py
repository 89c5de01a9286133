"""A torchvision ImageFolder and its transforms, read into what `fl.Dataset` takes; they are not run.

In: a dataset with `samples` [(path, label)] and a transform, or torch Subsets of one. Out: the keyword
arguments of `fl.Dataset`: fl.Files of the same samples in the same order, an fl.Image that means the same
geometry, an fl.Augment with the same probabilities. Promised: what cannot be meant in fastload's terms is
refused, by the transform's name and with the reason and the way out; torchvision is never imported, its
classes (v1 and v2) are known by their names; of a dataset with a __getitem__ of its own, which is not
torchvision's, sample 0 is asked for once and must have the label, shape and dtype that fastload will give;
that its pixels are those of `samples` and `transform` is trusted.

Pixels are those of the transforms on Pillow images, to the last bit of uint8 and to float32's rounding, with
these exceptions:
- fastload turns an image upright by its EXIF orientation; torchvision's loader does not;
- gray of 16 bits keeps its high byte, where Pillow's convert("RGB") clips; palettes and alpha are as there;
- flips, random crops and ColorJitter have the same probabilities and ranges, but other dice; colours change
  in floats, rounded once; RandomResizedCrop's filter sees the pixels around its box, as Pillow's
  resize(box=) does;
- behind ToImage or PILToTensor torchvision resizes tensors of levels, which is at most one level off Pillow
  (in 3 of 1000 values), and fastload does as Pillow does.
With `scaled`, JPEGs may be decoded at a fraction of their size, which is faster and no longer the same.
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
_FLOATS = ("float32", "float16", "bfloat16")
_FILTERS = ("bilinear", "bicubic", "lanczos")
_PILLOW_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
_INSTEAD = {
    "RandomErasing": "use fl.Augment(cutout=...), or do it in map_batch",
    "RandomRotation": "use fl.Augment(rotate=...)",
    "RandomAffine": "use fl.Augment(rotate=..., scale=..., translate=...)",
    "MixUp": "use fl.Augment(mixup=...)",
    "CutMix": "use fl.Augment(cutmix=...)",
    "FiveCrop": "one sample is one image; leave it out",
    "TenCrop": "one sample is one image; leave it out",
}


def lift(dataset: Any, scaled: str | None = None) -> dict[str, Any]:
    """The keyword arguments of `fl.Dataset` for a torchvision-style ImageFolder, or a Subset of one.

    dataset: has `samples`, a list of (path, int), and as `transform` a Compose, an nn.Sequential or a single
        one of torchvision's: Resize(int) with CenterCrop or RandomCrop, Resize((h, w)) or RandomResizedCrop;
        RandomHorizontalFlip, RandomVerticalFlip, ColorJitter; ToTensor, or ToImage or PILToTensor and ToDtype
        or ConvertImageDtype; Normalize. scaled: as `fl.Image` has it; None is exact.

    Raises ConfigError for anything else.
    """
    folder, places = _unwrapped(dataset)
    transforms = _Reader()
    transforms.read(_transform_of(folder))
    _check_item(folder, (3, *transforms.view["size"]), transforms.state)
    return {
        "source": _files(folder, places),
        "fields": {"image": transforms.image(scaled), "label": Int("cls")},
        "augment": transforms.augment(),
        "normalize": transforms.normalize or "vae",
        "dtype": transforms.state,
        "as_tuple": True,
    }


def _refuse(what: Any, why: str) -> NoReturn:
    """ConfigError about a transform or a dataset, by the name of its class or its own."""
    name = what if isinstance(what, str) else getattr(what, "__name__", type(what).__name__)
    raise ConfigError(f"from_torch: {name}: {why}.")


def _is_at(kind: type, name: str, home: str) -> bool:
    """Whether a class has this name and lives in this module, or below it."""
    return kind.__name__ == name and kind.__module__.startswith(home)


def _unwrapped(dataset: Any) -> tuple[Any, np.ndarray | None]:
    """The dataset below all Subsets, and which of its samples, int64 [N]; None for all."""
    places = None
    while any(_is_at(one, "Subset", "torch.utils.data") for one in type(dataset).__mro__):
        _check_class(dataset, "torch.utils.data")
        indices = np.asarray(dataset.indices)
        if indices.shape == (0,):
            _refuse(dataset, "it is empty; give the indices of at least one sample")
        if indices.ndim != 1 or not (indices.size and indices.dtype.kind in "iu"):
            _refuse(
                dataset, f"its indices are {indices.dtype} of shape {list(indices.shape)}; give whole numbers"
            )
        try:
            places = indices if places is None else indices[places]
        except IndexError as error:
            _refuse(dataset, f"{error}; give indices of the samples that there are")
        dataset = dataset.dataset
    samples = getattr(dataset, "samples", None)
    if not isinstance(samples, (list, tuple)) or not samples:
        _refuse(dataset, "it has no list `samples` of (path, label), as ImageFolder does; use fl.Loader")
    _check_class(dataset, _DATASETS)
    return dataset, places


def _check_class(dataset: Any, home: str) -> None:
    """Who inherits from torchvision's or torch's class and gets items in another way means something else."""
    classes = type(dataset).__mro__
    if not any(one.__module__.startswith(home) for one in classes):
        return
    for name in ("__getitem__", "__getitems__"):
        owner = next((one for one in classes if name in vars(one)), object)
        if owner is not object and not owner.__module__.startswith(("torchvision.", "torch.")):
            _refuse(dataset, f"its own {name} would not be called; lift the plain class, and use map_batch")


def _check_item(folder: Any, shape: tuple[int, ...], dtype: str) -> None:
    """Asks a class that gets its items in a way of its own, and does not say more of it, for sample 0."""
    owner = next((one for one in type(folder).__mro__ if "__getitem__" in vars(one)), None)
    if owner is None or owner.__module__.startswith(("torchvision.", "torch.")):
        return
    from fastload.loader.orders.sampler_state import as_they_were, generators_of

    if hasattr(folder, "__len__") and len(folder) != len(folder.samples):
        _refuse(folder, f"it has {len(folder)} items, and {len(folder.samples)} in samples; use fl.Loader")
    try:
        with as_they_were(generators_of(None), None):
            item = folder[0]
    except Exception as error:
        reason = " ".join(str(error).split())
        _refuse(folder, f"its own __getitem__ gives no sample 0 ({type(error).__name__}: {reason}); mend it")
    expected = f"{dtype} {list(shape)}, {folder.samples[0][1]!r}"
    given = [_described(one) for one in item] if isinstance(item, (tuple, list)) else [_described(item)]
    if ", ".join(given) != expected:
        _refuse(
            folder,
            f"its own __getitem__ gives ({', '.join(given)[:200]}) as sample 0, which fastload would make "
            f"({expected}) of samples and transform; use map_batch, or fl.Loader",
        )


def _described(one: Any) -> str:
    """An item's dtype and shape, or itself where it is a number."""
    if not hasattr(one, "shape"):
        return repr(one) if isinstance(one, (int, str)) else type(one).__name__
    if len(one.shape) == 0:
        return repr(one.item())
    return f"{str(one.dtype).removeprefix('torch.')} {list(one.shape)}"


def _transform_of(folder: Any) -> Any:
    transform, target = getattr(folder, "transform", None), getattr(folder, "target_transform", None)
    both = getattr(folder, "transforms", None)
    if transform is None and both is not None:
        if type(both).__name__ != "StandardTransform":
            _refuse(both, "it changes images and labels together; give transform=, of the image alone")
        transform, target = both.transform, target or both.target_transform
    if target is not None:
        _refuse(folder, "its target_transform is a function of the label; leave it out, and use map_batch")
    loader = getattr(folder, "loader", None)
    name, home = getattr(loader, "__name__", ""), getattr(loader, "__module__", "")
    known = name in ("default_loader", "pil_loader") and home.startswith(_DATASETS)
    if loader is not None and not known:
        _refuse(
            folder,
            f"its loader {name or repr(loader)} is not torchvision's own default_loader or pil_loader; "
            "leave it out",
        )
    if transform is None:
        _refuse(folder, "it has no transform, so that its images have different sizes; use fl.Loader")
    return transform


def _files(folder: Any, places: np.ndarray | None) -> Files:
    samples = folder.samples
    if places is not None:
        outside = places[(places < -len(samples)) | (places >= len(samples))]
        if outside.size:
            _refuse(
                folder, f"index {outside[0]} of a Subset is outside its {len(samples)} samples; correct it"
            )
        samples = [samples[place] for place in places.tolist()]
    labels = [label for _, label in samples]
    wrong = {
        kind for kind in set(map(type, labels)) if not issubclass(kind, (int, np.integer)) or kind is bool
    }
    if wrong:
        label = next(label for label in labels if type(label) in wrong)
        _refuse(folder, f"the label {label!r} is no int; give ints, or use fl.Files without labels")
    classes = getattr(folder, "classes", None)
    classes = list(classes) if isinstance(classes, (list, tuple)) else None
    return Files([path for path, _ in samples], labels, classes)


def _parts(transform: Any) -> Iterator[Any]:
    """The single transforms, in order, out of any Compose and nn.Sequential."""
    if _is_at(type(transform), "Compose", _TRANSFORMS):
        inner = transform.transforms
    elif _is_at(type(transform), "Sequential", "torch.nn"):
        inner = transform
    else:
        yield transform
        return
    for one in inner:
        yield from _parts(one)


class _Reader:
    """What a list of transforms comes to, as far as it was read.

    state: what an image is by now: "pil", "uint8", or one of _FLOATS. view: of fl.Image; complete when it has
    a "size".
    """

    def __init__(self):
        self.state = "pil"
        self.view: dict[str, Any] = {}
        self.flips: dict[str, float] = {}
        self.early_flip: Any = None  # one that came before the geometry was complete
        self.jitter: tuple | None = None
        self.normalize: tuple | None = None

    def read(self, transform: Any) -> None:
        """Takes in all transforms; raises ConfigError for the first that has no counterpart."""
        for one in _parts(transform):
            name, home = type(one).__name__, type(one).__module__
            if name in ("Identity", "RGB") and home.startswith((_TRANSFORMS, "torch.nn")):
                continue
            step = _STEPS.get(name) if home.startswith(_TRANSFORMS) else None
            if step is None:
                way_out = _INSTEAD.get(
                    name, "leave it out, and do it in map_batch, or on the files beforehand"
                )
                _refuse(one, f"it has no counterpart in fastload; {way_out}")
            step(self, one)
        self._check_end()

    def _check_end(self) -> None:
        if not self.view:
            _refuse(
                "the transforms", "nothing makes the images one size; add Resize(256) and CenterCrop(224)"
            )
        if "size" not in self.view:
            side = self.view["resize"]
            _refuse("Resize", f"alone it gives images of different sizes; add CenterCrop({side})")
        if self.state == "pil":
            _refuse("the transforms", "nothing makes a tensor of the image; add ToTensor() at the end")

    def image(self, scaled: str | None) -> Image:
        try:
            return Image(scaled=scaled, **self.view)
        except ConfigError as error:
            raise ConfigError(f"from_torch: {error}") from None

    def augment(self) -> Augment:
        try:
            return Augment(**self.flips, color_jitter=self.jitter)
        except ConfigError as error:
            raise ConfigError(f"from_torch: {error}") from None

    def resize(self, one: Any) -> None:
        self._check_resampling(one)
        sides = _sides(one)
        if getattr(one, "max_size", None) is not None:
            _refuse(one, f"max_size={one.max_size} has no counterpart; leave it out, and crop")
        self.view["filter"] = _filter(one)
        if len(sides) == 1:
            self.view["resize"] = sides[0]
        else:
            self.view |= {"resize": "exact", "size": sides}

    def random_resized_crop(self, one: Any) -> None:
        self._check_resampling(one)
        scale, ratio = tuple(one.scale), tuple(one.ratio)
        self.view = {
            "resize": "random",
            "size": _height_width(one),
            "scale": scale,
            "ratio": ratio,
            "filter": _filter(one),
        }

    def center_crop(self, one: Any) -> None:
        self._crop(one, "center")
        if self.early_flip is not None and self.view.get("crop") == "center":
            _refuse(
                self.early_flip, "before a CenterCrop it moves the crop by a pixel; move it behind the crop"
            )

    def random_crop(self, one: Any) -> None:
        if np.any(one.padding or 0):
            _refuse(
                one, f"padding={one.padding!r} has no counterpart; leave it out, and resize to more pixels"
            )
        self._crop(one, "random")

    def _crop(self, one: Any, crop: str) -> None:
        size = _height_width(one)
        if self.view.get("size") == size:
            return  # it cuts nothing off
        if not self.view:
            _refuse(one, f"the images before it have different sizes; put Resize({max(size)}) before it")
        if "size" in self.view:
            _refuse(one, "a crop of what has its size already has no counterpart; ask for that size at once")
        side = self.view["resize"]
        if max(size) > side:
            _refuse(
                one, f"{size[0]} x {size[1]} pixels do not fit into Resize({side}); make the crop smaller"
            )
        self.view |= {"size": size, "crop": crop}

    def _check_resampling(self, one: Any) -> None:
        if self.view:
            _refuse(one, "the images were resized before; do it once")
        if self.state in _FLOATS:
            _refuse(one, "it resizes floats, which gives other values; move it before ToTensor or ToDtype")
        if one.antialias is False or (one.antialias is None and self.state != "pil"):
            _refuse(one, f"antialias={one.antialias}, and fastload always filters; give antialias=True")

    def flip(self, one: Any) -> None:
        name = {"RandomHorizontalFlip": "xflip", "RandomVerticalFlip": "yflip"}[type(one).__name__]
        if name in self.flips:
            _refuse(one, "it comes twice; keep one")
        self.flips[name] = one.p
        if "size" not in self.view:
            self.early_flip = one

    def color_jitter(self, one: Any) -> None:
        if self.jitter is not None:
            _refuse(one, "it comes twice; keep one")
        if "size" not in self.view:
            _refuse(one, "the contrast of what is cut off would count; move it behind the crop")
        if self.normalize is not None:
            _refuse(one, "it changes colours in [0, 1]; move it before Normalize")
        ranges = (one.brightness, one.contrast, one.saturation, one.hue)
        self.jitter = tuple(0.0 if pair is None else tuple(pair) for pair in ranges)

    def to_tensor(self, one: Any) -> None:
        is_wrapper = type(one).__name__ in ("ToImage", "ToPureTensor")
        if self.state == "pil" and type(one).__name__ != "ToPureTensor":
            self.state = "float32" if type(one).__name__ == "ToTensor" else "uint8"
        elif self.state != "pil" and not is_wrapper:
            _refuse(one, "the image is a tensor already; leave it out")

    def to_dtype(self, one: Any) -> None:
        dtype = str(one.dtype).removeprefix("torch.")
        if self.state == "pil":
            _refuse(one, "it leaves images of Pillow alone; put ToImage() before it")
        if dtype == self.state:
            return
        if dtype not in _FLOATS:
            _refuse(one, f"dtype={dtype}; give one of {', '.join(_FLOATS)}")
        if self.state == "uint8" and not getattr(one, "scale", True):
            _refuse(one, "without scale=True the levels stay 0 to 255; give scale=True")
        if self.state not in ("uint8", "float32"):
            _refuse(
                one, f"from {self.state} to {dtype}: the bits that were lost do not come back; leave one out"
            )
        self.state = dtype

    def normalization(self, one: Any) -> None:
        if self.normalize is not None:
            _refuse(one, "it comes twice; keep one")
        if self.state != "float32":
            _refuse(one, f"it would compute in {self.state}; put it between float32 and any other dtype")
        pair = tuple(tuple(float(number) for number in three) for three in (one.mean, one.std))
        self.normalize = tuple(three[0] if len(three) == 1 else three for three in pair)
        if np.min(self.normalize[1], initial=1) <= 0:
            _refuse(one, f"std={self.normalize[1]}: std must be above 0")
        try:
            normalization(self.normalize)
        except ConfigError as error:
            _refuse(one, str(error).rstrip("."))


def _sides(one: Any) -> tuple[int, ...]:
    """The size of a transform: one number, or (height, width)."""
    size = one.size
    sides = tuple(size) if isinstance(size, (list, tuple)) else (size,)
    if len(sides) not in (1, 2) or not all(isinstance(side, int) for side in sides):
        _refuse(one, f"size={size!r}; give one whole number, or (height, width)")
    return sides


def _height_width(one: Any) -> tuple[int, int]:
    sides = _sides(one)
    return sides if len(sides) == 2 else sides * 2


def _filter(one: Any) -> str:
    """The name of a transform's filter, an enum, a string or Pillow's number."""
    given = getattr(one.interpolation, "value", one.interpolation)
    name = _PILLOW_FILTERS.get(given, given) if isinstance(given, int) else given
    if name not in _FILTERS:
        _refuse(one, f"interpolation {name!r} has no counterpart here; give one of {', '.join(_FILTERS)}")
    return name


_STEPS = {
    "Resize": _Reader.resize,
    "RandomResizedCrop": _Reader.random_resized_crop,
    "CenterCrop": _Reader.center_crop,
    "RandomCrop": _Reader.random_crop,
    "RandomHorizontalFlip": _Reader.flip,
    "RandomVerticalFlip": _Reader.flip,
    "ColorJitter": _Reader.color_jitter,
    "ToTensor": _Reader.to_tensor,
    "PILToTensor": _Reader.to_tensor,
    "ToImage": _Reader.to_tensor,
    "ToPureTensor": _Reader.to_tensor,
    "ConvertImageDtype": _Reader.to_dtype,
    "ToDtype": _Reader.to_dtype,
    "Normalize": _Reader.normalization,
}
