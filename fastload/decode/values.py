"""The fields that are not images: the bytes of an entry to a value, and the values of a batch to a column.

| field  | bytes                                       | value                  | in the batch               |
|--------|---------------------------------------------|------------------------|----------------------------|
| Int    | decimal digits, a sign, white space around  | int                    | int64 tensor [N]           |
| Text   | UTF-8; one newline at the end is dropped    | str                    | list                       |
| Json   | a JSON document                             | result of json.loads   | list                       |
| Tensor | npy, npz or pth, detected by its bytes      | array, tensor, or dict | tensor [N, ...], or a dict |
| Bytes  | any                                         | bytes                  | list                       |
| Custom | any                                         | result of fn(bytes)    | tensor [N, ...], or a list |

Promised: unsafe pickles are never loaded (npy and npz without object arrays, pth through `weights_only`); bad
content is a SampleError with the reason, to which the caller adds the sample's name. Exceptions of a Custom
function that parsers typically raise are a SampleError too, its other exceptions a FunctionError. Arrays that
cannot be stacked are a FieldError that names two samples. Torch is imported where tensors are made.
"""

import ast
import io
import json
import math
import os
import pickle
import re
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from fastload.errors import FastloadError, FieldError, FunctionError, SampleError
from fastload.fields import Bytes, Custom, Field, Int, Json, Tensor, Text
from fastload.rng import Draw
from fastload.shortage import is_of_memory

_INTEGER = re.compile(rb"\s*[+-]?[0-9]{1,30}\s*")
_NPY_MAGIC = b"\x93NUMPY"
_NPY_HEADER = {"descr", "fortran_order", "shape"}
# The headers that NumPy writes for arrays of numbers; all others are parsed as literals.
_SIDE = rb"(?:0|[1-9][0-9]{0,17})"
_NPY_USUAL = re.compile(
    rb"\{'descr': '([<>|=]?[a-zA-Z][0-9]{1,2})', 'fortran_order': (True|False), "
    rb"'shape': \((|" + _SIDE + rb",|" + _SIDE + rb"(?:, " + _SIDE + rb")+)\), \} *\n?"
)
_LITERAL_ATTEMPTS = 10
_literal_lock = threading.Lock()
_NPY_HEADER_BYTES = 10_000  # NumPy's own limit: a longer header is an attack on the parser
_MAY_NEST_BYTES = 1000  # CPython's parser raises MemoryError also for a literal that is nested too deeply
_ZIP_MAGIC = b"PK\x03\x04"
_PICKLE_MAGIC = b"\x80"
_WANTED = re.compile(r"tried to allocate (\d+) bytes")  # torch; for a damaged file this may be absurdly large
_MAX_INFLATION = 1032  # of deflate; torch.save stores arrays uncompressed
# What the parsers of Python's library raise for damaged content; other exceptions may be a bug of the caller.
_OF_THE_CONTENT = (ValueError, EOFError, struct.error, zlib.error, zipfile.BadZipFile, pickle.UnpicklingError)


def _begin_in_child() -> None:
    """The lock may have been held by a thread that does not exist in the child."""
    global _literal_lock
    _literal_lock = threading.Lock()


os.register_at_fork(after_in_child=_begin_in_child)


def decode(field: Field, content: "bytes | memoryview", draw: Draw | None = None) -> Any:
    """The value of one entry; see above. Raises SampleError with the reason.

    draw: the random numbers of this sample and field, for fields that draw.
    """
    if draw is not None:
        return _decode_custom(field, content, draw)
    return _DECODERS[type(field)](field, content)


def import_parsers(fields: Iterable[Field]) -> None:
    """Imports the modules that NumPy and torch would import when a worker thread parses the first array."""
    if not any(isinstance(field, Tensor) for field in fields):
        return
    import torch

    npz, pth = io.BytesIO(), io.BytesIO()
    np.savez(npz, array=np.zeros(1))
    torch.save(torch.zeros(1), pth)
    for content in (npz, pth):
        _DECODERS[Tensor](Tensor("npz"), content.getvalue())


def collate(name: str, field: Field, values: Sequence, where: Callable[[int], str]) -> Any:
    """The values of a batch as a column: a tensor, a dict of tensors, or a list.

    name: of the field; where(i): names sample i. Both are for the message of the FieldError that is raised if
    the arrays of a Tensor field differ in shape, dtype or keys. Values may be the field's default.
    """
    if isinstance(field, Int):
        import torch

        return torch.tensor(values, dtype=torch.int64)
    if isinstance(field, Tensor):
        return _stacked(name, list(values), where)
    if isinstance(field, Custom):
        return _stacked_if_possible(list(values))
    return list(values)


def _decode_int(field: Int, content) -> int:
    content = bytes(content)
    value = int(content) if _INTEGER.fullmatch(content) else None
    if value is None or not -(2**63) <= value < 2**63:
        raise SampleError(f"not a 64-bit integer: {_excerpt(content)}")
    return value


