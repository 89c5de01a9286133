"""Each linear augmentation does to places and colours what its class says."""

import math

import numpy as np
import pytest
import torch

import fastload as fl
from fastload.augment import Brightness, Rotate, Scale, Translate, XFlip, YFlip
from fastload.ops.fused.draw_params import draw_params
from fastload.ops.fused.draw_plan import DrawPlan
from fastload.rng import Purpose, uniforms

HEIGHT, WIDTH, SEED, N = 31, 41, 9, 4000
POSITIONS = np.arange(N) + 2**33


def drawn(augmentation) -> fl.ops.AugmentParams:
    plan = DrawPlan((augmentation.draw(HEIGHT, WIDTH),))
    return fl.ops.AugmentParams.from_rows(draw_params(plan, POSITIONS, SEED), plan.stages)


def uniform(purpose, word) -> np.ndarray:
    return uniforms(SEED, POSITIONS, purpose)[:, word].astype(np.float64)


def goes_to(G_inv: torch.Tensor, place) -> np.ndarray:
    """Where in the output the input's `place` (x, y) lands, in centred pixels: [N, 2]."""
    inverse = np.linalg.inv(G_inv.double().numpy())
    return (inverse @ np.array([*place, 1.0]))[:, :2]


@pytest.mark.parametrize(
    "flip, purpose, sign", [(XFlip, Purpose.XFLIP, (-1, 1)), (YFlip, Purpose.YFLIP, (1, -1))]
)
def test_a_flip_mirrors_where_its_die_says(flip, purpose, sign):
    mirrored = uniform(purpose, 0) < 0.3
    assert 0.27 < mirrored.mean() < 0.33
    places = goes_to(drawn(flip(0.3)).G_inv, (3, 5))
    np.testing.assert_array_equal(
        places[mirrored], np.broadcast_to([3 * sign[0], 5 * sign[1]], (mirrored.sum(), 2))
    )
    np.testing.assert_array_equal(places[~mirrored], np.broadcast_to([3, 5], ((~mirrored).sum(), 2)))


def test_a_rotation_is_counter_clockwise_and_uniform():
    angles = (2 * uniform(Purpose.ROTATE, 1) - 1) * math.radians(30)
    places = goes_to(drawn(Rotate(30)).G_inv, (10, 0))
    # y points down: a turn to the left lifts what lies to the right.
    np.testing.assert_allclose(places, np.stack([10 * np.cos(angles), -10 * np.sin(angles)], 1), atol=1e-5)
    assert abs(np.degrees(angles).std() - 30 / math.sqrt(3)) < 0.5


def test_a_scale_enlarges():
    factors = 0.8 + uniform(Purpose.SCALE, 1) * (1.5 - 0.8)
    places = goes_to(drawn(Scale(0.8, 1.5)).G_inv, (4, -6))
    np.testing.assert_allclose(places, factors[:, None] * [4, -6], rtol=1e-6)


def test_a_translation_moves_right_and_down_by_shares_of_the_sides():
    right = (2 * uniform(Purpose.TRANSLATE, 1) - 1) * 0.1 * WIDTH
    down = (2 * uniform(Purpose.TRANSLATE, 2) - 1) * 0.2 * HEIGHT
    places = goes_to(drawn(Translate(0.1, 0.2)).G_inv, (0, 0))
    np.testing.assert_allclose(places, np.stack([right, down], 1), atol=1e-5)


def test_brightness_adds_to_all_channels():
    added = (2 * uniform(Purpose.BRIGHTNESS, 1) - 1) * 0.25
    C = drawn(Brightness(0.25)).C.double().numpy()
    np.testing.assert_allclose(
        C @ [0.1, 0.2, 0.3, 1.0],
        np.stack([0.1 + added, 0.2 + added, 0.3 + added, 1 + 0 * added], 1),
        atol=1e-6,
    )


def test_a_pixel_really_goes_there():
    """One white pixel, moved by each of the geometric ones: its brightest spot is where the matrix says."""
    for augmentation in (XFlip(1.0), YFlip(1.0), Rotate(40), Scale(0.9, 1.1), Translate(0.2, 0.2)):
        params = drawn(augmentation)
        few = fl.ops.AugmentParams(G_inv=params.G_inv[:50])
        images = torch.zeros(50, HEIGHT, WIDTH, 3)
        images[:, 15 + 4, 20 + 7] = 1.0  # centred: (7, 4)
        moved = fl.ops.fused_augment(images, few, impl="reference")[:, 0]
        for image, (x, y) in zip(moved, goes_to(few.G_inv, (7, 4)), strict=True):
            row, column = divmod(int(image.argmax()), WIDTH)
            assert math.hypot(column - 20 - x, row - 15 - y) < 0.75
