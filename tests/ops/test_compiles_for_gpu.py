"""Kernels that the interpreter runs are also compiled for sm_90, which takes no GPU: Triton, LLVM and ptxas.

A kernel is one thing under TRITON_INTERPRET=1 and another without, so they are compiled in another process,
which this file is when it is run as a module. What ptxas says of registers, spills and shared memory is kept
as properties of the test; `pytest -rP` shows it.

To add a kernel, add a line to KERNELS.
"""

import contextlib
import importlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

ARCHITECTURE = 90  # of an H100 and an H200
ROOT = Path(__file__).parents[2]


class Kernel(NamedTuple):
    """One way to compile a kernel of fastload/ops.

    arguments: the types of those that are no constexpr, in the kernel's order. "*fp32" is a pointer, aligned
        to 16 bytes, as tensors are; "i32:16" a multiple of 16 and "1" an integer that is 1, which a launch
        finds and compiles in; others are "i32", "i64", "fp32". "4 x i32" is four of them, and what stands in
        parentheses a tuple.
    constexprs: makes the others by name, and options as num_warps, out of the kernel's module, whose own
        constants they are.
    """

    module: str
    name: str
    case: str
    arguments: str
    constexprs: Callable


def _fused(**changes):
    def constexprs(module):
        stages = dict.fromkeys(("WARP", "JITTER", "MEAN", "COLOR", "HSV", "CUTOUT"), True)
        tile = {"BLOCK": module.BLOCK, "TILE_WIDTH": 256, "TILES_X": 1}
        options = {"num_warps": module.NUM_WARPS, "maxnreg": module.MAX_REGISTERS}
        pixels = {"CHANNELS": 3, "UNIT": 1 / 255, "WORDS": True, "NEAREST": False, "INDEX": module.tl.int32}
        return stages | pixels | tile | options | changes

    return constexprs


def _upfirdn2d(up, down, taps, planes=1, tile=(4, 128), flip=False, index="int32"):
    """Pairs are (y, x)."""

    def constexprs(module):
        assert planes * tile[0] * tile[1] == module.BLOCK
        names = ("UP_Y", "UP_X", "DOWN_Y", "DOWN_X", "TAPS_Y", "TAPS_X", "TILE_Y", "TILE_X")
        pairs = dict(zip(names, (*up, *down, *taps, *tile), strict=True))
        others = {"FLIP": flip, "PLANES": planes, "INDEX": getattr(module.tl, index)}
        return pairs | others | {"num_warps": module.NUM_WARPS}

    return constexprs


FUSED, UPFIRDN2D = "fused.fused_augment_triton", "resample.upfirdn2d_triton"
PIXELS = "(*u8 3 x i32:16 1) *fp32 *fp32 i32 2 x i32:16 "
TO_HALF = "(*bf16 3 x i32:16 1) (3 x fp32) (3 x fp32) (3 x fp32)"
ROWS, REST = "3 x i32:16 1) *fp32 ", "10 x i32 fp32"
KERNELS = [
    Kernel(FUSED, "_kernel", "all stages", PIXELS + TO_HALF, _fused()),
    Kernel(FUSED, "_kernel", "nothing", PIXELS + TO_HALF, _fused(
        WARP=False, JITTER=False, MEAN=False, COLOR=False, HSV=False, CUTOUT=False)),
    Kernel(UPFIRDN2D, "_kernel", "up along x", "(*bf16 " + ROWS + "*fp32 " + REST,
           _upfirdn2d((1, 2), (1, 1), (1, 12))),
    Kernel(UPFIRDN2D, "_kernel", "down along y", "(*fp32 " + ROWS + "*bf16 " + REST,
           _upfirdn2d((1, 1), (2, 1), (12, 1), flip=True)),
    Kernel(UPFIRDN2D, "_kernel", "[4, 4] on small planes", "(*fp16 " + ROWS + "*fp16 " + REST,
           _upfirdn2d((1, 1), (1, 1), (4, 4), planes=8, tile=(8, 8))),
    Kernel(UPFIRDN2D, "_kernel", "all at once", "(*fp32 2 x i64 2 x i32) *fp32 *fp32 " + REST,
           _upfirdn2d((2, 3), (3, 2), (5, 7), planes=2, tile=(16, 16), index="int64")),
    Kernel(UPFIRDN2D, "_kernel", "all numbers are 1", "(*fp32 4 x 1) *fp32 *fp32 10 x 1 fp32",
           _upfirdn2d((2, 2), (1, 1), (3, 3), planes=512, tile=(1, 1))),
    Kernel(UPFIRDN2D, "_kernel", "many planes, else 1", "(*fp32 4 x 1) *fp32 *fp32 i32 9 x 1 fp32",
           _upfirdn2d((1, 1), (2, 2), (1, 1), tile=(4, 128))),
]  # fmt: skip


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """What became of each kernel: {"error": ...} or what ptxas says, by its number in KERNELS."""
    pytest.importorskip("triton", reason="Triton is not installed")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_DUMP_PTXAS_LOG"] = "1"
    # In an empty folder, because ptxas is silent about what is cached.
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    command = [sys.executable, "-m", __name__]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr[-4000:]
    *results, last = ran.stdout.splitlines()
    assert last == "done" and results, ran.stdout[-4000:]
    results = [json.loads(line) for line in results]
    if "unable" in results[0]:
        pytest.skip(f"Triton cannot compile for sm_{ARCHITECTURE} here: {results[0]['unable']}")
    return results


