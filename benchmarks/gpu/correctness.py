"""Part 1: is everything right on this device? The kernels, the decoder, streams, bad samples, the loader."""

from benchmarks.gpu import decoding, loading, stress, twins
from benchmarks.gpu.cases import Case, Context


def cases(context: Context) -> list[Case]:
    return [
        *decoding.cases(),
        *stress.cases(context),
        *loading.cases(),
        *twins.cases(),
        *twins.late_cases(),
    ]
