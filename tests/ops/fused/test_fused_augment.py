"""The reference of fused_augment means what its contract says, each stage against an oracle of its own."""

import colorsys
import math

import numpy as np
import pytest
import torch

import fastload as fl
from fastload.errors import BackendError, ConfigError
from fastload.normalize import PRESETS, denormalize, normalize
from fastload.ops import AugmentParams, fused_augment

HEIGHT, WIDTH = 9, 12
PIXELS = torch.randint(
    0, 256, (4, HEIGHT, WIDTH, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2)
)
VALUES = PIXELS.permute(0, 3, 1, 2).double() / 255


def changed(images=PIXELS, **arguments):
    """The float64 reference, with the parameters given by name."""
    names = {"filter", "normalize", "layout", "dtype"}
    how = {"dtype": "float64"} | {name: value for name, value in arguments.items() if name in names}
    params = {name: torch.as_tensor(value) for name, value in arguments.items() if name not in names}
    return fused_augment(images, AugmentParams(**params), impl="reference", **how)


def warp(a=1.0, b=0.0, x=0.0, c=0.0, d=1.0, y=0.0, n=4):
    return torch.tensor([[a, b, x], [c, d, y], [0, 0, 1]], dtype=torch.float64).expand(n, 3, 3)


def test_without_parameters_the_values_are_pixels_over_255():
    assert torch.equal(changed(), VALUES)
    assert torch.equal(fused_augment(PIXELS, impl="reference"), PIXELS.permute(0, 3, 1, 2))


@pytest.mark.parametrize("preset", PRESETS)
def test_normalization_is_that_of_the_presets(preset):
    images = fused_augment(PIXELS, normalize=preset, impl="reference")
    assert torch.allclose(images, normalize(PIXELS.permute(0, 3, 1, 2), preset), atol=1e-6)
    for dtype in ("float32", "float16", "bfloat16"):
        cast = fused_augment(PIXELS, normalize=preset, dtype=dtype, impl="reference")
        assert torch.equal(denormalize(cast, preset), PIXELS.permute(0, 3, 1, 2))


def test_flips_and_quarter_turns_are_exact():
    assert torch.equal(changed(G_inv=warp(a=-1)), VALUES.flip(3))
    assert torch.equal(changed(G_inv=warp(d=-1)), VALUES.flip(2))
    square = PIXELS[:, :9, :9]
    turned = changed(square, G_inv=warp(a=0, b=-1, c=1, d=0))
    assert torch.equal(turned, VALUES[:, :, :9, :9].rot90(1, (2, 3)))


@pytest.mark.parametrize("right, down", [(3, 0), (0, 2), (-5, 4), (8, 6), (40, -33)])
def test_beyond_the_border_lies_the_mirror_image_without_the_edge_twice(right, down):
    """A whole shift, far beyond the image too, against NumPy's padding of the same name."""
    moved = changed(G_inv=warp(x=-right, y=-down)).numpy()
    room = 48
    padded = np.pad(VALUES.numpy(), ((0, 0), (0, 0), (room, room), (room, room)), mode="reflect")
    top, left = room - down, room - right
    np.testing.assert_allclose(moved, padded[:, :, top : top + HEIGHT, left : left + WIDTH], atol=1e-12)


def test_between_pixels_it_is_bilinear():
    moved = changed(G_inv=warp(x=0.25, y=0.5))
    columns = 0.75 * VALUES[..., :-1] + 0.25 * VALUES[..., 1:]
    expected = (columns[:, :, :-1] + columns[:, :, 1:]) / 2
    assert torch.allclose(moved[:, :, :-1, :-1], expected, atol=1e-12)


def test_nearest_takes_one_pixel_whole():
    turned = changed(G_inv=warp(a=0.9, b=-0.3, c=0.3, d=0.9), filter="nearest", dtype="uint8")
    assert set(turned.unique().tolist()) <= set(PIXELS.unique().tolist())
    moved = changed(G_inv=warp(x=0.4, y=-0.4), filter="nearest")
    assert torch.equal(moved, VALUES)


