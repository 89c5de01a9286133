"""From resized pixels to the training tensor in one pass: warp, colour, cutout, normalize, cast, lay out.

images: [N, H, W, C] uint8 pixels, or floats in [0, 1]; C is 1 or 3; any strides. What happens to an image,
with v its values in [0, 1] (uint8 / 255) and each stage only where `AugmentParams` has it:

1. warp: pixel (x, y) of the result is the input at G_inv (x, y, 1), in centred pixel coordinates, bilinear
   between pixel centres (or the nearest one); outside the image it goes on as its mirror image without
   repeating the edge (reflect-101).
2. jitter: four steps in the order given, clamped to [0, 1] after each: brightness f v; contrast f v + (1 - f)
   m with m the mean of gray over the image as it is then; saturation f v + (1 - f) gray; hue, a shift of
   HSV's hue by that many turns. gray = 0.2989 r + 0.587 g + 0.114 b. These are torchvision's ColorJitter on
   floats.
3. C: (r, g, b) = C (r, g, b, 1), clamped to [0, 1].
4. hsv: the hue shifted as above; then with V = max and k = min(factor, V / (V - min)), v = V - k (V - v), at
   least 0.
5. normalize: (255 v / divisor - mean) / std. None: v stays in [0, 1], and uint8 is floor(255 v + 1/2).
6. cutout: pixel (column, row) becomes 0 in the result where |column + 1/2 - W cx| < size W / 2 and
   |row + 1/2 - H cy| < size H / 2.

A gray image (C = 1) is one whose three channels are equal: C's three results are averaged before the clamp,
saturation and hue leave it alone, gray is v. Results have no gradients.

No result lies outside what normalize makes of [0, 1], to the last bit: [-1, 1] for "gan" and "diffusion", [0,
1] for "vae". Floats that come in beyond [0, 1] are not cut off but by the clamps above.

Values that are not finite: a clamp keeps NaN, and infinity becomes its limit. A coordinate on a pixel's
centre is that pixel, whatever is next to it. A factor of 1 and a shift of 0 change nothing. A shift of the
hue, and a factor of HSV's saturation, make a pixel with such a value NaN in all channels; else the formulas
say it.
NaN becomes 0 in uint8. All twins have the same NaN and the same infinities.

Twins. `reference` computes in float32, or in float64 where that is the dtype asked for, and is what the
others are held against: with float64 they agree to 2e-6 of the range [0, 1] without a warp. Coordinates are
float32, so a warp adds up to 2^-22 of the largest coordinate, in pixels and before it is reflected, times the
slope of the image there: 3e-4 of the range for noise at 1024 pixels. uint8 results differ by at most 1,
float16 and bfloat16 by their own rounding. An edge of a cutout that lies within float32's rounding of a
pixel's centre may take that pixel or leave it.
"""

import operator
from typing import Any

from fastload.errors import ConfigError
from fastload.normalize import Normalization, normalization
from fastload.ops.fused.augment_params import COLUMNS_OF, GRAY, IDENTITY, AugmentParams, Stage
from fastload.ops.twins import WITH_NATIVE, choose

DTYPES = ("float32", "float16", "bfloat16", "uint8", "float64")
LAYOUTS = ("nchw", "channels_last")
FILTERS = ("bilinear", "nearest")


def fused_augment(
    images: Any,
    params: AugmentParams | None = None,
    *,
    normalize: Any = None,
    dtype: Any = None,
    layout: str = "nchw",
    filter: str = "bilinear",
    out: Any = None,
    impl: str = "auto",
) -> Any:
    """The images [N, H, W, C] (uint8, or floats in [0, 1]) changed as `params` say: a tensor [N, C, H, W].

    params: None changes nothing.
    normalize: a preset, (mean, std), or None: results stay in [0, 1].
    dtype: "float32", "float16", "bfloat16", "uint8" (needs normalize=None), or for the reference "float64";
        None: float32, and with normalize=None that of the images.
    layout: "nchw" or "channels_last", of the memory.
    filter: of the warp, "bilinear" or "nearest".
    out: a tensor to write to, as the result would be.
    impl: "reference", "native" (CPU), "triton" (CUDA; on the CPU where TRITON_INTERPRET=1), or "auto": native
        on the CPU, triton on CUDA, which never turns into something slower.

    Raises ConfigError for arguments that do not fit together, BackendError where `impl` cannot run here.
    """
    params = AugmentParams() if params is None else params
    _check(images, params)
    rule = IDENTITY if normalize is None else normalization(normalize)
    dtype = _result_dtype(images, normalize, dtype)
    for name, value, allowed in (("layout", layout, LAYOUTS), ("filter", filter, FILTERS)):
        if value not in allowed:
            raise ConfigError(f"{name}={value!r}: give one of {', '.join(map(repr, allowed))}.")
    if images.shape[3] == 1 and (len(set(rule.mean)) > 1 or len(set(rule.std)) > 1):
        raise ConfigError(f"normalize={normalize!r} has three colours, and the images have one channel.")
    out = _result(images, dtype, layout, out)
    impl = choose(impl, images.device, WITH_NATIVE, dtype, in_float32=("native", "triton"))
    if not images.numel():
        return out
    if impl == "reference":
        return out.copy_(_reference(images, params, rule, out.dtype, filter))
    rows = params.rows(images.shape[0], images.device)
    return augment_rows(images, rows, params.stages, rule, out, filter=filter, impl=impl)


