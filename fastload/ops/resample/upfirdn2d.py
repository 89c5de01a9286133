"""Upsample, pad, filter with finite impulse response, downsample: how GANs and diffusion models resample.

images: [N, C, H, W] floats, of any strides. taps: [h, w], or [k] for both axes one after the other, or None
for a single 1. Along each axis alike, with n the side of an image, K the count of taps f, u = up, d = down:

1. upsample: z has n u pixels, z[i u] = x[i], the others are 0.
2. pad: p0 zeros before and p1 behind; a negative number takes pixels away. L = n u + p0 + p1 are left.
3. filter: y[m] = sum_k f[k] z[m + K - 1 - k] for m in [0, L - K], a convolution, in which taps are mirrored;
   with flip_filter they are not: y[m] = sum_k f[k] z[m + k].
4. downsample: out[o] = y[o d].

Out: gain times this, contiguous and of the images' dtype; its sides are (n u + p0 + p1 - K) // d + 1. A pair
of numbers is (x, y), four are (x0, x1, y0, y1). Taps are used as they are: for a filter that keeps brightness
make them sum to 1, as `taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8` does for both axes.

Gradients of any order with respect to images: the adjoint is the same operation with up and down exchanged,
the taps mirrored, and K - 1 - p0 zeros before. None to taps, which must not ask for them.

Twins. `reference` is torch, made of sums and products that neither autocast nor TF32 changes: in
float64 for float64, in float32 for other images. `triton` computes in float32, also between the two axes, and
is one operator of torch.library, so that torch.compile sees one node. Sums have another order: for float32
they agree to T 2^-23 gain sum |taps| max |images|, with T the count of taps, and for [k] with 2 k and (sum
|taps|)^2. Half floats are rounded once, at the end.
"""

from typing import Any

from fastload.errors import ConfigError
from fastload.ops.twins import check_images, choose, refuse_forward_mode


