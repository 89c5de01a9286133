"""A loader in words: its `repr`, and the fingerprints of its order and its pixels.

In: a config, and the opened samples. Out: text. Promised: the repr has one line per subject, shows arguments
only where they differ from their defaults, and reports what this machine lacks, without raising;
fingerprints are the same in every process, and change with whatever changes the order, or the pixels.
"""

import dataclasses
import hashlib
import reprlib
from collections.abc import Callable, Mapping
from typing import Any

from fastload.decode.backend import Backend, choose_backend
from fastload.errors import CursorError, FastloadError
from fastload.fields import REQUIRED, Field, Image
from fastload.loader.config import LoaderConfig
from fastload.loader.device import resolve_device
from fastload.loader.field_stage import registered_class
from fastload.order.cursor import VERSION_OF_0_1_0, Cursor
from fastload.shards.inventory import inventory_of, is_inventory, what_changed
from fastload.shards.mixture import MixtureDataset

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200  # a path must be shown in full


def describe(config: LoaderConfig, threads: Callable[[], int], order: str, position: str) -> str:
    """The `repr` of a loader: what it reads, what it makes, and which decoder it uses on this machine."""
    lines = [
        f"fastload.Loader({_SHORT.repr(config.source)}, batch_size={config.batch_size})",
        *(f"  {name}: {_field(field)}" for name, field in config.fields.items()),
    ]
    if config.image_fields:
        rule = config.normalize if isinstance(config.normalize, str) else _SHORT.repr(config.normalize)
        rule = "not normalized" if config.dtype == "uint8" else f"normalize={rule}"
        lines.append(f"  pixels: {config.dtype}, {config.layout}, {rule}, {config.augment!r}")
        lines.append(f"  decode: {_decoder(config, threads)}")
    return "\n".join([*lines, f"  order: {order}", f"  at: {position}"])


def order_fingerprints(spec, dataset, sample_order) -> dict[str, str | int | None]:
    """Part of the order -> its fingerprint; loaders that agree have the same samples at equal positions."""
    parts = {"seed": spec.seed, "plan": sample_order.kind, "window": spec.window}
    if spec.is_sampled:
        parts["batch_size"] = spec.batch_size
    if isinstance(dataset, MixtureDataset):
        parts["epoch_samples"] = sample_order.n
    for name, source in _sources(dataset).items():
        parts |= _source_fingerprints(_suffix(name), source, spec.has_labels)
    return parts


def inventories(dataset) -> dict[str, list]:
    """source -> the inventory of its data for a checkpoint; "" is the only source of a loader."""
    return {name: inventory_of(source) for name, source in _sources(dataset).items()}


def order_as_now(restored: Cursor, own: Mapping, dataset) -> Mapping[str, str | int | None]:
    """The order fingerprints of a cursor in the form of this version; own: those of this loader.

    Classes are compared where both have them. Raises CursorError where an order of 0.1.0 cannot be continued.
    """
    parts = {part: value for part, value in restored.order.items() if not part.startswith("selection")}
    for part, value in own.items():
        if part.startswith("classes") and (value is None or parts.get(part) is None):
            parts[part] = value
    if restored.version != VERSION_OF_0_1_0:
        return parts
    for name, source in _sources(dataset).items():
        part, selection = f"source{_suffix(name)}", restored.order.get(f"selection{_suffix(name)}")
        source_then, selection_then = source.fingerprints_of_0_1_0()
        is_same = parts.get(part) == source_then[:16] and selection == (
            selection_then and selection_then[:16]
        )
        if is_same and restored.order.get("window") is not None and source.has_unused_containers:
            raise CursorError(
                "the checkpoint was saved by fastload 0.1.0 with window=, and some shards have no selected "
                "sample. In 0.1.0 such shards changed the order. Continue with 0.1.0, or start again."
            )
        if is_same:
            parts[part] = own[part]
    return parts


