"""Triton's kernels run compiled where torch sees a GPU, and interpreted on the CPU elsewhere."""

import os
import sys

import pytest
import torch

if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    # Triton reads it when a kernel is defined, and its own helpers are defined when it is imported.
    if "triton" in sys.modules:
        raise RuntimeError("triton was imported before tests/ops: set TRITON_INTERPRET=1 for the whole run.")
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session")
def device():
    """Where the tensors of a kernel lie."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
