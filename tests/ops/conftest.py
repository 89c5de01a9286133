"""Triton's kernels run compiled where torch sees a GPU, and interpreted on the CPU elsewhere."""

import os
import sys
from dataclasses import replace
from functools import partialmethod

import numpy as np
import pytest
import torch

if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    # Triton reads it when a kernel is defined, and its own helpers are defined when it is imported.
    if "triton" in sys.modules:
        raise RuntimeError("triton was imported before tests/ops: set TRITON_INTERPRET=1 for the whole run.")
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session", autouse=True)
def quick_interpreter():
    """Triton's interpreter patches its language anew in every call of a function within a kernel, which takes
    longer than most of these functions do: here once for each kernel. And it does each addition and
    multiplication of integers once more in 64 bits, for an assertion that it has in debugging only.

    Before Triton 3.9 its minimum and maximum of NaN and a number are NaN, where a GPU's are the number."""
    try:
        from triton.runtime import interpreter
    except ImportError:
        yield
        return
    patch, language, patched = interpreter._patch_lang, interpreter.tl, set()

    def patch_once(function):
        modules = {
            id(one) for one in function.__globals__.values() if one is language or one is language.core
        }
        if patched and modules <= patched:
            return interpreter._LangPatchScope()
        scope, is_outermost = patch(function), not patched
        patched.update(modules)
        if is_outermost:
            restore = scope.restore
            scope.restore = lambda: (patched.clear(), restore())
        return scope

    with pytest.MonkeyPatch.context() as changed:
        if hasattr(interpreter, "_LangPatchScope"):  # of the versions that this was written for
            changed.setattr(interpreter, "_patch_lang", patch_once)
        builder = interpreter.interpreter_builder
        if not builder.options.debug and hasattr(builder.options, "sanitize_overflow"):
            changed.setattr(builder, "options", replace(builder.options, sanitize_overflow=False))
        for name, function in (("create_minnumf", np.fmin), ("create_maxnumf", np.fmax)):
            changed.setattr(type(builder), name, partialmethod(type(builder).binary_op, op=function))
        yield


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Torch's own threads wait for each other in every small operation: where the cores are shared, a hundred
    times longer than it takes. Tests of several threads ask for them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def device():
    """Where the tensors of a kernel lie."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
