"""What a loader says of itself: its `repr`, and the fingerprints of its order and its pixels.

In: a config, and what is known by now. Out: text. Promised: short, one line a subject, arguments only where
they differ from their defaults; the repr does not raise for what this machine lacks, it says so; the
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
from fastload.order.cursor import VERSION_OF_0_1_0, Cursor
from fastload.shards.inventory import inventory_of, is_inventory, what_changed
from fastload.shards.mixture import MixtureDataset

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 200  # a path is of use only as a whole


def describe(config: LoaderConfig, threads: Callable[[], int], order: str, place: str) -> str:
    """The `repr` of a loader: what it reads, what it makes of it, and who does that on this machine."""
    lines = [
        f"fastload.Loader({_SHORT.repr(config.source)}, batch_size={config.batch_size})",
        *(f"  {name}: {_field(one)}" for name, one in config.fields.items()),
    ]
    if config.image_fields:
        rule = config.normalize if isinstance(config.normalize, str) else _SHORT.repr(config.normalize)
        rule = "not normalized" if config.dtype == "uint8" else f"normalize={rule}"
        lines.append(f"  pixels: {config.dtype}, {config.layout}, {rule}, {config.augment!r}")
        lines.append(f"  decode: {_decoder(config, threads)}")
    return "\n".join([*lines, f"  order: {order}", f"  at: {place}"])


def order_fingerprints(spec, dataset, sample_order) -> dict[str, str | int | None]:
    """Part -> what decides it; two loaders with equal parts take the same samples at the same positions."""
    parts = {"seed": spec.seed, "plan": sample_order.kind, "window": spec.window}
    if spec.is_sampled:
        parts["batch_size"] = spec.batch_size
    if isinstance(dataset, MixtureDataset):
        parts["epoch_samples"] = sample_order.n
    for name, source in _sources(dataset).items():
        parts |= _source_fingerprints(_suffix(name), source, spec.has_labels)
    return parts


def inventories(dataset) -> dict[str, list]:
    """source -> what a checkpoint remembers of its data; "" is the source of a loader that has but one."""
    return {name: inventory_of(one) for name, one in _sources(dataset).items()}


def order_as_now(restored: Cursor, own: Mapping, dataset) -> Mapping[str, str | int | None]:
    """The order's fingerprints of a cursor in the layout of this version; own: those of this loader.

    Classes count where both have them. Raises CursorError where an order of 0.1.0 cannot be gone on with.
    """
    parts = {part: value for part, value in restored.order.items() if not part.startswith("selection")}
    for part, value in own.items():
        if part.startswith("classes") and (value is None or parts.get(part) is None):
            parts[part] = value
    if restored.version != VERSION_OF_0_1_0:
        return parts
    for name, one in _sources(dataset).items():
        part, selection = f"source{_suffix(name)}", restored.order.get(f"selection{_suffix(name)}")
        source_then, selection_then = one.fingerprints_of_0_1_0()
        is_same = parts.get(part) == source_then[:16] and selection == _start(selection_then)
        if is_same and restored.order.get("window") is not None and one.has_unused_containers:
            raise CursorError(
                "the checkpoint was saved by fastload 0.1.0 with window=, and some shards have no selected "
                "sample: in 0.1.0 these had a say in the order. Go on with 0.1.0, or begin anew."
            )
        if is_same:
            parts[part] = own[part]
    return parts


def explain(restored: Cursor, own: Mapping, dataset) -> str:
    """Sentences for a refusal: what has become of the data since a cursor was saved; "" where nothing has."""
    sentences = []
    for name, one in _sources(dataset).items():
        then, print_then = restored.inventory.get(name), restored.order.get(f"source{_suffix(name)}")
        if print_then == own[f"source{_suffix(name)}"] or not is_inventory(then):
            continue
        said = what_changed(one, then, str(print_then), name or None)
        sentences.append(f"Source {name!r}: {said}" if name else said)
    if any(restored.order.get(part) != value for part, value in own.items() if part.startswith("classes")):
        sentences.append(
            "The classes have other names or numbers than then, as when a class folder was added: "
            "fl.Files(paths, labels, classes) keeps the numbers."
        )
    return " ".join(sentences)


def _sources(dataset) -> dict[str, Any]:
    return dataset.datasets if isinstance(dataset, MixtureDataset) else {"": dataset}


def _suffix(name: str) -> str:
    return f" {name!r}" if name else ""


def _start(text: str | None) -> str | None:
    return None if text is None else text[:16]


def _source_fingerprints(name: str, dataset, has_labels: bool) -> dict[str, str | None]:
    """source: of its selected samples, which they are and where they lie. classes: where labels are loaded,
    which number has which name, for a new class folder may change what labels mean.
    """
    numbered = dataset.used_classes() if has_labels else None
    return {
        f"source{name}": dataset.fingerprint[:16],
        f"classes{name}": None if numbered is None else fingerprint(numbered),
    }


def pixel_fingerprints(config: LoaderConfig) -> dict[str, str | None]:
    """Part -> what decides it; two loaders with equal ones make equal pixels of equal samples at equal
    positions. The decoder is named as it is; the rest is 16 hex digits, or a word."""
    if not config.image_fields:
        return {}
    made = [
        (name, dataclasses.replace(one, normalize=None, report=False), _rule(config, name))
        for name, one in sorted(config.image_fields.items())
    ]
    return {
        "image fields": fingerprint(made),
        "augment": fingerprint(config.augment),
        "dtype": config.dtype,
        "decode": _decoded_by(config),
    }


def _decoded_by(config: LoaderConfig) -> str:
    """What decides the pixels of a decoder: its name, and DALI's place and engine."""
    backend = backend_of(config)
    if backend.name != "dali":
        place = "cpu" if config.device == "cpu" else resolve_device(config.device).type
        return backend.name if place == "cpu" else f"{backend.name}, finished on {place}"
    engine = "" if config.hw_decoder_load is None else f", hw_decoder_load={config.hw_decoder_load}"
    how = "" if config.deterministic else ", not deterministic"
    return f"dali: {backend.jpeg}{engine}{how}"


def backend_of(config: LoaderConfig) -> Backend:
    """Who decodes for this config on this machine; "auto" asks torch for a GPU.

    Raises BackendError where nobody can.
    """
    kind = "cpu" if config.device == "cpu" else resolve_device(config.device).type
    return choose_backend(config.decode, kind)


def fingerprint(*parts: Any) -> str:
    """16 hex digits of the `repr` of the parts."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _rule(config: LoaderConfig, name: str):
    return None if config.dtype == "uint8" else config.normalization_of(name)


def _decoder(config: LoaderConfig, threads: Callable[[], int]) -> str:
    try:
        return f"{backend_of(config).describe()}, {threads()} threads"
    except FastloadError as error:
        return f"impossible here: {error}"


def _field(one: Field) -> str:
    """`Image(size=256)`: the arguments that differ from their defaults."""
    shown = []
    for argument in dataclasses.fields(one):
        value = getattr(one, argument.name)
        if argument.name == "default":
            usual = value is REQUIRED
        else:
            usual = argument.default is not dataclasses.MISSING and value == argument.default
        if usual and (argument.name != "ext" or isinstance(one, Image)):
            continue
        if argument.name == "size" and value[0] == value[1]:
            value = value[0]
        text = getattr(value, "__qualname__", None) or _SHORT.repr(value)
        shown.append(text if argument.name in ("ext", "fn") else f"{argument.name}={text}")
    return f"{type(one).__name__}({', '.join(shown)})"
