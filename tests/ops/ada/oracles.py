"""Adaptive augmentation once more, in NumPy and SciPy, written from the published mathematics alone: what the
references are held against, and the mistakes that a comparison with them must notice."""

import numpy as np
import scipy

from fastload.ops.ada.stages.wavelets import SYM6


def warped(image, G_inv, *, taps=SYM6, padding="reflect", interpolation="sym6", shift=0.0):
    """image [C, H, W] warped; the keywords plant mistakes."""
    _, height, width = image.shape
    G_inv = np.array(G_inv, np.float64)
    G_inv[0, 2] += shift
    if interpolation == "bilinear":
        return _bilinear(image, G_inv)
    taps = np.array(taps, np.float64)
    up = np.stack([_doubled(_doubled(plane, taps, padding).T, taps, padding).T for plane in image])
    ey, ex = np.meshgrid(np.arange(-5, 2 * height + 5), np.arange(-5, 2 * width + 5), indexing="ij")
    x, y = ex / 2 - (width - 1) / 2, ey / 2 - (height - 1) / 2
    from_x = G_inv[0, 0] * x + G_inv[0, 1] * y + G_inv[0, 2] + (width - 1) / 2
    from_y = G_inv[1, 0] * x + G_inv[1, 1] * y + G_inv[1, 2] + (height - 1) / 2
    places = np.stack([2 * from_y + 2 * (height - 1), 2 * from_x + 2 * (width - 1)])
    lattice = np.stack(
        [scipy.ndimage.map_coordinates(one, places, order=1, mode="grid-constant") for one in up]
    )
    return np.stack([_halved(_halved(plane, taps).T, taps).T for plane in lattice])


def _doubled(rows, taps, padding):
    """Along the last axis: extended to [-(n - 1), 2 n - 2], a zero after each pixel, filtered, times 2."""
    side = rows.shape[1]
    margins = ((0, 0), (side - 1, side - 1))
    extended = np.pad(rows, margins, mode=padding) if side > 1 else rows
    stuffed = np.zeros((len(rows), 2 * extended.shape[1]))
    stuffed[:, ::2] = extended
    filtered = np.stack([np.convolve(row, taps) for row in stuffed])
    return 2 * filtered[:, 5 : 5 + stuffed.shape[1]]


def _halved(rows, taps):
    return np.stack([np.correlate(row, taps, "valid")[::2][: (len(row) - 10) // 2] for row in rows])


def _bilinear(image, G_inv):
    _, height, width = image.shape
    y, x = np.mgrid[:height, :width].astype(np.float64)
    x, y = x - (width - 1) / 2, y - (height - 1) / 2
    from_x = G_inv[0, 0] * x + G_inv[0, 1] * y + G_inv[0, 2] + (width - 1) / 2
    from_y = G_inv[1, 0] * x + G_inv[1, 1] * y + G_inv[1, 2] + (height - 1) / 2
    return np.stack(
        [scipy.ndimage.map_coordinates(plane, [from_y, from_x], order=1, mode="mirror") for plane in image]
    )


def recoloured(image, matrix):
    """image [C, H, W], C 3 or 1."""
    colors = np.repeat(image, 3, 0) if len(image) == 1 else image
    changed = np.tensordot(matrix[:3, :3], colors, 1) + matrix[:3, 3, None, None]
    return changed.mean(0, keepdims=True) if len(image) == 1 else changed


def filtered(image, taps):
    """image [C, H, W] with the same taps along both axes, reflected."""
    rows = scipy.ndimage.convolve1d(image, taps, axis=2, mode="mirror")
    return scipy.ndimage.convolve1d(rows, taps, axis=1, mode="mirror")


def rotation(angle):
    """R of the published mathematics, 3 x 3."""
    return np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])


def scaling(x, y):
    return np.diag([x, y, 1.0])


def translation(x, y):
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


GRAY_AXIS = np.array([1, 1, 1, 0]) / np.sqrt(3)
GRAY = np.outer(GRAY_AXIS, GRAY_AXIS)


def color_product(brightness, contrast, luma, hue, saturation):
    """The 4 x 4 of the five transforms, multiplied one by one."""
    bright = np.eye(4)
    bright[:3, 3] = brightness
    contrast = np.diag([contrast] * 3 + [1.0])
    flip = np.eye(4) - 2 * luma * GRAY
    x, y, z = GRAY_AXIS[:3]
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turned = np.eye(4)
    turned[:3, :3] = np.cos(hue) * np.eye(3) + np.sin(hue) * cross + (1 - np.cos(hue)) * GRAY[:3, :3]
    vivid = GRAY + (np.eye(4) - GRAY) * saturation
    return vivid @ turned @ flip @ contrast @ bright
