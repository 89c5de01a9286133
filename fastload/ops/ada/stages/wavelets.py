"""The filters of adaptive augmentation, as numbers: a wavelet's low-pass for warps, four bands for filtering.

Source: PyWavelets 1.8 (MIT), `Wavelet("sym6").dec_lo` and `Wavelet("sym2").dec_lo`, in that order. SYM6 is
divided by its sum, sqrt(2), so that its taps sum to 1. BANDS are four symmetric filters of 43 taps, the
lowest octave first, that sum to a unit impulse: with lo = h * reverse(h) / 2 of sym2's h and hi the same with
h[k] (-1)^k, they are lo(z^4) lo(z^2) lo(z), hi(z^4) lo(z^2) lo(z), hi(z^2) lo(z) and hi(z), each centred.
"""

import numpy as np

_SYM6_LOW_PASS = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
_SYM2_LOW_PASS = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)

BAND_TAPS = 43
BAND_MARGIN = BAND_TAPS // 2  # pixels of reflection that the band filter needs on each side
BAND_ENERGY = (10 / 13, 1 / 13, 1 / 13, 1 / 13)  # natural images' share of energy in each band, as assumed

SYM6 = tuple(tap / sum(_SYM6_LOW_PASS) for tap in _SYM6_LOW_PASS)


def _spread(taps: np.ndarray, step: int) -> np.ndarray:
    """The taps with step - 1 zeros between them: z becomes z^step."""
    spread = np.zeros((len(taps) - 1) * step + 1)
    spread[::step] = taps
    return spread


def _bands() -> np.ndarray:
    h = np.array(_SYM2_LOW_PASS)
    low = np.convolve(h, h[::-1]) / 2
    alternating = h * (-1.0) ** np.arange(len(h))
    high = np.convolve(alternating, alternating[::-1]) / 2
    of_two = np.convolve(low, _spread(low, 2))
    lowest, second = (np.convolve(of_two, _spread(taps, 4)) for taps in (low, high))
    bands = np.zeros((4, BAND_TAPS))
    for band, taps in zip(bands, (lowest, second, np.convolve(low, _spread(high, 2)), high), strict=True):
        start = (BAND_TAPS - len(taps)) // 2
        band[start : start + len(taps)] = taps
    return bands


BANDS = _bands()  # [4, 43] float64
BANDS.flags.writeable = False
