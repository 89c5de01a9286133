"""Part 1: is everything right on this device? The kernels, the decoder, streams, bad samples, the loader."""

from benchmarks.gpu import ada_twins, decoding, loading, stress, twins
from benchmarks.gpu.cases import Case, Context


def cases(context: Context) -> list[Case]:
    return [
        *decoding.cases(),
        *stress.cases(context),
        *loading.cases(),
        *twins.cases(),
        *ada_twins.cases(),
        *twins.late_cases(),
    ]
