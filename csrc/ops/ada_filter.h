// fastload/ops/band_filter.py for one image, in place.
//
// In: planes [C, H, W], H, W > BAND_MARGIN, and four gains. Out: the filtered planes, or in the adjoint mode the
// adjoint applied to them. Promise: where all gains are 1 nothing is changed.
#pragma once
#include "ops/ada.h"

namespace fastload {

template <class T>
void ada_filter(const AdaSettings &settings, const T *gains, T *planes, AdaScratch<T> &scratch);

}  // namespace fastload
