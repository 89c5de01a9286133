"""Values: exact, never unpickled, collated into tensors or refused with the two samples that do not fit."""

import ast
import gc
import io
import json
import pickle
import struct
import subprocess
import sys
import threading
import time
import zipfile
import zlib

import numpy as np
import pytest
import torch

from fastload.decode import values
from fastload.decode.values import collate, decode
from fastload.errors import ConfigError, FieldError, FunctionError, SampleError
from fastload.fields import Bytes, Custom, Int, Json, Tensor, Text

NPY, INT, TEXT = Tensor("npy"), Int(), Text()
ARRAYS = [
    np.arange(12, dtype=np.float32).reshape(3, 4),
    np.array(3.5, np.float16),
    np.zeros((0, 5), np.int64),
    np.arange(6, dtype=np.uint8).reshape(1, 2, 3),
    np.array([True, False]),
    np.arange(4, dtype=np.complex64),
    np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    np.arange(5, dtype=">i4"),
    np.arange(5, dtype=np.uint16),
]


def where(i: int) -> str:
    return f"a.tar: key '{i:04d}'"


def npy(array: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def npz(compressed: bool = False, **arrays) -> bytes:
    stream = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(stream, **arrays)
    return stream.getvalue()


def pth(value, **options) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    "content, value",
    [
        (b"0", 0),
        (b"7\n", 7),
        (b" -3 ", -3),
        (b"+12", 12),
        (b"0012", 12),
        (b"9223372036854775807", 2**63 - 1),
        (b"-9223372036854775808", -(2**63)),
    ],
)
def test_an_integer_is_its_decimal_digits(content, value):
    assert decode(INT, content) == value == decode(INT, memoryview(content))


@pytest.mark.parametrize(
    "content",
    [b"", b"cat", b"1.0", b"1_000", b"0x10", b"1 2", b"9223372036854775808", "\u0661".encode(), b"9" * 5000],
)
def test_anything_but_an_int64_is_refused(content):
    with pytest.raises(SampleError, match="not a 64-bit integer: b'") as caught:
        decode(INT, content)
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize(
    "text", ["", "a cat", " two  spaces ", "line\nline", "ünïcode ☃", "tab\t", "\ufeffmark"]
)
@pytest.mark.parametrize("newline", ["", "\n", "\r\n"])
def test_text_is_exact_but_for_one_newline_at_the_end(text, newline):
    assert decode(TEXT, (text + newline).encode()) == text


def test_only_one_newline_is_dropped():
    assert decode(TEXT, b"a\n\n") == "a\n"


def test_text_that_is_not_utf8_is_refused_with_the_byte():
    with pytest.raises(SampleError, match="not UTF-8: invalid start byte at byte 3"):
        decode(TEXT, b"abc\xff")


def test_json_is_parsed_as_by_json_loads():
    for value in ({"a": [1, 2.5, None]}, [], "x", 3):
        assert decode(Json(), json.dumps(value).encode()) == value
    for content in (b"", b"{", b"\xff\xfe", b"[" * 100_000, b"{'a': 1}"):
        with pytest.raises(SampleError, match="not JSON: "):
            decode(Json(), content)


@pytest.mark.parametrize("array", ARRAYS, ids=str)
def test_npy_is_parsed_as_by_numpy_and_stacked_to_a_tensor(array):
    got = decode(NPY, npy(array))
    np.testing.assert_array_equal(got, array)
    assert got.dtype == array.dtype.newbyteorder("=")
    batch = collate("latent", NPY, [got, got, got], where)
    assert isinstance(batch, torch.Tensor) and batch.shape == (3, *array.shape)
    np.testing.assert_array_equal(batch.numpy()[2], array)


def test_every_version_of_the_npy_header_is_read():
    array = np.arange(3, dtype=np.int16)
    for version in ((1, 0), (2, 0), (3, 0)):
        stream = io.BytesIO()
        np.lib.format.write_array(stream, array, version)
        assert (decode(NPY, stream.getvalue()) == array).all()


@pytest.mark.parametrize("size", range(0, 128 + 24))
def test_a_cut_npy_is_refused(size):
    with pytest.raises(SampleError, match="npy"):
        decode(NPY, npy(np.arange(3))[:size])


