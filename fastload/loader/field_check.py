"""Which fields the samples of a dataset have, and where their values come from.

In: the fields of a loader, a dataset. Out: the fields whose values are the dataset's labels, or a FieldError.
Promised: a misspelt extension is an error, and a sample that lacks a required field is named.
"""

from collections.abc import Mapping

from fastload.errors import FieldError
from fastload.fields import Field, Int
from fastload.shards.mixture import MixtureDataset

MAX_LISTED = 12  # extensions in a message


def label_fields(fields: Mapping[str, Field], dataset) -> set[str]:
    """The names of the fields fl.Int("cls") whose values are the dataset's labels (class folders, or EDM's
    dataset.json). Files take precedence: where any sample has an extension of the field, it is read from
    files.
    """
    if not dataset.has_labels:
        return set()
    return {
        name
        for name, field in fields.items()
        if isinstance(field, Int) and "cls" in field.extensions and not _is_stored(field, dataset)
    }


def check_fields(fields: Mapping[str, Field], dataset) -> None:
    """Raises FieldError for a field that no sample has, even if the field has a default.

    Every source of a mixture must have each field without a default.
    """
    from_labels = label_fields(fields, dataset)
    for name, field in fields.items():
        if name in from_labels:
            continue
        if not _is_stored(field, dataset):
            raise _absent(name, field, dataset)
        if isinstance(dataset, MixtureDataset) and field.required:
            for source_name, source in dataset.datasets.items():
                if not _is_stored(field, source):
                    raise _absent_in_source(name, field, source_name, source)


def _absent_in_source(name: str, field: Field, source_name: str, source) -> FieldError:
    if name in label_fields({name: field}, source):
        return FieldError(
            f"fields[{name!r}]: all sources must have labels of one kind, but those of {source_name!r} "
            "come from its class folders or its dataset.json, and those of other sources from files, so a "
            "number would mean two classes. Give all sources labels of one kind."
        )
    return FieldError(f"source {source_name!r}: {_absent(name, field, source)}")


def _absent(name: str, field: Field, dataset) -> FieldError:
    by_count = sorted(dataset.extensions, key=dataset.extensions.get, reverse=True)
    more = f" and {len(by_count) - MAX_LISTED} more" if len(by_count) > MAX_LISTED else ""
    return FieldError(
        f"fields[{name!r}]: no sample of {dataset.names[0]}{' ...' if len(dataset.names) > 1 else ''} "
        f"has {' or '.join(field.extensions)}. Name an extension that they have: "
        f"{', '.join(by_count[:MAX_LISTED])}{more}."
    )


def missing_error(name: str, field: Field, dataset, sample_id: int) -> FieldError:
    """The error for a sample that lacks a field without a default."""
    return FieldError(
        f"{dataset.where(sample_id)} has no {' or '.join(field.extensions)} for the field {name!r}, only "
        f"{', '.join(dataset.row(sample_id).extensions)}. Give the field a default=, or leave the sample out "
        "with exclude=."
    )


def _is_stored(field: Field, dataset) -> bool:
    return any(extension in dataset.extensions for extension in field.extensions)
