"""Few descriptors: what comes of a call where only so many are left. Imports nothing but the face."""

import contextlib
import os

import fastload as fl


def outcome(call, free: int) -> str:
    """What comes of the call where so many descriptors are left."""
    held = []
    with contextlib.suppress(OSError):
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    for _ in range(free):
        os.close(held.pop())
    try:
        call()
        return "fine"
    except Exception as error:
        return f"{type(error).__name__} {isinstance(error, fl.FastloadError)}: {error}"
    finally:
        for descriptor in held:
            os.close(descriptor)
