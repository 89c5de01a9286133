"""What every test may use: the count of the cases that it has checked."""

import pytest

pytest.register_assert_rewrite("tests.contracts")
pytest_plugins = ["tests.guarantees", "pytester"]