def explain(restored: Cursor, own: Mapping, dataset) -> str:
    """How the data has changed since a cursor was saved, as sentences for an error; "" if it has not."""
    sentences = []
    for name, source in _sources(dataset).items():
        then, print_then = restored.inventory.get(name), restored.order.get(f"source{_suffix(name)}")
        if print_then == own[f"source{_suffix(name)}"] or not is_inventory(then):
            continue
        said = what_changed(source, then, str(print_then), name or None)
        sentences.append(f"Source {name!r}: {said}" if name else said)
    if any(restored.order.get(part) != value for part, value in own.items() if part.startswith("classes")):
        sentences.append(
            "The names or numbers of the classes have changed, for example by a new class folder. "
            "fl.Files(paths, labels, classes) keeps the numbers."
        )
    return " ".join(sentences)


def _sources(dataset) -> dict[str, Any]:
    return dataset.datasets if isinstance(dataset, MixtureDataset) else {"": dataset}


def _suffix(name: str) -> str:
    return f" {name!r}" if name else ""


def _source_fingerprints(name: str, dataset, has_labels: bool) -> dict[str, str | None]:
    """source: of the selected samples and where they are stored. classes: of the names of the labels, where
    labels are loaded, because a new class folder may change what a label means.
    """
    numbered = dataset.used_classes() if has_labels else None
    return {
        f"source{name}": dataset.fingerprint[:16],
        f"classes{name}": None if numbered is None else fingerprint(numbered),
    }


def pixel_fingerprints(config: LoaderConfig) -> dict[str, str | None]:
    """Part -> its fingerprint; loaders that agree make equal pixels of equal samples at equal positions. The
    decoder is given by name, the rest as 16 hex digits or a word.
    """
    registered = {name: registered_class(field) for name, field in sorted(config.fields.items())}
    stages = [
        (name, f"{kind.__module__}.{kind.__qualname__}", repr(config.fields[name]))
        for name, kind in registered.items()
        if kind is not None
    ]
    parts = {"registered fields": fingerprint(stages)} if stages else {}
    if not config.image_fields:
        return parts
    fields = []
    for name, field in sorted(config.image_fields.items()):
        rule = None if config.dtype == "uint8" else config.normalization_of(name)
        fields.append((name, dataclasses.replace(field, normalize=None, report=False), rule))
    return parts | {
        "image fields": fingerprint(fields),
        "augment": fingerprint(config.augment),
        "dtype": config.dtype,
        "decode": _decoded_by(config),
    }


def _decoded_by(config: LoaderConfig) -> str:
    """All that affects the pixels of the decoder: its name, where it finishes them, DALI's engine."""
    backend = backend_of(config)
    if backend.name != "dali":
        kind = _device_type(config)
        return backend.name if kind == "cpu" else f"{backend.name}, finished on {kind}"
    engine = "" if config.hw_decoder_load is None else f", hw_decoder_load={config.hw_decoder_load}"
    determinism = "" if config.deterministic else ", not deterministic"
    return f"dali: {backend.jpeg}{engine}{determinism}"


def backend_of(config: LoaderConfig) -> Backend:
    """The decoder on this machine; device="auto" asks torch for a GPU. Raises BackendError."""
    return choose_backend(config.decode, _device_type(config))


def _device_type(config: LoaderConfig) -> str:
    return "cpu" if config.device == "cpu" else resolve_device(config.device).type


def fingerprint(*parts: Any) -> str:
    """16 hex digits of the `repr` of the parts."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _decoder(config: LoaderConfig, threads: Callable[[], int]) -> str:
    try:
        return f"{backend_of(config).describe()}, {threads()} threads"
    except FastloadError as error:
        return f"impossible here: {error}"


def _field(field: Field) -> str:
    """`Image(size=256)`: the arguments that differ from their defaults."""
    if not dataclasses.is_dataclass(field):  # of a registered class
        return _SHORT.repr(field)
    shown = []
    for argument in dataclasses.fields(field):
        value = getattr(field, argument.name)
        if argument.name == "default":
            is_default = value is REQUIRED
        else:
            is_default = argument.default is not dataclasses.MISSING and value == argument.default
        if is_default and (argument.name != "ext" or isinstance(field, Image)):
            continue
        if argument.name == "size" and isinstance(field, Image) and value[0] == value[1]:
            value = value[0]
        text = getattr(value, "__qualname__", None) or _SHORT.repr(value)
        is_first = argument.name in ("ext", "fn") and not any("=" in part for part in shown)
        shown.append(text if is_first else f"{argument.name}={text}")
    return f"{type(field).__name__}({', '.join(shown)})"