def pixels_last(images: Any) -> tuple:
    """The images as [N, H, W, C], the `layout` that results should have, and what gives a result their shape.

    images: [N, C, H, W], or [N, H, W, C] where the second axis is neither 1 nor 3 long and the last one is.
    """
    import torch

    if not isinstance(images, torch.Tensor) or images.dim() != 4:
        found = list(images.shape) if isinstance(images, torch.Tensor) else type(images).__name__
        raise ConfigError(f"images are {found}: give a tensor [N, C, H, W] or [N, H, W, C].")
    if images.shape[1] not in (1, 3):
        return images, "channels_last", lambda result: result.permute(0, 2, 3, 1)
    pixels = images.permute(0, 2, 3, 1)
    is_last = pixels.is_contiguous() and not images.is_contiguous()
    return pixels, "channels_last" if is_last else "nchw", lambda result: result


def augment_rows(
    images: Any,
    rows: Any,
    stages: int,
    rule: Normalization,
    out: Any,
    *,
    impl: str,
    filter: str = "bilinear",
    threads: int | None = None,
) -> Any:
    """`fused_augment` for rows as `draw_params` made them; nothing is checked. Returns `out`.

    images: [N, H, W, C]. rows: [N, 32] float32 on the same device. stages: a `Stage`. out: [N, C, H, W].
    threads: of the native twin; None: as many as torch uses.
    """
    import torch

    if impl == "reference":
        params = AugmentParams.from_rows(rows, stages)
        return out.copy_(_reference(images, params, rule, out.dtype, filter))
    if images.shape[3] == 1 and stages & Stage.COLOR:
        rows = _gray_rows(rows)
    if images.dtype not in (torch.uint8, torch.float32):
        images = images.to(torch.float32)
    if impl == "triton":
        from fastload.ops.fused import fused_augment_triton

        return fused_augment_triton.launch(images, rows, int(stages), rule, out, filter == "nearest")
    threads = threads or torch.get_num_threads()
    return _launch_native(images, rows, int(stages), rule, out, filter == "nearest", threads)


def _check(images: Any, params: AugmentParams) -> None:
    import torch

    if not isinstance(images, torch.Tensor) or images.dim() != 4 or images.shape[3] not in (1, 3):
        found = list(images.shape) if isinstance(images, torch.Tensor) else type(images).__name__
        raise ConfigError(
            f"images are {found}: give a tensor [N, H, W, 3] or [N, H, W, 1]; for [N, C, H, W] pass "
            "images.permute(0, 2, 3, 1)."
        )
    if images.requires_grad and torch.is_grad_enabled():
        raise ConfigError("images require gradients, and fused_augment has none: use images.detach().")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise ConfigError(f"images of {images.dtype}: give uint8 pixels, or floats in [0, 1].")
    if not isinstance(params, AugmentParams):
        raise ConfigError(f"params={params!r}: give fl.ops.AugmentParams(...).")
    params.check(images.shape[0])


def _result_dtype(images: Any, normalize: Any, dtype: Any) -> Any:
    import torch

    if dtype is None:
        return images.dtype if normalize is None else torch.float32
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ConfigError(f"dtype={dtype!r}: give one of {', '.join(map(repr, DTYPES))}.")
    if name == "uint8" and normalize is not None:
        raise ConfigError('dtype="uint8" holds pixels that are not normalized: use normalize=None.')
    return getattr(torch, name)


