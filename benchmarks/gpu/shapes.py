"""The sizes that are measured: one list, for the cases that measure them and the targets that judge them."""

from dataclasses import dataclass

DETERMINISTIC_LOADS = (0.0, 1.0)  # of the hardware decoder, as `deterministic=True` allows them
LOADS = (0.0, 0.65, 1.0)  # 0.65 is DALI's own default
THREADS = (4, 8, 16)

# Name -> (width, height, count); few, since the photos behind them are few, but enough to fill a queue.
CORPORA = {
    "256x256": (256, 256, 512),
    "500x375": (500, 375, 512),
    "1024x1024": (1024, 1024, 256),
    "2048x2048": (2048, 2048, 96),
}
TRAINED = ("256x256", "500x375", "1024x1024")


@dataclass(frozen=True)
class KernelShape:
    """A batch of uint8 [n, side, side, 3] and what it becomes."""

    n: int
    side: int
    dtype: str
    layout: str

    @property
    def name(self) -> str:
        return f"{self.n}x{self.side}x{self.side}x3 {self.dtype} {self.layout}"

    @property
    def bytes(self) -> int:
        """What must move: each level read once, each result written once."""
        return 3 * self.n * self.side * self.side * (1 + {"bfloat16": 2, "float32": 4}[self.dtype])


KERNELS = tuple(
    KernelShape(n, side, dtype, layout)
    for n, side in ((256, 256), (64, 1024))
    for dtype in ("bfloat16", "float32")
    for layout in ("nchw", "channels_last")
)
