"""Which fields the samples of a dataset have, and where those come from.

In: the fields of a loader, a dataset. Out: the fields that the dataset's labels answer, or a FieldError.
Promised: a misspelt extension never passes, and a sample without a field that has no default is named.
"""

from collections.abc import Mapping

from fastload.errors import FieldError
from fastload.fields import Field, Int
from fastload.shards.mixture import MixtureDataset

MOST_LISTED = 12  # extensions in a message


def label_fields(fields: Mapping[str, Field], dataset) -> set[str]:
    """The fields that the dataset's labels answer (class folders, EDM's dataset.json): fl.Int("cls").

    Files win: where some sample has an extension that the field names, the field is read from the files.
    """
    if not dataset.has_labels:
        return set()
    return {
        name
        for name, one in fields.items()
        if isinstance(one, Int) and "cls" in one.extensions and not _stored(one, dataset)
    }


def check_fields(fields: Mapping[str, Field], dataset) -> None:
    """Raises FieldError for a field that no sample has, default or not.

    Of a mixture, every source must have each field that has no default.
    """
    from_labels = label_fields(fields, dataset)
    for name, one in fields.items():
        if name in from_labels:
            continue
        if not _stored(one, dataset):
            raise _absent(name, one, dataset)
        if isinstance(dataset, MixtureDataset) and one.required:
            for source_name, source in dataset.datasets.items():
                if not _stored(one, source):
                    raise _absent_in_source(name, one, source_name, source)


def _absent_in_source(name: str, field: Field, source_name: str, source) -> FieldError:
    if name in label_fields({name: field}, source):
        return FieldError(
            f"fields[{name!r}]: the labels of source {source_name!r} are numbers of its class folders or of "
            "its dataset.json, those of other sources stand in files, and a number would mean two things. "
            "Give all sources labels of one kind."
        )
    return FieldError(f"source {source_name!r}: {_absent(name, field, source)}")


def _absent(name: str, field: Field, dataset) -> FieldError:
    by_number = sorted(dataset.extensions, key=dataset.extensions.get, reverse=True)
    more = f" and {len(by_number) - MOST_LISTED} more" if len(by_number) > MOST_LISTED else ""
    return FieldError(
        f"fields[{name!r}]: no sample of {dataset.names[0]}{' ...' if len(dataset.names) > 1 else ''} "
        f"has {' or '.join(field.extensions)}; name an extension that is there: "
        f"{', '.join(by_number[:MOST_LISTED])}{more}."
    )


def missing_error(name: str, field: Field, dataset, sample_id: int) -> FieldError:
    """The error for a sample that lacks a field without a default."""
    return FieldError(
        f"{dataset.where(sample_id)} has no {' or '.join(field.extensions)} for the field {name!r}, only "
        f"{', '.join(dataset.row(sample_id).extensions)}. Give the field a default=, or leave the sample out "
        "with exclude=."
    )


def _stored(field: Field, dataset) -> bool:
    return any(extension in dataset.extensions for extension in field.extensions)