def _result(images: Any, dtype: Any, layout: str, out: Any) -> Any:
    import torch

    n, height, width, channels = images.shape
    shape = (n, channels, height, width)
    form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    if out is None:
        return torch.empty(shape, dtype=dtype, device=images.device, memory_format=form)
    fits = out.shape == shape and out.dtype == dtype and out.device == images.device
    if not fits or not out.is_contiguous(memory_format=form):
        raise ConfigError(f"out must be {dtype} {list(shape)} on {images.device}, {layout}.")
    return out


def _gray_rows(rows: Any) -> Any:
    """C for one channel: the result is its factor (column 0) times v plus its offset (column 3)."""
    rows = rows.clone()
    matrix = rows[:, COLUMNS_OF["C"]].unflatten(1, (3, 4))
    factor, offset = matrix[:, :, :3].sum((1, 2)) / 3, matrix[:, :, 3].sum(1) / 3
    matrix[:, 0, 0], matrix[:, 0, 3] = factor, offset
    return rows


def _launch_native(
    images: Any, rows: Any, stages: int, rule: Normalization, out: Any, nearest: bool, threads: int
) -> Any:
    import torch

    from fastload import _native
    from fastload.threads import native_threads

    name = str(out.dtype).removeprefix("torch.")
    planar = out.is_contiguous()
    result = out if planar else out.permute(0, 2, 3, 1)
    if name == "bfloat16":  # NumPy has no bfloat16: its bits are passed as uint16
        result = result.view(torch.uint16)
    _native.augment(
        images.detach().numpy(),
        rows.detach().to(torch.float32).contiguous().numpy(),
        stages,
        rule.divisor,
        rule.mean,
        rule.std,
        nearest,
        result.numpy(),
        getattr(_native.Dtype, name),
        not planar,
        native_threads("augment", threads, _native.AugmentThreads),
    )
    return out


def _reference(images: Any, params: AugmentParams, rule: Normalization, dtype: Any, filter: str) -> Any:
    """The stages in torch, on all images at once: [N, C, H, W] of `dtype`."""
    import torch

    work = torch.float64 if dtype == torch.float64 else torch.float32
    values = images.permute(0, 3, 1, 2).to(work)
    if images.dtype == torch.uint8:
        values = values / 255
    params = params.to(images.device)
    if params.G_inv is not None:
        values = _warped(values, params.G_inv.to(work), filter)
    if params.jitter is not None:
        values = _jittered(values, params)
    if params.C is not None:
        values = _recoloured(values, params.C.to(work))
    if params.hsv is not None:
        hue, saturation = params.hsv.to(work)[:, :, None, None, None].unbind(1)
        values = _saturated(_hue_shifted(values, hue), saturation)
    if dtype == torch.uint8:
        values = (values * 255 + 0.5).nan_to_num(nan=0.0).clamp(0, 255).floor()
    else:
        channels = values.shape[1]
        mean, std = (values.new_tensor(three[:channels])[:, None, None] for three in (rule.mean, rule.std))
        values = (values * (255 / rule.divisor) - mean) / std
    if params.cut_size is not None:
        values = values.masked_fill(_cut(values, params.cut_size.to(work), params.cut_center.to(work)), 0.0)
    return values.to(dtype)


def _warped(values: Any, G_inv: Any, filter: str) -> Any:
    import torch

    n, channels, height, width = values.shape
    x = torch.arange(width, dtype=values.dtype, device=values.device) - (width - 1) / 2
    y = (torch.arange(height, dtype=values.dtype, device=values.device) - (height - 1) / 2)[:, None]
    a, b, tx, c, d, ty = G_inv[:, :2].reshape(n, 6, 1, 1).unbind(1)
    x0, x1, fx = _taps(a * x + b * y + tx + (width - 1) / 2, width, filter)
    y0, y1, fy = _taps(c * x + d * y + ty + (height - 1) / 2, height, filter)
    flat = values.reshape(n, channels, -1)

    def at(rows: Any, columns: Any) -> Any:
        index = (rows * width + columns).reshape(n, 1, -1).expand(-1, channels, -1)
        return flat.gather(2, index).reshape(values.shape)

    def between(first: Any, second: Any, share: Any) -> Any:
        return first * (1 - share) + torch.where(share == 0, 0.0, second * share)

    fx, fy = fx[:, None], fy[:, None]
    above, below = between(at(y0, x0), at(y0, x1), fx), between(at(y1, x0), at(y1, x1), fx)
    return between(above, below, fy)


