"""DiffAugment for given parameters: colour, translation and cutout of each image, in any order.

images: [N, C, H, W] floats, of any strides and any C. The policy names the stages, each at most once, in
their order; nothing is clamped:

- color: x += brightness; x = m + (x - m) saturation, m the mean over a pixel's channels; x = mu + (x - mu)
  contrast, mu the mean over the whole image as it is then. Together, with mean(x) of the image as it comes to
  this stage: contrast (saturation x + (1 - saturation) m) + (1 - contrast) mean(x) + brightness. One channel:
  saturation changes nothing.
- translation: out[h, w] = x[h + shift[0], w + shift[1]], 0 outside.
- cutout: 0 in the rows [o - s // 2, o - s // 2 + s), o = cut_offset[0], s = int(H * cutout_ratio + 0.5), and
  the columns likewise: where both hold. The box may hang over the edge.

Out: [N, C, H, W] of the images' dtype. What is cut or comes from outside is 0, even where the image is NaN.

Translation moves pixels and cutout is a mask, so that in any order out = keep_after * color(keep_before *
x[source]): walking the stages backwards from a pixel of the output finds where colour saw it, then its
source. All of it is affine in the image, and the adjoint of its linear part is the same operator with the
stages reversed, the shift negated and no brightness, for colour's linear part is symmetric. Gradients with
respect to images are of any order; the parameters get none.

Twins. `reference` is torch, differentiated by torch, in float32, or float64 for images of float64.
`triton` (float32 inside) is one operator of torch.library, `fastload::diff_augment`, with three modes. They
agree to 2e-6 of the largest value; without colour they are equal.
"""

from typing import Any

from fastload.errors import ConfigError
from fastload.ops.diff.diff_params import (
    CUTOUT_RATIO,
    DEFAULT_POLICY,
    FIELDS_OF,
    DiffAugmentParams,
    check_ratio,
    pixels_of,
    stages_of,
)
from fastload.ops.twins import AFFINE, check_images, choose, refuse_forward_mode


def diff_augment(
    images: Any,
    params: DiffAugmentParams,
    policy: str = DEFAULT_POLICY,
    impl: str = "auto",
    *,
    cutout_ratio: float = CUTOUT_RATIO,
) -> Any:
    """The images [N, C, H, W] changed as `params` and `policy` say: a tensor of the same shape and dtype.

    policy: some of "color", "translation", "cutout" in any order, with commas between them; "": a copy.
    impl: "reference", "triton" (CUDA; on the CPU where TRITON_INTERPRET=1), or "auto": reference on the CPU,
        triton on CUDA.
    cutout_ratio: the sides of the box as a share of the image's, 0 to 1.
    Raises ConfigError for arguments that do not fit together, BackendError where `impl` cannot run here.
    """
    check_images(images)
    if not isinstance(params, DiffAugmentParams):
        raise ConfigError(f"params={params!r}: give fl.ops.DiffAugmentParams(...).")
    stages = stages_of(policy)
    params.check(images, policy)
    check_ratio("cutout_ratio", cutout_ratio)
    impl = choose(impl, images.device, dtype=images.dtype)
    if not stages or not images.numel():
        return images.clone()
    if impl == "reference":
        return _reference(images, params, stages, cutout_ratio)
    from fastload.ops.diff import registered

    refuse_forward_mode(images)
    return registered.diff_augment(images, params.rows(images), policy, float(cutout_ratio), AFFINE)


def _reference(images: Any, params: DiffAugmentParams, stages: tuple[str, ...], cutout_ratio: float) -> Any:
    """The contract in torch; of operations that autocast would leave as they are."""
    import torch

    work = torch.float64 if images.dtype == torch.float64 else torch.float32
    values = images.to(work)
    if "color" in stages:
        at = stages.index("color")
        values = _moved(values, params, stages[:at], cutout_ratio)
        values = _coloured(values, params)
        stages = stages[at + 1 :]
    return _moved(values, params, stages, cutout_ratio).to(images.dtype)


def _coloured(values: Any, params: DiffAugmentParams) -> Any:
    def factor(tensor):
        return tensor.detach().to(values.dtype)[:, None, None, None]

    mean, result = values.mean((1, 2, 3), keepdim=True), values
    if params.saturation is not None and values.shape[1] > 1:
        gray = values.mean(1, keepdim=True)
        result = gray + (values - gray) * factor(params.saturation)
    if params.contrast is not None:
        result = mean + (result - mean) * factor(params.contrast)
    return result if params.brightness is None else result + factor(params.brightness)


def _moved(values: Any, params: DiffAugmentParams, stages: tuple[str, ...], cutout_ratio: float) -> Any:
    """Translation and cutout, as `stages` order them: each pixel from its source, or 0."""
    import torch

    if not stages:
        return values
    height, width = values.shape[2:]
    y = torch.arange(height, device=values.device)[None, :, None]
    x = torch.arange(width, device=values.device)[None, None, :]
    keep: Any = True
    for stage in reversed(stages):
        rows, columns = getattr(params, FIELDS_OF[stage][0]).long()[:, :, None, None].unbind(1)
        if stage == "translation":
            y, x = y + rows, x + columns
            keep = keep & (y >= 0) & (y < height) & (x >= 0) & (x < width)
        else:
            box_height, box_width = pixels_of(height, cutout_ratio), pixels_of(width, cutout_ratio)
            top, left = rows - box_height // 2, columns - box_width // 2
            cut = (y >= top) & (y < top + box_height) & (x >= left) & (x < left + box_width)
            keep = keep & ~cut
    if "translation" in stages:
        source = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
        index = source.flatten(1)[:, None].expand(-1, values.shape[1], -1)
        values = values.flatten(2).gather(2, index).reshape(values.shape)
    return torch.where(keep[:, None], values, 0.0)
