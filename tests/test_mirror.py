"""Tests mirror the package: each source file has a test of its name, or a word where it is tested.

fastload/order/plan.py is tested in tests/order/test_plan.py. A file that is tested through another one has a
line in TESTED_IN, and the test named there imports it or names it.
"""

import re
from pathlib import Path

import pytest

import fastload

PACKAGE = Path(fastload.__file__).parent
TESTS = Path(__file__).parent
MAX_LINES = 500
KERNELS = "ops/ada/test_ada_triton.py"  # runs all kernels of ada_augment
TESTED_IN = {
    "augment/edm.py": "ops/ada/draw/test_draw_ada.py",
    "caching.py": "test_threads.py",
    "decode/backend.py": "decode/test_images.py",
    "decode/crop_report.py": "loader/test_fields.py",
    "decode/damage.py": "decode/test_image_damage.py",
    "decode/dali/field.py": "decode/dali/test_stage.py",
    "decode/dali/gate.py": "decode/dali/test_bad_images.py",
    "decode/dali/pipeline.py": "decode/dali/test_stage.py",
    "decode/image_decoder.py": "decode/test_images.py",
    "decode/reasons.py": "scarce/test_memory.py",
    "decode/simplejpeg_fallback.py": "decode/test_image_damage.py",
    "errors.py": "test_messages.py",
    "loader/assembly.py": "loader/test_order.py",
    "loader/checkpoint_check.py": "loader/test_resume.py",
    "loader/describe.py": "loader/test_resume.py",
    "loader/field_check.py": "loader/test_errors.py",
    "loader/field_stage.py": "loader/test_closing.py",
    "loader/find_faults.py": "prepare/test_check.py",
    "loader/image_stage.py": "loader/test_delivery.py",
    "loader/in_flight.py": "loader/test_closing.py",
    "loader/iterator.py": "loader/test_life.py",
    "loader/loader.py": "loader/test_face.py",
    "loader/orders/generators.py": "loader/orders/test_sampler_state.py",
    "loader/orders/order_sampler.py": "loader/orders/test_sampled.py",
    "loader/orders/planned.py": "loader/test_order.py",
    "loader/pending_batch.py": "loader/test_replacements.py",
    "loader/pipeline.py": "loader/test_closing.py",
    "loader/planner.py": "loader/test_bad_samples.py",
    "loader/samples.py": "loader/test_face.py",
    "loader/specs.py": "loader/test_delivery.py",
    "loader/value_stage.py": "loader/test_fields.py",
    "notices.py": "drop_in/test_worker_state.py",
    "ops/ada/ada_params.py": "ops/ada/test_ada_augment.py",
    "ops/ada/draw/draw_ada_triton.py": "ops/ada/draw/test_draw_ada.py",
    "ops/ada/draw/draw_edm.py": "ops/ada/draw/test_draw_ada.py",
    "ops/ada/draw/random_draws.py": "ops/ada/draw/test_draw_ada.py",
    "ops/ada/kernels/ada_pointwise_triton.py": KERNELS,
    "ops/ada/kernels/affine_adjoint_triton.py": KERNELS,
    "ops/ada/kernels/affine_axes_triton.py": KERNELS,
    "ops/ada/kernels/affine_tile_triton.py": KERNELS,
    "ops/ada/kernels/affine_warp_triton.py": KERNELS,
    "ops/ada/kernels/band_filter_triton.py": KERNELS,
    "ops/ada/kernels/warp_points_triton.py": KERNELS,
    "ops/ada/kernels/warp_up_triton.py": KERNELS,
    "ops/ada/registered.py": KERNELS,
    "ops/ada/single_stages.py": "ops/ada/test_ada_augment.py",
    "ops/ada/stages/band_filter.py": "ops/ada/test_ada_augment.py",
    "ops/ada/stages/color_matrix.py": "ops/ada/test_ada_augment.py",
    "ops/ada/stages/cutout.py": "ops/ada/test_ada_augment.py",
    "ops/ada/stages/noise.py": "ops/ada/test_ada_augment.py",
    "ops/ada/stages/wavelets.py": "ops/ada/test_ada_augment.py",
    "ops/diff/diff_augment_triton.py": "ops/diff/test_diff_augment.py",
    "ops/diff/diff_params.py": "ops/diff/test_diff_augment.py",
    "ops/diff/draw_diff_augment_triton.py": "ops/diff/test_draw_diff_augment.py",
    "ops/diff/draw_reference.py": "ops/diff/test_draw_diff_augment.py",
    "ops/diff/registered.py": "ops/diff/test_diff_augment.py",
    "ops/fused/augment_params.py": "ops/fused/test_fused_augment_native.py",
    "ops/fused/augment_stages_triton.py": "ops/fused/test_fused_augment_triton.py",
    "ops/fused/draw_params.py": "ops/fused/test_draw_params_triton.py",
    "ops/fused/draw_plan.py": "ops/fused/test_draw_params_triton.py",
    "ops/fused/mix.py": "augment/test_mixing.py",
    "ops/move/move_columns.py": "ops/move/test_move_pixels.py",
    "ops/move/move_pixels_triton.py": "ops/move/test_move_pixels.py",
    "ops/move/registered.py": "ops/move/test_move_pixels.py",
    "ops/params.py": "ops/ada/test_ada_augment.py",
    "ops/philox_triton.py": "ops/fused/test_draw_params_triton.py",
    "ops/registering.py": "augment/test_checkpointing.py",
    "ops/resample/registered.py": "ops/resample/test_upfirdn2d.py",
    "ops/resample/upfirdn2d_triton.py": "ops/resample/test_upfirdn2d.py",
    "ops/tiles_triton.py": "ops/fused/test_fused_augment_triton.py",
    "ops/transfer.py": "ops/fused/test_draw_params_triton.py",
    "ops/twins.py": "ops/ada/test_ada_augment.py",
    "order/step_source.py": "loader/test_life.py",
    "read/ledger.py": "loader/test_ledger.py",
    "shards/inventory.py": "loader/test_grown_data.py",
    "shards/index_file.py": "shards/test_index.py",
    "shards/keys.py": "shards/test_select.py",
    "shards/labels.py": "shards/test_folder.py",
    "shards/ledger_lines.py": "loader/test_ledger.py",
    "shards/mixture.py": "shards/test_mixture_dataset.py",
    "shards/pattern.py": "scarce/test_scarce.py",
    "shards/retry.py": "scarce/test_scarce.py",
    "shards/rows.py": "shards/test_tar.py",
    "shortage.py": "loader/test_limits.py",
    "step_ids.py": "loader/test_skipped.py",
}
SOURCES = [
    path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"
]


