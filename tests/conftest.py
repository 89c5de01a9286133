"""What every test may use: the count of the cases that it has checked."""

import gc

import pytest

pytest.register_assert_rewrite("tests.contracts")
pytest_plugins = ["tests.guarantees", "pytester"]


def pytest_collection_finish():
    """Tests that collect garbage need not walk through all that was imported and collected until here."""
    gc.collect()
    gc.freeze()