@pytest.mark.parametrize("height, width", [(1, 1), (1, 7), (6, 1), (2, 2)])
def test_sides_of_one_pixel_can_be_warped(height, width):
    images = PIXELS[:, :height, :width]
    moved = changed(images, G_inv=warp(a=0.7, b=0.7, c=-0.7, d=0.7, x=2.3, y=-9))
    assert torch.isfinite(moved).all()
    assert moved.min() >= images.min() / 255 - 1e-6 and moved.max() <= images.max() / 255 + 1e-6


def test_a_colour_matrix_is_clamped():
    C = torch.eye(4, dtype=torch.float64).repeat(4, 1, 1)
    C[:, :3] = torch.tensor([[0.5, 0.7, 0.0, 0.1], [0.0, 1.0, -0.3, -0.2], [0.2, 0.0, 1.1, 0.3]])
    linear = torch.einsum("ij,njhw->nihw", C[0, :3, :3], VALUES) + C[0, :3, 3, None, None]
    assert linear.min() < 0 and linear.max() > 1
    assert torch.allclose(changed(C=C), linear.clamp(0, 1), atol=1e-12)


@pytest.mark.parametrize("shift, factor", [(0.0, 0.4), (0.0, 1.7), (0.13, 1.0), (-0.45, 2.5), (0.5, 0.0)])
def test_hsv_is_that_of_colorsys(shift, factor):
    images = PIXELS.clone()
    images[0, 0, :4] = torch.tensor([[0, 0, 0], [255, 255, 255], [77, 77, 77], [255, 0, 0]])
    made = changed(images, hsv=torch.tensor([[shift, factor]], dtype=torch.float64).expand(4, 2))
    for pixel, result in zip(
        (images.double() / 255).reshape(-1, 3), made.permute(0, 2, 3, 1).reshape(-1, 3), strict=True
    ):
        h, s, v = colorsys.rgb_to_hsv(*pixel.tolist())
        expected = colorsys.hsv_to_rgb((h + shift) % 1, min(s * factor, 1), v)
        assert max(abs(a - b) for a, b in zip(result.tolist(), expected, strict=True)) < 1e-12


def test_cutout_zeroes_a_square_of_the_result():
    size = torch.tensor([0.5, 0.25, 1.0, 0.0], dtype=torch.float64)
    center = torch.tensor([[0.5, 0.5], [0.0, 0.0], [0.9, 0.3], [0.5, 0.5]], dtype=torch.float64)
    made = changed(cut_size=size, cut_center=center, normalize="gan")
    whole = VALUES * 2 - 1
    expected = whole.clone()
    for n in range(4):
        for row in range(HEIGHT):
            for column in range(WIDTH):
                inside_x = abs((column + 0.5) / WIDTH - center[n, 0]) < size[n] / 2
                inside_y = abs((row + 0.5) / HEIGHT - center[n, 1]) < size[n] / 2
                if inside_x and inside_y:
                    expected[n, :, row, column] = 0
    assert torch.allclose(made, expected, atol=1e-12)
    assert (made[0] == 0).all(0).sum() == 6 * 5  # 4.5 rows around the middle of 9: 5 centres lie within


def test_colours_come_after_the_warp_and_cutout_after_normalizing():
    dark = torch.zeros(1, 4, 4, dtype=torch.float64)
    dark[:, 3, 3] = 1
    dark[:, :3, 3] = 0.25
    params = {"G_inv": warp(a=-1, n=1), "C": dark, "cut_size": [0.5], "cut_center": [[0.0, 0.0]]}
    params = {name: torch.as_tensor(value, dtype=torch.float64) for name, value in params.items()}
    made = changed(PIXELS[:1], **params, normalize="gan")
    assert set(made.unique().tolist()) == {0.0, -0.5}


def test_a_gray_image_stays_gray():
    gray, three = PIXELS[..., :1], PIXELS[..., :1].expand(-1, -1, -1, 3)
    C = torch.rand(4, 4, 4, dtype=torch.float64) / 4  # nothing reaches 1, where the clamp begins
    assert torch.allclose(changed(gray, C=C), changed(three, C=C).mean(1, keepdim=True), atol=1e-12)
    hsv = torch.tensor([[0.3, 2.0]], dtype=torch.float64).expand(4, 2)
    assert torch.equal(changed(gray, hsv=hsv), changed(gray))


