"""Builds the fuzz targets of this folder and runs them.

In: a target's name. Out: a program, and what a run of it says. libFuzzer where clang has it, else driver.cpp
with whatever C++ compiler there is; AddressSanitizer and UndefinedBehaviorSanitizer wherever they link and
run. `toolchain()` tells which. Only the files of csrc/ that the targets need are compiled, each once.
"""

import atexit
import functools
import os
import platform
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
CONTAINERS = ("shards/container_file", "shards/sample_rows")
KERNELS = ("decode/pixels", "decode/pixel_kernels_portable")
X86_KERNELS = tuple(f"decode/pixel_kernels_{name}" for name in ("sse2", "avx2", "avx512", "vnni"))
X86_64 = platform.machine().lower() in ("x86_64", "amd64")
SOURCES = {
    "tar": (*CONTAINERS, "shards/tar_index"),
    "zip": (*CONTAINERS, "shards/zip_index"),
    "image_header": ("decode/image_header",),
    "jpeg": (
        *("decode/image_header", "decode/geometry", "decode/jpeg", "decode/jpeg_planes"),
        *("decode/render_jpeg", "decode/resize", "decode/axis_plan", "decode/pixel_writer"),
        *KERNELS,
        *(X86_KERNELS if X86_64 else ()),
    ),
}
MAX_LEN = {"tar": 16384, "zip": 4096, "image_header": 4096, "jpeg": 4096}  # bytes of an input
NO_LIBJPEG = 2  # the exit status of fuzz_jpeg where the library cannot be loaded
BOTH = "-fsanitize=address,undefined"
COMMON = (
    "-std=c++17",
    "-O1",
    "-g1",
    "-fno-omit-frame-pointer",
    "-ffp-contract=off",
    f"-I{CSRC}",
    f"-I{HERE}",
)


class Toolchain(NamedTuple):
    name: str
    compiler: str
    flags: tuple[str, ...]  # of every file and of the link
    target_flags: tuple[str, ...]  # of all files but driver.cpp
    link_flags: tuple[str, ...]
    has_driver: bool  # driver.cpp belongs to the program
    sanitized: bool


class Run(NamedTuple):
    exit_status: int
    executions: int | None  # None: the run did not come to its end
    covered: int | None  # places of the code, in the engine's own count
    output: str


def candidates() -> list[Toolchain]:
    """Best first."""
    clang, plain = (
        shutil.which("clang++"),
        os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++"),
    )
    hard = (BOTH, "-fno-sanitize-recover=all")
    guided = ("-fsanitize-coverage=trace-pc",)
    found = []
    if clang:
        fuzzer = ("-fsanitize=fuzzer-no-link",)
        found.append(
            Toolchain("libFuzzer, ASan and UBSan", clang, hard, fuzzer, ("-fsanitize=fuzzer",), False, True)
        )
    for compiler in (plain, clang):
        if compiler:
            found.append(Toolchain("driver.cpp, ASan and UBSan", compiler, hard, guided, (), True, True))
            found.append(Toolchain("driver.cpp, no sanitizer", compiler, (), guided, (), True, False))
            found.append(Toolchain("driver.cpp, no sanitizer, blind", compiler, (), (), (), True, False))
    return sorted(found, key=lambda one: not one.sanitized)


@functools.cache
def toolchain() -> Toolchain | None:
    """The best candidate whose programs run here; None where there is no C++ compiler."""
    with tempfile.TemporaryDirectory() as folder:
        for one in candidates():
            source = Path(folder) / "probe.cpp"
            source.write_text(
                'extern "C" int LLVMFuzzerTestOneInput(const unsigned char *, unsigned long) { return 0; }\n'
            )
            try:
                program = link([compile_one(source, Path(folder), one)], Path(folder) / "probe", one)
            except subprocess.CalledProcessError:
                continue
            if run(program, "-runs=1").exit_status == 0:
                return one
    return None


def flags_of(source: Path, chain: Toolchain) -> list[str]:
    """setup.py's flags for the kernels of wide instruction sets."""
    wide = {
        "pixel_kernels_avx2": "-mavx2 -mfma",
        "pixel_kernels_avx512": "-mfma -mavx512f -mavx512bw -mavx512vl -mavx512dq",
        "pixel_kernels_vnni": "-mfma -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni",
    }
    own = () if source.name == "driver.cpp" else chain.target_flags
    return [*COMMON, *chain.flags, *own, *wide.get(source.stem, "").split()]


def compile_one(source: Path, folder: Path, chain: Toolchain) -> Path:
    out = folder / f"{source.stem}.o"
    command = [chain.compiler, *flags_of(source, chain), "-c", str(source), "-o", str(out)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return out


@functools.cache
def driver(chain: Toolchain) -> Path:
    """driver.cpp, compiled once for all programs of this process."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return compile_one(HERE / "driver.cpp", Path(folder.name), chain)


def link(objects: list[Path], program: Path, chain: Toolchain) -> Path:
    if chain.has_driver:
        objects = [*objects, driver(chain)]
    command = [chain.compiler, *chain.flags, *chain.link_flags, *map(str, objects), "-o", str(program)]
    subprocess.run([*command, "-ldl", "-pthread"], check=True, capture_output=True, text=True)
    return program


def build(targets: tuple[str, ...], folder: Path, chain: Toolchain) -> dict[str, Path]:
    """The programs of these targets, in `folder`. Raises CalledProcessError with the compiler's words."""
    stems = dict.fromkeys(stem for target in targets for stem in SOURCES[target])
    sources = [CSRC / f"{stem}.cpp" for stem in stems] + [HERE / f"fuzz_{target}.cpp" for target in targets]
    with ThreadPoolExecutor(int(os.environ.get("FASTLOAD_BUILD_JOBS", "2"))) as jobs:
        objects = dict(
            zip(sources, jobs.map(lambda one: compile_one(one, folder, chain), sources), strict=True)
        )
    return {
        target: link(
            [
                objects[HERE / f"fuzz_{target}.cpp"],
                *(objects[CSRC / f"{stem}.cpp"] for stem in SOURCES[target]),
            ],
            folder / f"fuzz_{target}",
            chain,
        )
        for target in targets
    }


def run(program: Path, *arguments: str, libjpeg: Path | None = None, leaks: bool = False) -> Run:
    """leaks: looked for at the end, which not every container allows."""
    environment = {
        **os.environ,
        "ASAN_OPTIONS": f"abort_on_error=1:detect_leaks={int(leaks)}",
        "UBSAN_OPTIONS": "abort_on_error=1:print_stacktrace=1",
    }
    if libjpeg is not None:
        environment["FASTLOAD_FUZZ_LIBJPEG"] = str(libjpeg)
    command = [str(program), "-print_final_stats=1", "-timeout=10", *arguments]
    done = subprocess.run(
        command, cwd=program.parent, env=environment, capture_output=True, text=True, errors="replace"
    )
    executions = re.findall(r"stat::number_of_executed_units: (\d+)", done.stderr)
    covered = re.findall(r"cov: (\d+)", done.stderr)
    return Run(
        done.returncode,
        int(executions[-1]) if executions else None,
        int(covered[-1]) if covered else None,
        done.stdout + done.stderr,
    )
