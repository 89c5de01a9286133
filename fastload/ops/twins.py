"""The twins of an operator: which implementation runs, and what every operator checks first.

In: `impl` as the user gave it, and the images. Out: the name of the twin that runs. Promised: "auto" never
becomes slower in silence: on CUDA it is triton, or an error with the reason.
"""

from typing import Any

from fastload.errors import BackendError, ConfigError

AFFINE, LINEAR, ADJOINT = 0, 1, 2  # L x + b, L x, and L^T g


def check_images(images: Any) -> None:
    """Raises ConfigError unless images are floats [N, C, H, W]."""
    import torch

    if not isinstance(images, torch.Tensor) or images.dim() != 4 or not images.is_floating_point():
        found = (
            f"{images.dtype} {list(images.shape)}"
            if isinstance(images, torch.Tensor)
            else type(images).__name__
        )
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


def choose(impl: str, images: Any, on_cpu: str = "native") -> str:
    """The twin that is to run: `impl`, or for "auto" triton on CUDA and `on_cpu` elsewhere.

    Raises ConfigError for an unknown one, BackendError for one that cannot run on the images' device.
    """
    import torch

    known = (
        ("auto", "reference", "native", "triton") if on_cpu == "native" else ("auto", "reference", "triton")
    )
    if impl not in known:
        raise ConfigError(f"impl={impl!r}: give one of {', '.join(map(repr, known))}.")
    if impl == "auto":
        impl = "triton" if images.device.type == "cuda" else on_cpu
    if impl == "native" and images.device.type != "cpu":
        raise BackendError(f'impl="native" is for images on the CPU, not on {images.device}: use "triton".')
    if impl == "triton":
        if images.dtype == torch.float64:
            raise ConfigError('images of float64 are for impl="reference"; triton computes in float32.')
        require_triton(images.device)
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