@pytest.mark.parametrize("layout", ["nchw", "channels_last"])
def test_out_is_written_and_returned(layout):
    form = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    out = torch.empty(4, 3, HEIGHT, WIDTH).contiguous(memory_format=form)
    made = fused_augment(PIXELS, normalize="vae", layout=layout, out=out, impl="reference")
    assert made is out
    assert torch.allclose(out.double(), VALUES, atol=1e-7)


def test_an_empty_batch_is_an_empty_batch():
    for impl in ("auto", "reference"):
        assert fused_augment(PIXELS[:0], normalize="gan", impl=impl).shape == (0, 3, HEIGHT, WIDTH)


@pytest.mark.parametrize(
    "images, arguments, message",
    [
        (PIXELS.permute(0, 3, 1, 2), {}, r"images are \[4, 3, 9, 12\]: .*images.permute\(0, 2, 3, 1\)"),
        (PIXELS.to(torch.int32), {}, "images of torch.int32: give uint8"),
        (PIXELS.numpy(), {}, "images are ndarray"),
        (PIXELS, {"params": {}}, r"params=\{\}: give fl.ops.AugmentParams"),
        (
            PIXELS,
            {"params": AugmentParams(jitter=torch.ones(3, 4))},
            r"jitter is \[3, 4\]: give a tensor \[4, 4\]",
        ),
        (PIXELS, {"params": AugmentParams(cut_size=torch.ones(4))}, "cut_size and cut_center together"),
        (PIXELS, {"params": AugmentParams(order=torch.zeros(4, 4))}, "order has no meaning without jitter"),
        (PIXELS, {"params": AugmentParams(hsv=np.ones((4, 2)))}, r"hsv is ndarray \[4, 2\]: give a tensor"),
        (
            PIXELS,
            {"params": AugmentParams(hsv=torch.full((4, 2), math.nan))},
            "hsv holds numbers that are not",
        ),
        (
            PIXELS,
            {"params": AugmentParams(jitter=torch.ones(4, 4), order=torch.zeros(4, 4))},
            "a permutation of 0, 1, 2, 3",
        ),
        ((PIXELS / 255).requires_grad_(), {}, "require gradients, and fused_augment has none"),
        (PIXELS / 255, {"dtype": "float64"}, 'float64 needs impl="reference"'),
        (PIXELS, {"dtype": "int8"}, "dtype='int8'"),
        (PIXELS, {"dtype": "uint8", "normalize": "gan"}, "use normalize=None"),
        (PIXELS, {"layout": "nhwc"}, "layout='nhwc'"),
        (PIXELS, {"filter": "bicubic"}, "filter='bicubic'"),
        (PIXELS, {"impl": "fast"}, "impl='fast'"),
        (PIXELS, {"impl": "native", "dtype": "float64"}, 'float64 needs impl="reference"'),
        (PIXELS[..., :1], {"normalize": "imagenet"}, "has three colours, and the images have one channel"),
        (PIXELS, {"out": torch.empty(4, 3, HEIGHT, WIDTH, dtype=torch.float64)}, "out must be torch.uint8"),
    ],
)
def test_what_does_not_fit_is_refused(images, arguments, message):
    with pytest.raises(ConfigError, match=message):
        fused_augment(images, **arguments)


def test_parameters_survive_the_trip_through_rows():
    augment = fl.Augment(
        rotate=9, color_jitter=(0.4, 0.4, 0.4, 0.1), brightness=0.1, hsv=(0.1, 0.2), cutout=(1, 0.3)
    )
    params = augment.draw(range(5), 3, 8, 8)
    rows = params.rows(5, "cpu")
    again = AugmentParams.from_rows(rows, params.stages)
    for name in ("G_inv", "jitter", "order", "C", "hsv", "cut_size", "cut_center"):
        assert torch.equal(getattr(again, name), getattr(params, name))
    assert math.isclose(float(params.to(torch.float64).jitter[0, 0]), float(params.jitter[0, 0]))


def test_triton_says_why_it_cannot_run(monkeypatch):
    monkeypatch.setattr("fastload.backends.triton_interprets", lambda: False)
    with pytest.raises(BackendError, match="TRITON_INTERPRET=1"):
        fused_augment(PIXELS, impl="triton")
    monkeypatch.setattr("fastload.backends.has", lambda name: False)
    with pytest.raises(BackendError, match="Triton is not installed"):
        fused_augment(PIXELS, impl="triton")