def upfirdn2d(
    images: Any,
    taps: Any,
    up: Any = 1,
    down: Any = 1,
    padding: Any = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: str = "auto",
) -> Any:
    """The images [N, C, H, W] resampled as the contract above says.

    taps: floats [h, w] or [k] on the images' device, or None. up, down: a number from 1, or (x, y).
    padding: of the upsampled image; a number, (x, y) or (x0, x1, y0, y1).
    gain: what the result is multiplied by.
    impl: "reference", "triton" (CUDA; on the CPU where TRITON_INTERPRET=1), or "auto": reference on the CPU,
        triton on CUDA, which never turns into something slower.
    Raises ConfigError for arguments that do not fit together, BackendError where `impl` cannot run here.
    """
    check_images(images)
    taps = _checked(taps, images)
    impl = choose(impl, images.device, dtype=images.dtype)
    up, down, padding = _pair("up", up), _pair("down", down), _padding(padding)
    if isinstance(gain, bool) or not isinstance(gain, int | float):
        raise ConfigError(f"gain={gain!r}: give a number, or multiply the result by the tensor.")
    counts = _counts(taps)
    padded = [side * u + sum(p) for side, u, p in zip(images.shape[2:], up, padding, strict=True)]
    if padded[0] < counts[0] or padded[1] < counts[1]:
        raise ConfigError(
            f"images of {list(images.shape[2:])} are {padded} upsampled and padded: taps of {list(counts)} "
            "do not fit in, the result would be empty. Pad more, crop less, or use fewer taps."
        )
    if impl == "reference":
        return _reference(images, taps, up, down, padding, flip_filter, gain)
    from fastload.ops.resample import registered

    start = [count - 1 - before for count, (before, _) in zip(counts, padding, strict=True)]
    size = [(side - count) // d + 1 for side, count, d in zip(padded, counts, down, strict=True)]
    refuse_forward_mode(images)
    return registered.upfirdn2d(images, taps, up, down, start, size, flip_filter, float(gain))


def filter2d(
    images: Any,
    taps: Any,
    padding: Any = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: str = "auto",
) -> Any:
    """The images filtered in place: of the same size, beyond the border 0; arguments as `upfirdn2d` has them.

    An even count of taps moves the image by half a pixel, to the right and down. padding: more than that.
    """
    return upfirdn2d(images, taps, 1, 1, _centred(taps, 1, 1, padding), flip_filter, gain, impl)


def upsample2d(
    images: Any,
    taps: Any,
    up: Any = 2,
    padding: Any = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: str = "auto",
) -> Any:
    """The images `up` times as large, pixels still centred; arguments as `upfirdn2d` has them.

    Taps that sum to 1 keep the brightness: gain comes on top of up_x up_y, for the zeros that were inserted.
    padding: of the result, more than [N, C, H up, W up].
    """
    _, (up_y, up_x) = check_images(images), _pair("up", up)
    gain = gain * up_x * up_y
    return upfirdn2d(images, taps, up, 1, _centred(taps, up, 1, padding), flip_filter, gain, impl)


def downsample2d(
    images: Any,
    taps: Any,
    down: Any = 2,
    padding: Any = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: str = "auto",
) -> Any:
    """The images `down` times as small, [N, C, H // down, W // down], pixels still centred; as `upfirdn2d`.

    padding: of the images, more than that.
    """
    return upfirdn2d(images, taps, 1, down, _centred(taps, 1, down, padding), flip_filter, gain, impl)


def _centred(taps: Any, up: Any, down: Any, padding: Any) -> list[int]:
    """The padding (x0, x1, y0, y1) with which the middle of an image stays where it is, and its size fits.

    Along an axis, pixel i is spread around i u + p0 - (K - 1) / 2 of y and belongs at i u + (u - 1) / 2; the
    middle of d pixels is (d - 1) / 2 behind the first one. Hence p0 = (K + u - d - 1) / 2, rounded up.
    """
    if taps is not None:
        _check_form(taps)
    counts = (1, 1) if taps is None else _counts(taps)
    result = []
    axes = zip(counts, _pair("up", up), _pair("down", down), _padding(padding), strict=True)
    for count, u, d, (before, behind) in reversed(list(axes)):
        result += [before + (count + u - d) // 2, behind + (count - u - d + 1) // 2]
    return result


def _checked(taps: Any, images: Any) -> Any:
    import torch

    if taps is None:
        return torch.ones(1, 1, dtype=torch.float32, device=images.device)
    _check_form(taps)
    if taps.device != images.device:
        raise ConfigError(
            f"taps are on {taps.device} and images on {images.device}: move the taps once, before training."
        )
    if taps.requires_grad and torch.is_grad_enabled():
        raise ConfigError("taps require gradients, and upfirdn2d gives them none: use taps.detach().")
    return taps


def _check_form(taps: Any) -> None:
    import torch

    if not isinstance(taps, torch.Tensor):
        found = type(taps).__name__
    elif taps.dim() not in (1, 2) or not taps.is_floating_point() or not taps.numel():
        found = f"{taps.dtype} {list(taps.shape)}"
    else:
        return
    raise ConfigError(f"taps are {found}: give a tensor of floats [h, w] or [k], or None.")


def _counts(taps: Any) -> tuple[int, int]:
    return taps.shape[0], taps.shape[-1]


def _pair(name: str, value: Any) -> tuple[int, int]:
    """A number or (x, y), from 1, as (y, x)."""
    pair = _integers(value)
    if len(pair) == 1:
        pair *= 2
    if len(pair) != 2 or min(pair) < 1:
        raise ConfigError(f"{name}={value!r}: give an integer from 1, or two for (x, y).")
    return pair[1], pair[0]


def _padding(value: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    """A number, (x, y) or (x0, x1, y0, y1) as what comes before and behind, of y and of x."""
    sides = _integers(value)
    if len(sides) == 1:
        sides *= 4
    elif len(sides) == 2:
        sides = [sides[0], sides[0], sides[1], sides[1]]
    if len(sides) != 4:
        raise ConfigError(f"padding={value!r}: give an integer, (x, y) or (x0, x1, y0, y1).")
    return (sides[2], sides[3]), (sides[0], sides[1])


def _integers(value: Any) -> list[int]:
    """A number or a sequence of numbers as a list; empty for anything else."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    return values if all(hasattr(number, "__index__") for number in values) else []


def _reference(
    images: Any, taps: Any, up: tuple, down: tuple, padding: tuple, flip_filter: bool, gain: float
) -> Any:
    """The contract in torch; numbers in pairs are those of y and x."""
    import torch

    work = torch.float64 if images.dtype == torch.float64 else torch.float32
    values, taps = images.to(work), taps.to(work)
    if flip_filter:
        taps = taps.flip(list(range(taps.dim())))
    if taps.dim() == 2:
        values = _resampled(values, taps * gain, up, down, padding)
    else:
        values = _resampled(values, taps[None], (1, up[1]), (1, down[1]), ((0, 0), padding[1]))
        values = _resampled(values, taps[:, None] * gain, (up[0], 1), (down[0], 1), (padding[0], (0, 0)))
    return values.to(images.dtype).contiguous()


def _resampled(values: Any, taps: Any, up: tuple, down: tuple, padding: tuple) -> Any:
    """The four steps for taps [h, w]."""
    if up != (1, 1):
        n, channels, height, width = values.shape
        spread = values.new_zeros(n, channels, height * up[0], width * up[1])
        spread[:, :, :: up[0], :: up[1]] = values
        values = spread
    values = _padded(values, padding)
    count_y, count_x = taps.shape
    stop_y, stop_x = (side - count + 1 for side, count in zip(values.shape[2:], taps.shape, strict=True))
    result = None
    for tap_y in range(count_y):
        y = count_y - 1 - tap_y
        for tap_x in range(count_x):
            x = count_x - 1 - tap_x
            shifted = values[:, :, y : y + stop_y : down[0], x : x + stop_x : down[1]]
            product = shifted * taps[tap_y, tap_x]
            result = product if result is None else result + product
    return result


def _padded(values: Any, padding: tuple) -> Any:
    """Zeros first and then the crop, so that a side may take away what the other one adds."""
    from torch.nn.functional import pad

    (y0, y1), (x0, x1) = padding
    if max(y0, y1, x0, x1) > 0:
        values = pad(values, [max(side, 0) for side in (x0, x1, y0, y1)])
    height, width = values.shape[2:]
    return values[:, :, max(-y0, 0) : height - max(-y1, 0), max(-x0, 0) : width - max(-x1, 0)]