def _decode_text(field: Text, content) -> str:
    try:
        text = bytes(content).decode("utf-8")
    except UnicodeDecodeError as error:
        raise SampleError(f"not UTF-8: {error.reason} at byte {error.start}") from error
    for newline in ("\r\n", "\n"):
        if text.endswith(newline):
            return text[: -len(newline)]
    return text


def _decode_json(field: Json, content) -> Any:
    try:
        return json.loads(bytes(content))
    except (ValueError, RecursionError) as error:
        raise SampleError(f"not JSON: {error}") from error


def _decode_tensor(field: Tensor, content) -> Any:
    array = _array(bytes(content))
    if field.shape is not None or field.dtype is not None:
        _check_form(field, array)
    return array


def _array(content: bytes) -> Any:
    if content.startswith(_NPY_MAGIC):
        return _npy(content)
    if content.startswith(_ZIP_MAGIC):
        return _zip(content)
    if content.startswith(_PICKLE_MAGIC):  # torch's format before 1.6
        return _pth(content)
    raise SampleError(f"not npy, npz or pth: it begins with {_excerpt(content)}")


def _check_form(field: Tensor, array: Any) -> None:
    dtype = str(getattr(array, "dtype", "")).removeprefix("torch.")
    matches = dtype and field.shape in (None, tuple(array.shape)) and field.dtype in (None, dtype)
    if not matches:
        wanted = f"{field.dtype or 'an array'}{'' if field.shape is None else f' {list(field.shape)}'}"
        raise SampleError(f"expected {wanted}, got {_described(array)}")


def _decode_bytes(field: Bytes, content) -> bytes:
    return bytes(content)


def _decode_custom(field: Custom, content, *draw: Draw) -> Any:
    try:
        return field.fn(bytes(content), *draw)
    except SampleError:
        raise
    except Exception as error:
        if is_of_memory(error):
            raise
        called = getattr(field.fn, "__qualname__", repr(field.fn))
        message = f"{called} raised {type(error).__name__}: {' '.join(str(error).split())}"
        if _is_of_the_content(error):
            raise SampleError(message) from error
        raise FunctionError(
            f"{message}. To report bad content, raise fl.SampleError or ValueError."
        ) from error


def _is_of_the_content(error: Exception) -> bool:
    # Pillow raises OSError for damaged images; those of the system have an errno.
    if isinstance(error, OSError):
        return error.errno is None
    return isinstance(error, _OF_THE_CONTENT) and not isinstance(error, FastloadError)


_DECODERS = {
    Int: _decode_int,
    Text: _decode_text,
    Json: _decode_json,
    Tensor: _decode_tensor,
    Bytes: _decode_bytes,
    Custom: _decode_custom,
}


def _excerpt(content: bytes) -> str:
    return f"{content[:24]!r}" + ("..." if len(content) > 24 else "")


def _npy(content: bytes) -> np.ndarray:
    """A read-only view of the array in an npy file; in native byte order, C- or Fortran-contiguous."""
    major = content[6] if len(content) > 7 else 0
    length_bytes = {1: 2, 2: 4, 3: 4}.get(major)
    if length_bytes is None or len(content) < 8 + length_bytes:
        raise SampleError("an npy file of an unknown version, or truncated in its header")
    start = 8 + length_bytes + int.from_bytes(content[8 : 8 + length_bytes], "little")
    if start > min(len(content), _NPY_HEADER_BYTES):
        raise SampleError(f"an npy header of {start} bytes in a file of {len(content)}")
    dtype, fortran, shape = _npy_header(content[8 + length_bytes : start])
    expected = start + math.prod(shape) * dtype.itemsize
    if len(content) != expected:
        raise SampleError(f"an npy file of {len(content)} bytes; {dtype} {list(shape)} needs {expected}")
    order = "F" if fortran else "C"
    array = np.frombuffer(content, dtype, math.prod(shape), start).reshape(shape, order=order)
    return array.astype(dtype.newbyteorder("="), copy=False)


@lru_cache(maxsize=64)  # most arrays of a dataset have the same header
def _npy_header(text: bytes) -> tuple[np.dtype, bool, tuple[int, ...]]:
    try:
        usual = _NPY_USUAL.fullmatch(text)
        header = _literal(text.decode("latin1")) if usual is None else _usual_header(*usual.groups())
        dtype, fortran, shape = np.dtype(header["descr"]), header["fortran_order"], header["shape"]
        valid = set(header) == _NPY_HEADER and isinstance(fortran, bool) and isinstance(shape, tuple)
        valid = valid and all(type(side) is int and 0 <= side < 2**62 for side in shape)
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
        if isinstance(error, MemoryError) and len(text) < _MAY_NEST_BYTES:
            raise
        raise SampleError("an npy file with an invalid header") from error
    if not valid:
        raise SampleError("an npy file with an invalid header")
    if not _fits_a_tensor(dtype):
        raise SampleError(f"an npy file of {dtype}: a tensor holds only numbers and booleans")
    return dtype, fortran, shape


