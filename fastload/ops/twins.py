"""The twins of an operator: which implementation runs, and what every operator checks first.

In: `impl` as the user gave it, and the images or their device. Out: the name of the twin that runs. Promised:
"auto" never becomes slower in silence: on CUDA it is triton, or an error with the reason.
"""

from typing import Any

from fastload.errors import BackendError, ConfigError

AFFINE, LINEAR, ADJOINT = 0, 1, 2  # L x + b, L x, and L^T g
WITH_NATIVE = ("auto", "reference", "native", "triton")
WITHOUT_NATIVE = ("auto", "reference", "triton")


def check_images(images: Any) -> None:
    """Raises ConfigError unless images are floats [N, C, H, W]."""
    import torch

    is_tensor = isinstance(images, torch.Tensor)
    if not is_tensor or images.dim() != 4 or not images.is_floating_point():
        found = f"{images.dtype} {list(images.shape)}" if is_tensor else type(images).__name__
        raise ConfigError(f"images are {found}: give floats [N, C, H, W].")


def refuse_forward_mode(images: Any) -> None:
    """Raises ConfigError for images with a tangent, which torch.library's operators lose in silence."""
    import torch

    if torch.compiler.is_compiling():
        return
    if torch.autograd.forward_ad.unpack_dual(images).tangent is not None:
        raise ConfigError(
            'forward-mode derivatives (torch.func.jvp, dual tensors) need impl="reference": the kernels have '
            "reverse mode alone."
        )


def check_impl(impl: str, known: tuple[str, ...]) -> None:
    """Raises ConfigError unless `impl` is one of `known`."""
    if impl not in known:
        raise ConfigError(f"impl={impl!r}: give one of {', '.join(map(repr, known))}.")


def choose(
    impl: str,
    device: Any,
    known: tuple[str, ...] = WITHOUT_NATIVE,
    dtype: Any = None,
    in_float32: tuple[str, ...] = ("triton",),
) -> str:
    """The twin that runs on `device`: `impl`, or for "auto" triton on CUDA, else native or reference.

    known: the names that `impl` may have. dtype: of the computation; None: any twin has it. in_float32: the
        twins that have no float64.
    Raises ConfigError for an unknown name and for float64, BackendError for a twin that cannot run there.
    """
    import torch

    check_impl(impl, known)
    if impl == "auto":
        impl = "triton" if device.type == "cuda" else "native" if "native" in known else "reference"
    if impl in in_float32 and dtype == torch.float64:
        raise ConfigError(f'float64 needs impl="reference": impl={impl!r} computes in float32.')
    if impl == "native" and device.type != "cpu":
        raise BackendError(f'impl="native" runs on the CPU, and the images are on {device}: use "triton".')
    if impl == "triton":
        require_triton(device)
    return impl


def require_triton(device: Any) -> None:
    """Raises BackendError where Triton kernels cannot run on tensors of `device`, with the reason."""
    from fastload import backends

    if not backends.has("triton"):
        raise BackendError('impl="triton": Triton is not installed; install triton, or use impl="reference".')
    if device.type != "cuda" and not backends.triton_interprets():
        raise BackendError(
            f'impl="triton" on {device}: set TRITON_INTERPRET=1 before the first import of triton to run '
            'kernels on the CPU for a test, or use impl="native".'
        )
