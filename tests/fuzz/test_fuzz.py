"""The fuzz targets run over their corpora and mutations of them; a target that is wrong is noticed.

A few seconds each, with libFuzzer or without (build.py); `python -m benchmarks.bench_fuzz` does it for long.
Compiling takes longer than that, so all but the smallest target are slow tests.
"""

import pytest

from fastload.backends import find_libjpeg
from tests.fuzz import build
from tests.fuzz.seeds import write_seeds
from tests.quick import slow_but

MOST_RUNS = 200_000
# One fault for each kind of report, picked by the first byte.
WRONG_TARGET = """
#include <cstddef>
#include <cstdint>
#include <vector>
#include "property.h"
extern "C" int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    if (size == 0) return 0;
    PROPERTY(bytes[0] != 'p');
    std::vector<uint8_t> copy(bytes, bytes + size);
    volatile int sum = 0x7fffffff;
    if (bytes[0] == 'a') sum = copy.data()[size];
    if (bytes[0] == 'u') sum = sum + 1;
    return 0;
}
"""


@pytest.fixture(scope="module")
def chain():
    found = build.toolchain()
    if found is None:
        pytest.skip("there is no C++ compiler")
    return found


QUICK = ("image_header", 1)


@pytest.mark.parametrize("target, seconds", slow_but([QUICK], [QUICK, *((one, 3) for one in build.SOURCES)]))
def test_nothing_breaks_a_parser(chain, tmp_path, capsys, target, seconds):
    program = build.build((target,), tmp_path, chain)[target]
    corpus = write_seeds(target, tmp_path / "corpus")
    given = len(list(corpus.iterdir()))
    for libjpeg in find_libjpeg() if target == "jpeg" else [None]:
        run = build.run(
            program,
            f"-max_total_time={seconds}",
            f"-runs={MOST_RUNS}",
            "-seed=1",
            f"-max_len={build.MAX_LEN[target]}",
            f"-artifact_prefix={tmp_path}/",
            str(corpus),
            libjpeg=libjpeg,
        )
        if run.exit_status != build.NO_LIBJPEG:
            break
    else:
        pytest.skip("there is no libjpeg")
    assert run.exit_status == 0, run.output[-5000:]
    assert run.executions >= given
    with capsys.disabled():
        print(f"\n{target}: {run.executions:,} inputs, {chain.name}")


@pytest.fixture(scope="module")
def wrong_program(chain, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "fuzz_wrong.cpp").write_text(WRONG_TARGET)
    return build.link([build.compile_one(folder / "fuzz_wrong.cpp", folder, chain)], folder / "wrong", chain)


@pytest.mark.parametrize(
    "first_byte, report",
    [
        ("p", "PROPERTY VIOLATED"),
        ("a", "AddressSanitizer: heap-buffer-overflow"),
        ("u", "signed integer overflow"),
    ],
)
def test_a_fault_is_reported_and_its_input_kept(wrong_program, chain, tmp_path, first_byte, report):
    if not (chain.sanitized or first_byte == "p"):
        pytest.skip(chain.name)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "input").write_text(first_byte + "content")
    run = build.run(wrong_program, "-runs=0", f"-artifact_prefix={tmp_path}/kept-", str(corpus))
    assert run.exit_status != 0 and report in run.output
    kept = [path.read_text() for path in tmp_path.glob("kept-*")]
    assert kept == [first_byte + "content"]


def test_mutation_comes_upon_a_fault_and_equal_seeds_upon_the_same(wrong_program, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        run = build.run(wrong_program, "-runs=100000", "-seed=7", f"-artifact_prefix={tmp_path / folder}/")
        assert run.exit_status != 0
    one, two = ([path.read_bytes() for path in (tmp_path / folder).iterdir()] for folder in ("one", "two"))
    assert one == two and len(one) == 1