def _usual_header(descr: bytes, fortran: bytes, shape: bytes) -> dict:
    sides = tuple(int(side) for side in shape.split(b",") if side.strip())
    return {"descr": descr.decode("latin1"), "fortran_order": fortran == b"True", "shape": sides}


def _literal(text: str) -> Any:
    # CPython before 3.11.8 and 3.12.2 counts the depth of this recursion for all threads together and raises
    # SystemError if two are in it (gh-106905). Hence the lock, and further attempts if other code interfered.
    with _literal_lock:
        for attempt in range(_LITERAL_ATTEMPTS):
            try:
                return ast.literal_eval(text)
            except SystemError:
                if attempt == _LITERAL_ATTEMPTS - 1:
                    raise
    raise AssertionError


def _zip(content: bytes) -> Any:
    """npz: a dict of arrays. pth, a zip with a data.pkl: the result of torch.load."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            if any(name.endswith("data.pkl") for name in names):
                return _pth(content)
            return {name.removesuffix(".npy"): _npy(archive.read(name)) for name in names}
    except FastloadError:
        raise
    except Exception as error:  # of any class: zipfile's, zlib's, struct's
        if is_of_memory(error):
            raise
        raise SampleError(f"an npz file that cannot be read: {error}") from error


def _pth(content: bytes) -> Any:
    import torch

    try:
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # of any class: pickle, zip, and torch's own
        wanted = _WANTED.search(str(error))
        is_plausible = wanted is None or int(wanted[1]) <= _MAX_INFLATION * len(content)
        if is_of_memory(error) and is_plausible:
            raise
        reason = str(error).strip().split("\n")[0]
        raise SampleError(f"torch.load(weights_only=True) refuses the pth file: {reason}") from error
    return _detached(loaded)


def _detached(loaded: Any) -> Any:
    import torch

    if isinstance(loaded, torch.Tensor):
        return loaded.detach()
    if isinstance(loaded, dict) and loaded:
        return {key: _detached(value) for key, value in loaded.items()}
    if isinstance(loaded, (bool, int, float)):
        return torch.tensor(loaded)
    kind = type(loaded).__name__
    raise SampleError(f"the pth file holds a {kind}: store a tensor, or a dict of tensors")


def _stacked(name: str, values: list, where: Callable[[int], str]) -> Any:
    """Arrays, tensors or numbers as a tensor [N, ...]; dicts of them as a dict of such tensors."""
    import torch

    first = values[0]
    if isinstance(first, dict):
        for i, value in enumerate(values):
            if not isinstance(value, dict) or value.keys() != first.keys():
                raise _mismatch(name, where, first, i, value)
        return {key: _stacked(f"{name}.{key}", [value[key] for value in values], where) for key in first}
    if any(isinstance(value, torch.Tensor) for value in values):  # the default may be an array or a number
        values = [torch.as_tensor(value) if _kind(value) else value for value in values]
    for i, value in enumerate(values):
        if _kind(value) is None or _kind(value) != _kind(values[0]):
            raise _mismatch(name, where, first, i, value)
    return _stack(values)


def _stacked_if_possible(values: list) -> Any:
    kind = _kind(values[0])
    return _stack(values) if kind is not None and all(_kind(value) == kind for value in values) else values


def _stack(values: list) -> Any:
    import torch

    if isinstance(values[0], torch.Tensor):
        return torch.stack(values)
    return torch.from_numpy(np.stack(values))


def _kind(value: Any) -> tuple | None:
    """What values must share to be stacked: class, dtype, shape; None if the value fits no tensor."""
    import torch

    if isinstance(value, torch.Tensor):
        return "tensor", value.dtype, tuple(value.shape)
    if isinstance(value, (np.ndarray, np.generic)):
        return ("array", value.dtype, value.shape) if _fits_a_tensor(value.dtype) else None
    if type(value) is int and not -(2**63) <= value < 2**63:
        return None
    return ("number", type(value).__name__, ()) if type(value) in (bool, int, float, complex) else None


def _fits_a_tensor(dtype: np.dtype) -> bool:
    """Numbers and booleans, except long double, which torch lacks."""
    return dtype.kind in "biufc" and dtype.itemsize <= (16 if dtype.kind == "c" else 8)


def _mismatch(name: str, where: Callable[[int], str], first: Any, i: int, other: Any) -> FieldError:
    return FieldError(
        f"field {name!r}: {where(0)} holds {_described(first)}, and {where(i)} {_described(other)}, which "
        "cannot be stacked. Store them alike, or read them with fl.Bytes or fl.Custom."
    )


def _described(value: Any) -> str:
    if isinstance(value, dict):
        return f"a dict of {sorted(map(str, value))}"
    kind, dtype, shape = _kind(value) or (f"a {type(value).__name__}", "", None)
    return kind if shape is None else f"{kind} {str(dtype).removeprefix('torch.')} {list(shape)}"