def _taps(coordinate: Any, side: int, filter: str) -> tuple:
    """The two pixels of a row that a coordinate lies between, and how far it is from the first: [0, 1)."""
    import torch

    if side == 1:
        coordinate = torch.zeros_like(coordinate)
    else:
        period = 2.0 * (side - 1)
        coordinate = coordinate - period * (coordinate / period).floor()
        coordinate = torch.where(coordinate > side - 1, period - coordinate, coordinate)
    if filter == "nearest":
        coordinate = (coordinate + 0.5).floor()
    first = coordinate.floor().clamp(0, side - 1)
    return first.long(), (first.long() + 1).clamp(max=side - 1), coordinate - first


def _jittered(values: Any, params: AugmentParams) -> Any:
    import torch

    steps = (operator.mul, _contrasted, _saturated_to_gray, _hue_shifted)
    order = params.order
    if order is None:
        order = torch.arange(4, device=values.device).expand(len(values), 4)
    values, factors = values.clone(), params.jitter.to(values.dtype)[:, :, None, None, None]
    for i in range(4):
        for number, step in enumerate(steps):
            mine = order[:, i] == number
            values[mine] = step(values[mine], factors[mine, number]).clamp(0, 1)
    return values


def _contrasted(values: Any, factor: Any) -> Any:
    return _mixed(values, _gray(values).mean((1, 2, 3), keepdim=True), factor)


def _saturated_to_gray(values: Any, factor: Any) -> Any:
    return _mixed(values, _gray(values), factor) if values.shape[1] == 3 else values


def _mixed(values: Any, other: Any, factor: Any) -> Any:
    import torch

    return torch.where(factor == 1, values, values * factor + other * (1 - factor))


def _gray(values: Any) -> Any:
    if values.shape[1] == 1:
        return values
    red, green, blue = (values[:, channel : channel + 1] for channel in range(3))
    return GRAY[0] * red + GRAY[1] * green + GRAY[2] * blue


def _hue_shifted(values: Any, turns: Any) -> Any:
    """HSV's hue shifted: with V and m the largest and smallest channel and h the hue in sixths of a turn,
    channel n of (5, 3, 1) is V - (V - m) clamp(min(k, 4 - k), 0, 1), k = (n + h) mod 6."""
    import torch

    if values.shape[1] == 1:
        return values
    spread = _spread(values)
    (red, green, blue), largest, smallest = spread.unbind(1), spread.amax(1), spread.amin(1)
    span = largest - smallest
    safe = torch.where(span > 0, span, torch.ones_like(span))
    of_green = torch.where(largest == green, 2 + (blue - red) / safe, 4 + (red - green) / safe)
    hue = torch.where(largest == red, (green - blue) / safe, of_green) + 6 * turns[:, 0]
    channels = []
    for n in (5, 3, 1):
        k = (n + hue).remainder(6)
        channels.append(largest - span * torch.minimum(k, 4 - k).clamp(0, 1))
    return torch.where(turns == 0, values, torch.stack(channels, 1))  # no shift changes no bit


def _recoloured(values: Any, C: Any) -> Any:
    import torch

    if values.shape[1] == 1:
        factor, offset = C[:, :3, :3].sum((1, 2)) / 3, C[:, :3, 3].sum(1) / 3
        return (values * factor[:, None, None, None] + offset[:, None, None, None]).clamp(0, 1)
    changed = torch.einsum("nij,njhw->nihw", C[:, :3, :3], values) + C[:, :3, 3, None, None]
    return changed.clamp(0, 1)


def _saturated(values: Any, factor: Any) -> Any:
    import torch

    if values.shape[1] == 1:
        return values
    spread = _spread(values)
    largest, smallest = spread.amax(1, keepdim=True), spread.amin(1, keepdim=True)
    span = largest - smallest
    highest = largest / torch.where(span > 0, span, torch.ones_like(span))
    changed = largest - (largest - spread) * torch.minimum(factor.expand_as(highest), highest)
    return torch.where(factor == 1, values, changed.clamp(min=0))


def _spread(values: Any) -> Any:
    """NaN in all channels of a pixel with a value that is not finite."""
    total = values.sum(1, keepdim=True)
    return values + (total - total)


def _cut(values: Any, size: Any, center: Any) -> Any:
    import torch

    height, width = values.shape[2:]
    x = torch.arange(width, dtype=values.dtype, device=values.device) + 0.5
    y = torch.arange(height, dtype=values.dtype, device=values.device)[:, None] + 0.5
    size, (cx, cy) = size[:, None, None], center[:, :, None, None].unbind(1)
    inside_x = (x - width * cx).abs() < size * width / 2
    return (inside_x & ((y - height * cy).abs() < size * height / 2))[:, None]
