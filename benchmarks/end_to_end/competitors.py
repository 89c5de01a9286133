"""Who competes: a table of loaders and variants, and what each of them needs installed.

Every row says how it resizes and how far its pixels may be from the reference, as the mean absolute
difference in levels of 255 over the checked images, with the reason where that is not nought.
"""

import importlib.util
from dataclasses import dataclass, field
from typing import Literal

EXACT = 0.01  # for those that do what the reference does
HALF, FULL = (
    1.0,
    3.0,
)  # decoded at 1/2 and 1/4: 0.4 and 0.9 levels on other photos of 1024x1024, more on sharp ones
BIG = ("sq1024",)


@dataclass(frozen=True)
class Competitor:
    """One row of the tables.

    `corpora=None` is all of them; `bounds` replaces `bound_levels` on some. `beside` rows are also run in the
    harder modes. `full_bicubic` rows decode in full and resize as the reference does, or nearly.
    """

    name: str
    peer: str
    requires: tuple[str, ...]
    resize: str
    bound_levels: float
    role: Literal["limit", "peer", "fastload"] = "peer"
    options: dict = field(default_factory=dict)
    corpora: tuple[str, ...] | None = None
    bounds: dict[str, float] = field(default_factory=dict)
    full_bicubic: bool = True
    scaled_decode: bool = False
    beside: bool = False

    def runs_on(self, corpus: str) -> bool:
        return self.corpora is None or corpus in self.corpora

    def bound_on(self, corpus: str) -> float:
        return self.bounds.get(corpus, self.bound_levels)

    def missing(self) -> str | None:
        """Why it cannot run here, or None. An installed but broken library shows in its first window."""
        absent = []
        for name in self.requires:
            try:
                found = importlib.util.find_spec(name)
            except ModuleNotFoundError:  # of a package's submodule, where there is no such package
                found = None
            if found is None:
                absent.append(name)
        return f"not installed: {', '.join(absent)}" if absent else None


def _limit(name: str, resize: str, bound: float, **more) -> Competitor:
    return Competitor(name, "decode_limit", ("simplejpeg",), resize, bound, role="limit", **more)


def _ours(name: str, resize: str, bound: float, **more) -> Competitor:
    return Competitor(name, "fastload_shards", ("fastload", "torch"), resize, bound, role="fastload", **more)


SCALED = {"corpora": BIG, "scaled_decode": True}

COMPETITORS = (
    _limit("decode_limit", "none: decode only", EXACT, beside=True),
    _limit("decode_limit 1/2", "none: decode at 1/2", HALF, options={"denominator": 2}, **SCALED),
    _limit("decode_limit 1/4", "none: decode at 1/4", FULL, options={"denominator": 4}, **SCALED),
    # The default, scaled="half". At 500x375 and 256x256 the target allows no scale, and it decodes in full.
    _ours("fastload", "bicubic; decode at 1/2 if it fits", EXACT, bounds={"sq1024": HALF}, beside=True),
    _ours("fastload scaled=None", "bicubic", EXACT, options={"scaled": None}, corpora=BIG),
    _ours("fastload scaled=full", "bicubic; decode at 1/4", FULL, options={"scaled": "full"}, **SCALED),
    # What a CPU without AVX-512 would do; libjpeg-turbo itself never uses more than AVX2.
    _ours("fastload avx2", "bicubic", EXACT, options={"kernels": "avx2"}, corpora=("in500",)),
    # Flip, ColorJitter(.4, .4, .4, .1) and cutout, held against the reference of its own draws.
    _ours("fastload jitter", "bicubic", EXACT, options={"augment": "jitter"}, corpora=("in500",)),
    _ours(
        "fastload jitter avx2",
        "bicubic",
        EXACT,
        options={"augment": "jitter", "kernels": "avx2"},
        corpora=("in500",),
    ),
    Competitor("pillow_dataloader", "pillow_dataloader", ("torch", "PIL"), "bicubic (the reference)", EXACT),
    Competitor("pillow_draft", "pillow_draft", ("torch", "PIL"), "bicubic; decode at 1/4", FULL, **SCALED),
    # Its antialiased bicubic on uint8 differs by at most 2 levels in 0.3 % of the values.
    Competitor(
        "torchvision_v2", "torchvision_v2", ("torch", "torchvision"), "bicubic on uint8", 0.05, beside=True
    ),
    Competitor(
        "webdataset_pillow",
        "webdataset_pillow",
        ("torch", "webdataset", "PIL"),
        "bicubic (the reference)",
        EXACT,
    ),
    # The resize keeps fractions between its passes, replicates the borders, and takes 341.33 for 341 columns.
    Competitor(
        "dali_webdataset", "dali_webdataset", ("nvidia.dali", "torch"), "bicubic (cubic)", 1.5, beside=True
    ),
    Competitor(
        "dali_webdataset no resize",
        "dali_webdataset",
        ("nvidia.dali", "torch"),
        "left out: the sizes match",
        EXACT,
        options={"resize": False},
        corpora=("sq256",),
    ),
    # swscale: chroma upsampling and fixed-point arithmetic of its own.
    Competitor(
        "spdl", "spdl_files", ("spdl.io", "spdl.pipeline", "torch"), "bicubic (swscale)", 2.0, beside=True
    ),
    # INTER_AREA is softer than bicubic; its libjpeg-turbo is the system's.
    Competitor("ffcv", "ffcv_beton", ("ffcv", "torch"), "area: it has no bicubic", 4.0, full_bicubic=False),
)
