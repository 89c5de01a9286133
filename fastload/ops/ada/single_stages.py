"""ADA's stages as functions of their own: each is `ada_augment` with the parameters of that stage alone."""

from typing import Any

from fastload.ops.ada.ada_augment import ada_augment
from fastload.ops.ada.ada_params import AdaParams


def affine_warp(images: Any, G_inv: Any, impl: str = "auto") -> Any:
    """The images [N, C, H, W] warped by G_inv [N, 3, 3], as stages/affine_warp.py says.

    impl: "reference", "native" (CPU), "triton" (CUDA; on the CPU where TRITON_INTERPRET=1), or "auto": native
        on the CPU, triton on CUDA.
    Raises ConfigError for arguments that do not fit together, BackendError where `impl` cannot run here.
    """
    return ada_augment(images, AdaParams(G_inv=G_inv), impl)


def color_matrix(images: Any, matrices: Any, impl: str = "auto") -> Any:
    """The images [N, C, H, W] with matrices [N, 4, 4] applied to their colours; impl: as `affine_warp`.

    Raises ConfigError for another number of channels than 1 or 3.
    """
    return ada_augment(images, AdaParams(C=matrices), impl)


def band_filter(images: Any, gains: Any, impl: str = "auto") -> Any:
    """The images [N, C, H, W] filtered with gains [N, 4]; impl: as `affine_warp` has it.

    Raises ConfigError for images with a side below 22.
    """
    return ada_augment(images, AdaParams(gains=gains), impl)


def add_noise(images: Any, sigma: Any, *, eps: Any = None, noise_key: Any = None, impl: str = "auto") -> Any:
    """images [N, C, H, W] + sigma [N] * eps; give eps or noise_key. impl: as `affine_warp` has it.

    Raises ConfigError where both are missing or both given.
    """
    return ada_augment(images, AdaParams(sigma=sigma, eps=eps, noise_key=noise_key), impl)


def cutout(images: Any, size: Any, center: Any, impl: str = "auto") -> Any:
    """The images [N, C, H, W] with rectangles of size [N] at center [N, 2] set to 0; impl: as `affine_warp`.

    Raises ConfigError where shapes do not fit.
    """
    return ada_augment(images, AdaParams(cut_size=size, cut_center=center), impl)