def test_bytes_behind_the_array_are_not_passed_over():
    with pytest.raises(SampleError, match=r"an npy file of 153 bytes; int64 \[3\] needs 152"):
        decode(NPY, npy(np.arange(3)) + b"x")


@pytest.mark.parametrize(
    "array",
    [np.array(["a"]), np.array([object()]), np.zeros(1, "M8[s]"), np.zeros(1, "i4,f4"), np.zeros(1, "g")],
)
def test_arrays_that_no_tensor_can_hold_are_refused(array):
    with pytest.raises(SampleError, match=r"only numbers and booleans|cannot be read"):
        decode(NPY, npy(array, allow_pickle=True))


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}",
        b"{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': 1}",
        b"{'descr': '<f4', 'fortran_order': False}",
        b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
        b"{'descr': 'nonsense', 'fortran_order': False, 'shape': (1,)}",
        b"__import__('os').getcwd()",
        b"(" * 2000,
        b"[1, 2]",
        b"",
    ],
)
def test_a_wrong_npy_header_is_refused(header):
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(4)
    with pytest.raises(SampleError, match=r"an npy (file|header)"):
        decode(NPY, content)


def test_a_huge_shape_is_refused_before_memory_is_asked_for():
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387903, 4611686018427387903)}"
    with pytest.raises(SampleError, match="needs 17"):
        decode(NPY, b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(8))


@pytest.mark.parametrize("compressed", [False, True])
def test_npz_is_a_dict_of_arrays_and_collates_to_a_dict(compressed):
    field, content = Tensor("npz"), npz(compressed, mean=np.ones((2, 3)), n=np.int64(4))
    got = decode(field, content)
    assert sorted(got) == ["mean", "n"]
    batch = collate("moments", field, [got, got], where)
    assert batch["mean"].shape == (2, 2, 3) and batch["n"].tolist() == [4, 4]
    for damaged in (content[:60], content[:-30], content[:90] + bytes([content[90] ^ 255]) + content[91:]):
        with pytest.raises(SampleError, match=r"np[yz]"):
            decode(field, damaged)


@pytest.mark.parametrize("legacy", [False, True])
def test_pth_is_loaded_with_weights_only(legacy):
    field, options = Tensor("pth"), {"_use_new_zipfile_serialization": not legacy}
    tensor = torch.randn(2, 3, dtype=torch.bfloat16, requires_grad=True)
    got = decode(field, pth(tensor, **options))
    assert torch.equal(got, tensor) and not got.requires_grad
    batch = collate("latent", field, [{"a": got, "b": torch.tensor(1)}] * 2, where)
    assert batch["a"].shape == (2, 2, 3) and batch["b"].tolist() == [1, 1]
    assert decode(field, pth({"n": 3}, **options))["n"].item() == 3
    for value in ([tensor], "text", {"a": "b"}, {}):
        with pytest.raises(SampleError, match="store a tensor, or a dict of tensors"):
            decode(field, pth(value, **options))
    with pytest.raises(SampleError, match=r"torch.load\(weights_only=True\) refuses"):
        decode(field, pth(Evil(), **options))
    with pytest.raises(SampleError, match=r"pth|npz"):
        decode(field, pth(tensor, **options)[:-20])


class Evil:
    """A pickle that would run code."""

    def __reduce__(self):
        return exec, ("raise SystemExit('code of a sample was run')",)


def test_a_bare_pickle_is_refused():
    with pytest.raises(SampleError, match="refuses"):
        decode(Tensor("pth"), pickle.dumps(Evil(), 2))


@pytest.mark.parametrize("content", [b"", b"\x93NUMP", b"text", bytes(64)])
def test_anything_but_an_array_is_refused_with_its_first_bytes(content):
    with pytest.raises(SampleError, match="not npy, npz or pth: it begins with b'"):
        decode(NPY, content)


def test_bytes_are_the_bytes():
    got = decode(Bytes("bin"), memoryview(b"\0\1"))
    assert got == b"\0\1" and type(got) is bytes
    assert collate("raw", Bytes("bin"), [got, b""], where) == [b"\0\1", b""]


