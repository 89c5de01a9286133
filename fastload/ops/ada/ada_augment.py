"""Adaptive discriminator augmentation for given parameters: warp, colour, band filter, noise and cutout.

images: [N, C, H, W] floats, of any strides. Each stage only where `AdaParams` has it, in this order, with
nothing clamped: `affine_warp`, `color_matrix`, `band_filter`, `add_noise`, `cutout`; each of these files says
what its stage is. Out: [N, C, H, W] of the images' dtype.

For fixed parameters this is affine, out = L x + b, with b from brightness and noise only. Gradients with
respect to images are of any order (reverse mode: torch.autograd), without anything saved but the parameters:
the backward pass is the adjoint of L, its own backward pass L without b, and so on. The parameters get none.

Twins. `reference` is torch, differentiated by torch, in float32, or float64 for images of float64.
`native` (CPU, float32 and float64) and `triton` (float32 inside, whatever the images are) are one operator of
torch.library, `fastload::ada`, with three modes, so that torch.compile sees one node. They agree with the
reference to what the stages' files say, added up, and are NaN or infinite where it is. Sums of taps (warp and
filter) turn infinities into infinity or NaN; there `triton` may make more pixels so than the reference, never
fewer. What is cut out is 0, even if it was NaN.
"""

from typing import Any

from fastload.errors import ConfigError
from fastload.ops.ada.ada_params import STAGE_OF, AdaParams
from fastload.ops.params import stages_of
from fastload.ops.twins import AFFINE, WITH_NATIVE, check_images, choose, refuse_forward_mode


def ada_augment(images: Any, params: AdaParams, impl: str = "auto") -> Any:
    """The images [N, C, H, W] changed as `params` say: a tensor of the same shape and dtype.

    impl: "reference", "native" (CPU), "triton" (CUDA; on the CPU where TRITON_INTERPRET=1), or "auto": native
        on the CPU, triton on CUDA, which never turns into something slower.
    Raises ConfigError for arguments that do not fit together, BackendError where `impl` cannot run here.
    """
    check_images(images)
    if not isinstance(params, AdaParams):
        raise ConfigError(f"params={params!r}: give fl.ops.AdaParams(...).")
    params.check(images)
    impl = choose(impl, images.device, WITH_NATIVE, images.dtype)
    stages = stages_of(params, STAGE_OF)
    if not stages or not images.numel():
        return images.clone()
    if impl == "reference":
        return _reference(images, params)
    from fastload.ops.ada import registered

    refuse_forward_mode(images)
    return registered.ada(images, params.rows(images), params.noise_key, params.eps, stages, AFFINE, impl)


def _reference(images: Any, params: AdaParams) -> Any:
    """The stages in torch; of operations that autocast would leave as they are."""
    import torch

    from fastload.ops.ada.stages.affine_warp import warp_reference
    from fastload.ops.ada.stages.band_filter import filter_reference
    from fastload.ops.ada.stages.color_matrix import color_reference
    from fastload.ops.ada.stages.cutout import kept
    from fastload.ops.ada.stages.noise import normals_of

    params = params.detached()
    work = torch.float64 if images.dtype == torch.float64 else torch.float32
    values = images.to(work)
    if params.G_inv is not None:
        values = warp_reference(values, params.G_inv)
    if params.C is not None:
        values = color_reference(values, params.C)
    if params.gains is not None:
        values = filter_reference(values, params.gains)
    if params.sigma is not None:
        eps = params.eps if params.eps is not None else normals_of(params.noise_key, *images.shape[1:], work)
        values = values + params.sigma.to(work)[:, None, None, None] * eps.to(work)
    if params.cut_size is not None:
        values = torch.where(kept(params.cut_size, params.cut_center, *images.shape[2:], work), values, 0.0)
    return values.to(images.dtype)
