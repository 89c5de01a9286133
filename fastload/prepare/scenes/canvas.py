"""What every scene of the demo is drawn with: coordinates, fractal noise, soft edges, and the finish of a
photo.

In: a random generator and a size in pixels. Out: float32 pictures [height, width, 3], 0 is black and 1 is
white, in display values (no gamma is applied). Promised: the same generator state draws the same picture on
every machine with the same NumPy and Pillow; nothing here reads a clock or the global random state.
"""

from functools import cache

import numpy as np
from PIL import Image, ImageFilter

TILE = 512  # side of the noise tiles in pixels; a power of two, so that wrapping is a bit mask


class Canvas:
    """The size, the coordinates and the dice of one picture.

    `x` [1, width] runs from -aspect to aspect, `y` [height, 1] from -1 at the top to 1 at the bottom, so a
    unit is half the height in both. `pixel` is the size of a pixel in these units.
    """

    def __init__(self, width: int, height: int, rng: np.random.Generator):
        self.width, self.height, self.rng = width, height, rng
        self.aspect = width / height
        self.pixel = 2.0 / height
        self.x = (((np.arange(width, dtype=np.float32) + 0.5) * self.pixel) - self.aspect)[None, :]
        self.y = (((np.arange(height, dtype=np.float32) + 0.5) * self.pixel) - 1.0)[:, None]

    def pick(self, *choices):
        """One of the choices."""
        return choices[int(self.rng.integers(len(choices)))]

    def between(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return float(self.rng.uniform(low, high))

    def noise(
        self, slope: float, cells_x: float, cells_y: float | None = None, rows=slice(None)
    ) -> np.ndarray:
        """Fractal noise over the picture or some of its rows, [height, width], mean 0, deviation 1.

        A noise tile is stretched so that `cells_x` of it are 1/8 of the width: more cells, finer noise.
        """
        cells_y = cells_x / self.aspect if cells_y is None else cells_y
        u = np.arange(self.width, dtype=np.float32) * (cells_x * 64 / self.width) + self.between(0, TILE)
        v = np.arange(self.height, dtype=np.float32) * (cells_y * 64 / self.height) + self.between(0, TILE)
        return sample_grid(noise_tile(slope, int(self.rng.integers(3))), u, v[rows])

    def profile(self, slope: float, cells: float) -> np.ndarray:
        """One line of fractal noise, [width], mean 0, deviation about 1: a skyline."""
        tile = noise_tile(slope, int(self.rng.integers(3)))[int(self.rng.integers(TILE))]
        places = np.arange(self.width) * (cells * 64 / self.width) + self.between(0, TILE)
        return np.interp(places % TILE, np.arange(TILE + 1), np.append(tile, tile[0])).astype(np.float32)

    def filled(self, color) -> np.ndarray:
        """A picture of one colour."""
        return np.broadcast_to(np.float32(color), (self.height, self.width, 3)).copy()

    def window(self, x: float, y: float, reach: float):
        """Slices (rows, columns) of the square of half side `reach` around (x, y), cut to the picture."""
        left, right = ((v + self.aspect) / self.pixel for v in (x - reach, x + reach))
        top, bottom = ((v + 1.0) / self.pixel for v in (y - reach, y + reach))
        rows = slice(min(max(int(top), 0), self.height), min(max(int(bottom) + 1, 0), self.height))
        return rows, slice(min(max(int(left), 0), self.width), min(max(int(right) + 1, 0), self.width))


@cache
def noise_tile(slope: float, variant: int) -> np.ndarray:
    """Noise [TILE, TILE] float32 whose amplitude falls as frequency ** -slope; it wraps without a seam."""
    rng = np.random.default_rng([int(slope * 1000), variant])
    frequency = np.hypot(np.fft.fftfreq(TILE)[:, None], np.fft.rfftfreq(TILE)[None, :])
    frequency[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.standard_normal((TILE, TILE))) * frequency**-slope
    spectrum[0, 0] = 0.0
    tile = np.fft.irfft2(spectrum, s=(TILE, TILE))
    return (tile / tile.std()).astype(np.float32)


def sample_grid(tile: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The tile at every (v[row], u[column]), bilinear and wrapped; tile [T, T], u [W], v [H] -> [H, W]."""
    rows, row_share = _split(v)
    columns, column_share = _split(u)
    wide = tile[:, columns] * (1 - column_share) + tile[:, (columns + 1) & (TILE - 1)] * column_share
    share = row_share[:, None]
    return wide[rows] * (1 - share) + wide[(rows + 1) & (TILE - 1)] * share


def sample(tile: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The tile at arbitrary places, bilinear and wrapped; tile [T, T], u and v of one shape -> that shape."""
    rows, row_share = _split(v)
    columns, column_share = _split(u)
    flat, below = tile.ravel(), ((rows + 1) & (TILE - 1)) * TILE
    rows, right = rows * TILE, (columns + 1) & (TILE - 1)
    top = flat[rows + columns] * (1 - column_share) + flat[rows + right] * column_share
    bottom = flat[below + columns] * (1 - column_share) + flat[below + right] * column_share
    return top + (bottom - top) * row_share


def _split(places):
    """Places as wrapped integer cells and the share of the next cell."""
    cell = np.floor(places)
    return cell.astype(np.int32) & (TILE - 1), (places - cell).astype(np.float32)


def soft(value, low, high):
    """0 below low, 1 above high, smooth between (a smoothstep); low > high falls instead of rising."""
    t = np.clip((value - np.float32(low)) / np.float32(high - low), 0, 1)
    return t * t * (3 - 2 * t)


def mix(a, b, share):
    """a where share is 0, b where it is 1; a share [H, W] applies to all three channels of a colour."""
    a, b, share = np.float32(a), np.float32(b), np.float32(share)
    if share.ndim == 2 and max(a.ndim, b.ndim) != 2:
        share = np.repeat(share, 3, axis=1).reshape(
            *share.shape, 3
        )  # a broadcast last axis of 3 is 1.6 times slower
    blend = (b - a) * share
    blend += a
    return blend


def lighten(picture, light):
    """Adds light as a sensor would show it: never above white (a screen blend), in place; returns picture."""
    picture += np.clip(light, 0, None) * np.clip(1.0 - picture, 0, 1)
    return picture


def blur(picture: np.ndarray, radius: float) -> np.ndarray:
    """A Gaussian blur of a picture [H, W, 3] with values 0..1; the result has 8 bits a channel."""
    return from_pillow(to_pillow(picture).filter(ImageFilter.GaussianBlur(radius)))


def to_pillow(picture: np.ndarray) -> Image.Image:
    """The picture with 8 bits a channel, clipped to 0..1 first."""
    return Image.fromarray((np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8))


def from_pillow(image: Image.Image) -> np.ndarray:
    """A Pillow image as float32, 0..1."""
    return np.asarray(image).astype(np.float32) * np.float32(1 / 255)


def bloom(picture: np.ndarray, threshold: float, strength: float, reach: float = 0.04) -> np.ndarray:
    """Lets what is brighter than threshold glow over its surroundings; reach is a share of the height."""
    height, width = picture.shape[:2]
    small = to_pillow(np.clip(picture - threshold, 0, 1) / (1 - threshold)).resize((width // 4, height // 4))
    wide = small.filter(ImageFilter.GaussianBlur(reach * height / 4))
    wider = small.filter(ImageFilter.GaussianBlur(reach * height))
    glow = from_pillow(wide.resize((width, height))) + from_pillow(wider.resize((width, height)))
    return lighten(picture, glow * np.float32(strength))


def develop(picture, canvas: Canvas, vignette: float, contrast: float) -> np.ndarray:
    """The last step of every picture: an S-curve, darker corners, and clipping to 0..1."""
    picture = np.clip(picture, 0, 1)
    curve = picture * picture * (3 - 2 * picture)
    picture += (curve - picture) * np.float32(contrast)
    distance = (canvas.x / canvas.aspect) ** 2 + canvas.y**2
    picture *= (1 - np.float32(vignette) * distance * 0.5)[..., None]
    return np.clip(picture, 0, 1)