def test_custom_returns_the_functions_result_or_names_its_exception():
    assert decode(Custom("x", len), memoryview(b"abc")) == 3
    with pytest.raises(FunctionError, match=r"fails raised ZeroDivisionError: division by zero\. To report"):
        decode(Custom("x", fails), b"")
    for content, reason in ((b"seven", "ValueError: invalid literal"), (b"\xff", "UnicodeDecodeError: ")):
        with pytest.raises(SampleError, match=f"parses raised {reason}"):
            decode(Custom("x", parses), content)
    with pytest.raises(FunctionError, match="refuses raised ConfigError: its own"):
        decode(Custom("x", refuses), b"")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (EOFError(), SampleError),
        (struct.error("x"), SampleError),
        (zlib.error("x"), SampleError),
        (zipfile.BadZipFile("x"), SampleError),
        (pickle.UnpicklingError("x"), SampleError),
        (OSError("image file is truncated"), SampleError),
        (OSError(5, "Input/output error"), FunctionError),
        (FileNotFoundError(2, "No such file"), FunctionError),
        (KeyError("x"), FunctionError),
        (TypeError("x"), FunctionError),
        (ImportError("x"), FunctionError),
        (RuntimeError("x"), FunctionError),
        (ConfigError("x"), FunctionError),
        (MemoryError(), MemoryError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, BaseException) else one.__name__,
)
def test_an_exception_of_a_function_means_damage_or_a_bug(error, kind):
    def raises(content):
        raise error

    with pytest.raises(kind) as caught:
        decode(Custom("x", raises), b"")
    assert type(caught.value) is kind


def parses(content: bytes):
    return int(content.decode())


def fails(content: bytes):
    return 1 / 0


def refuses(content: bytes):
    raise ConfigError("its own")


@pytest.mark.parametrize(
    "values, expected",
    [
        ([1, 2], torch.tensor([1, 2])),
        ([1.0, 2.5], torch.tensor([1.0, 2.5], dtype=torch.float64)),
        ([True, False], torch.tensor([True, False])),
        ([np.float32(1), np.float32(2)], torch.tensor([1.0, 2.0])),
        ([np.ones((2, 3))] * 2, torch.ones(2, 2, 3, dtype=torch.float64)),
        ([torch.ones(2)] * 3, torch.ones(3, 2)),
    ],
)
def test_custom_values_of_one_kind_become_a_tensor(values, expected):
    got = collate("x", Custom("x", len), values, where)
    assert torch.equal(got, expected) and got.dtype == expected.dtype


@pytest.mark.parametrize(
    "values",
    [
        [1, 2.0],
        [1, True],
        [1, 2**63],
        [2**63, 2**63],
        ["a", "b"],
        [None, None],
        [np.ones(2), np.ones(3)],
        [np.ones(2), np.ones(2, np.float32)],
        [torch.ones(2), np.ones(2)],
        [np.array(["a"]), np.array(["b"])],
        [{"a": 1}, {"a": 2}],
    ],
)
def test_other_custom_values_stay_a_list(values):
    got = collate("x", Custom("x", len), values, where)
    assert (
        type(got) is list
        and len(got) == len(values)
        and all(a is b for a, b in zip(got, values, strict=True))
    )


def test_labels_become_int64_and_texts_stay_a_list():
    got = collate("label", Int(default=-1), [3, -1, 2**62], where)
    assert got.dtype == torch.int64 and got.tolist() == [3, -1, 2**62]
    assert collate("caption", TEXT, ["a", None], where) == ["a", None]
    assert collate("meta", Json(), [{"a": 1}, []], where) == [{"a": 1}, []]


@pytest.mark.parametrize(
    "values, message",
    [
        (
            [np.ones((2, 3)), np.ones((2, 3)), np.ones((2, 4))],
            r"'0000' holds array float64 \[2, 3\], and .*'0002' array",
        ),
        ([np.ones(2), np.ones(2, np.float32)], r"array float64 \[2\], and .*'0001' array float32 \[2\]"),
        ([torch.ones(2), torch.ones(2).half()], r"tensor float32 \[2\], and .*'0001' tensor float16 \[2\]"),
        ([{"a": np.ones(1)}, {"b": np.ones(1)}], r"a dict of \['a'\], and .*a dict of \['b'\]"),
        ([{"a": np.ones(1)}, np.ones(1)], r"a dict of \['a'\], and .*array"),
        ([{"a": np.ones(1)}, {"a": np.ones(2)}], r"field 'latent.a': "),
        ([np.ones(1), None], r"array float64 \[1\], and .*a NoneType"),
        ([None, None], "a NoneType"),
    ],
)
def test_arrays_that_do_not_fit_name_two_samples(values, message):
    with pytest.raises(FieldError, match=message) as caught:
        collate("latent", NPY, values, where)
    assert "\n" not in str(caught.value) and "field 'latent" in str(caught.value)