def own_test(source: str) -> str:
    path = Path(source)
    return (path.parent / f"test_{path.name}").as_posix()


def names(text: str, source: str) -> bool:
    """Whether a test's text imports a source file, or names it as "NAME.py"."""
    *rooms, stem = ("fastload", *Path(source).with_suffix("").parts)
    room = re.escape(".".join(rooms))
    ways = rf"\b{room}\.{stem}\b", rf"from {room} import .*\b{stem}\b", rf"\b{stem}\.py\b"
    return any(re.search(way, text) for way in ways)


def untested(sources: list[str], tested_in: dict[str, str]) -> list[str]:
    """The sources without a test of their name or a test in `tested_in` that names them."""
    found = []
    for source in sources:
        test = TESTS / tested_in.get(source, own_test(source))
        if not test.exists() or (source in tested_in and not names(test.read_text(), source)):
            found.append(source)
    return found


def test_each_source_file_has_a_test_of_its_name_or_a_test_that_names_it():
    assert untested(SOURCES, TESTED_IN) == []


@pytest.mark.parametrize(
    "tested_in",
    [{}, {"order/no_such_file.py": "order/test_plan.py"}, {"order/no_such_file.py": "order/test_none.py"}],
)
def test_a_source_file_without_a_test_is_noticed(tested_in):
    assert untested(["order/plan.py", "order/no_such_file.py"], tested_in) == ["order/no_such_file.py"]


def test_the_table_holds_only_files_that_exist_and_have_no_test_of_their_name():
    assert set(TESTED_IN) <= set(SOURCES)
    assert [source for source in TESTED_IN if (TESTS / own_test(source)).exists()] == []


def test_no_test_file_is_longer_than_500_lines():
    lengths = {path: len(path.read_text().splitlines()) for path in TESTS.rglob("*.py")}
    assert {str(path): length for path, length in lengths.items() if length > MAX_LINES} == {}
