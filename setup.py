"""Builds fastload._native from csrc/; all other metadata is in pyproject.toml.

Every .cpp file in the folders of csrc/ is compiled with the baseline instruction set. Files such as
`pixel_kernels_avx2.cpp` compile `pixel_kernels_x86.inc` or `augment_kernels.inc` again for a wider
instruction set, with the flags below. Which kernels run is decided at run time, so one build serves every
x86-64.

FASTLOAD_SANITIZE=address,undefined (or thread) builds with these sanitizers instead of optimization, for
`python -m benchmarks.sanitizers`, which does so in a folder of its own.
"""

import os
import platform
import sys
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import setup

X86_64 = platform.machine().lower() in ("x86_64", "amd64")
AVX512 = ["-mfma", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mprefer-vector-width=512"]
# GCC 12 warns about its own AVX-512 intrinsics, which leave a register undefined on purpose.
AVX512 += ["-Wno-uninitialized", "-Wno-maybe-uninitialized"]
# The augmentation's contract is a tolerance, not bits: its kernels, and they alone, may fuse multiply-adds.
FUSED = ["-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"]
X86_FLAGS_BY_FILE = {
    "pixel_kernels_avx2.cpp": ["-mavx2", "-mfma"],
    "pixel_kernels_avx512.cpp": AVX512,
    "pixel_kernels_vnni.cpp": [*AVX512, "-mavx512vnni"],
    "augment_kernels_avx2.cpp": ["-mavx2", "-mfma", "-mf16c"],
    "augment_kernels_avx512.cpp": AVX512,
}
FLAGS_BY_FILE = {f"augment_kernels_{name}.cpp": FUSED for name in ("baseline", "avx2", "avx512")}
if X86_64:
    for name, flags in X86_FLAGS_BY_FILE.items():
        FLAGS_BY_FILE[name] = [*FLAGS_BY_FILE.get(name, []), *flags]


class BuildNative(build_ext):
    """Adds the instruction-set flags of FLAGS_BY_FILE to the files that they belong to."""

    def build_extensions(self):
        compile_one = self.compiler._compile

        def compile_with_flags(obj, src, ext, cc_args, extra_postargs, pp_opts):
            flags = FLAGS_BY_FILE.get(Path(src).name, [])
            compile_one(obj, src, ext, cc_args, [*extra_postargs, *flags], pp_opts)

        self.compiler._compile = compile_with_flags
        super().build_extensions()


OPTIMIZED = ["-O3"]
SANITIZERS = os.environ.get("FASTLOAD_SANITIZE", "")
if SANITIZERS:
    OPTIMIZED = [
        f"-fsanitize={SANITIZERS}",
        "-fno-sanitize-recover=all",
        "-fno-omit-frame-pointer",
        "-O1",
        "-g1",
    ]

# -ffp-contract=off: a fused multiply-add would round differently on machines that have one.
native = Pybind11Extension(
    "fastload._native",
    sorted(str(path) for path in Path("csrc").rglob("*.cpp")),
    depends=[str(path) for pattern in ("*.h", "*.inc") for path in Path("csrc").rglob(pattern)],
    include_dirs=["csrc"],
    cxx_std=17,
    extra_compile_args=[*OPTIMIZED, "-ffp-contract=off", "-fvisibility=hidden", "-Wall", "-Wextra"],
    extra_link_args=[f"-fsanitize={SANITIZERS}"] if SANITIZERS else [],
    libraries=["dl", "pthread"] if sys.platform.startswith("linux") else [],
)

if __name__ == "__main__":
    from pybind11.setup_helpers import ParallelCompile

    ParallelCompile("FASTLOAD_BUILD_JOBS").install()
    setup(ext_modules=[native], cmdclass={"build_ext": BuildNative})