def test_a_default_may_be_an_array_beside_tensors():
    got = collate(
        "latent",
        Tensor("pth", default=np.zeros(2, np.float32)),
        [torch.ones(2), np.zeros(2, np.float32)],
        where,
    )
    assert got.tolist() == [[1, 1], [0, 0]]


def test_decoding_numpy_and_text_needs_no_torch():
    code = (
        "import sys, io, numpy as np; from fastload.decode.values import decode;"
        "from fastload.fields import Int, Tensor;"
        "s = io.BytesIO(); np.save(s, np.ones(3)); decode(Tensor('npy'), s.getvalue()); decode(Int(), b'3');"
        "print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_headers_are_read_by_many_threads_at_once():
    """CPython 3.11.7 raises SystemError where threads are switched amid a literal, as by collections."""
    contents = []
    for i in range(300):
        header = f"{{'shape': ({i}, [1, [2, (3, {{4: (5, 6)}})]]), 'fortran_order': False, 'descr': '<f4'}}\n"
        contents.append(b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode())
    failures = []

    def work(part):
        for content in contents[part::8]:
            try:
                decode(NPY, content)
            except SampleError:
                continue
            except BaseException as error:
                failures.append(error)

    def switch(phase, details):
        time.sleep(0)

    before = gc.get_threshold()
    gc.set_threshold(5)
    gc.callbacks.append(switch)
    try:
        threads = [threading.Thread(target=work, args=(part,)) for part in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        gc.callbacks.remove(switch)
        gc.set_threshold(*before)
    assert failures == []


@pytest.mark.parametrize(
    "shape",
    ["3", "(3)", "(03,)", "(3,,)", "(,)", "(3 4)", "(-1,)", "(3, 4,)", "(3,4)", "()", "(3,)", "(3, 4)"],
)
def test_shapes_are_parsed_as_in_python(shape):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    try:
        expected = ast.literal_eval(header)["shape"]
        right = isinstance(expected, tuple) and all(side >= 0 for side in expected)
    except SyntaxError:
        right = False
    if right:
        assert values._npy_header(header.encode())[2] == expected
    else:
        with pytest.raises(SampleError, match="an npy file with an invalid header"):
            values._npy_header(header.encode())


def test_a_tensor_of_another_form_than_is_asked_for_is_damaged():
    array = np.zeros((4, 8), np.float32)
    for right in ({"shape": (4, 8)}, {"dtype": "float32"}, {"dtype": torch.float32, "shape": [4, 8]}):
        assert decode(Tensor("npy", **right), npy(array)).shape == (4, 8)
    with pytest.raises(SampleError, match=r"expected an array \[4, 9\], got array float32 \[4, 8\]"):
        decode(Tensor("npy", shape=(4, 9)), npy(array))
    with pytest.raises(SampleError, match=r"expected float16"):
        decode(Tensor("npy", dtype="float16"), npy(array))
    with pytest.raises(SampleError, match=r"expected float32 \[4, 8\], got a dict of \['a'\]"):
        decode(Tensor("npz", shape=(4, 8), dtype="float32"), npz(a=array))
    stream = io.BytesIO()
    torch.save(torch.zeros(4, 8, dtype=torch.bfloat16), stream)
    assert decode(Tensor("pth", shape=(4, 8), dtype="bfloat16"), stream.getvalue()).dtype == torch.bfloat16
    with pytest.raises(SampleError, match="expected float16"):
        decode(Tensor("pth", dtype="float16"), stream.getvalue())


@pytest.mark.parametrize("wrong", [{"shape": 4}, {"shape": (4, -1)}, {"shape": (1.5,)}, {"dtype": "float"}])
def test_a_form_that_means_nothing_is_refused(wrong):
    with pytest.raises(ConfigError, match=r"Tensor\((shape|dtype)="):
        Tensor("npy", **wrong)