@pytest.mark.parametrize(
    "number", range(len(KERNELS)), ids=[f"{one.module}.{one.name}: {one.case}" for one in KERNELS]
)
def test_the_kernel_compiles_for_a_gpu(number, compiled, record_property):
    result = compiled[number]
    assert "error" not in result, result["error"]
    for name, value in result.items():
        record_property(name, value)
    print(", ".join(f"{name} {value}" for name, value in result.items()))
    assert result["cubin_bytes"] > 0


def test_strides_in_tuples_keep_their_alignment(compiled):
    """Without it, lanes would read and write single elements."""
    found = [
        result["wide_accesses"] for one, result in zip(KERNELS, compiled, strict=True) if one.module == FUSED
    ]
    assert len(found) == 2 and min(found) > 0, found


def main():
    """Compiles all kernels, each a line of JSON on stdout."""
    import triton

    try:
        _compiled(triton.jit(_nothing), {"at": "*fp32"}, {})
    except Exception as error:  # whatever it is, the reason to skip
        print(json.dumps({"unable": f"{type(error).__name__}: {error}"[:500]}))
    else:
        for one in KERNELS:
            print(json.dumps(_result_of(one)))
    print("done")


def _nothing(at):
    pass


def _result_of(one: Kernel) -> dict:
    try:
        module = importlib.import_module(f"fastload.ops.{one.module}")
        kernel, given = getattr(module, one.name), one.constexprs(module)
        options = {name: value for name, value in given.items() if name not in kernel.arg_names}
        constexprs = {name: value for name, value in given.items() if name in kernel.arg_names}
        types = _types(one.arguments)
        others = [name for name in kernel.arg_names if name not in constexprs]
        if len(others) != len(types):
            raise ValueError(f"{len(types)} types {types} for {len(others)} arguments {others}")
        return _compiled(kernel, dict(zip(others, types, strict=True)), constexprs, **options)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[-3000:]}


def _types(arguments: str) -> list:
    """The types in a Kernel's arguments, of tuples as tuples."""
    types, several = [[]], 1
    for word in re.findall(r"\d+ x|[()]|[^\s()]+", arguments):
        if word.endswith(" x"):
            several = int(word.split()[0])
        elif word == "(":
            types.append([])
        elif word == ")":
            inner = tuple(types.pop())
            types[-1].append(inner)
        else:
            types[-1] += [word] * several
            several = 1
    return types[0]


def _signed(kind: str) -> str:
    """A type as Triton's signatures have it."""
    return "constexpr" if kind == "1" else kind.split(":")[0]


def _compiled(kernel, types: dict, constexprs: dict, **options) -> dict:
    """Compiles for ARCHITECTURE; the numbers that Triton and ptxas tell."""
    import triton
    from triton.backends.compiler import GPUTarget

    kinds, signature = {}, dict.fromkeys(kernel.arg_names, "constexpr")
    for name, kind in types.items():
        number = kernel.arg_names.index(name)
        if isinstance(kind, tuple):
            signature[name] = tuple(_signed(part) for part in kind)
            kinds |= {(number, i): part for i, part in enumerate(kind)}
        else:
            signature[name] = _signed(kind)
            kinds[number,] = kind
    constexprs = constexprs | {path: 1 for path, kind in kinds.items() if kind == "1"}
    aligned = [path for path, kind in kinds.items() if kind.startswith("*") or kind.endswith(":16")]
    attributes = {path: [["tt.divisibility", 16]] for path in aligned}
    source = triton.compiler.ASTSource(kernel, signature, constexprs, attributes)
    log = io.StringIO()
    with contextlib.redirect_stdout(log):
        result = triton.compile(source, target=GPUTarget("cuda", ARCHITECTURE, 32), options=options)
    wide = re.findall(r"(?:ld|st)\.global\S*\.v[24]", result.asm["ptx"])
    numbers = {"wide_accesses": len(wide)} | {
        "cubin_bytes": len(result.asm["cubin"]),
        "shared_bytes": result.metadata.shared,
    }
    for name, pattern in (
        ("registers", r"Used (\d+) registers"),
        ("spill_store_bytes", r"(\d+) bytes spill stores"),
        ("spill_load_bytes", r"(\d+) bytes spill loads"),
    ):
        found = re.search(pattern, log.getvalue())
        if found:
            numbers[name] = int(found.group(1))
    return numbers


if __name__ == "__main__":
    main()
