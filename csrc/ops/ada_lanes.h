// Sums of rows of numbers, and pixels whose channels lie side by side: what the warp and the band filter are made of.
//
// A point is LANES numbers, one for each channel: 4 of them, unused ones 0, so that it is loaded by one instruction
// (two for double), or 1.
#pragma once
#include <cstddef>

namespace fastload {

template <class T, int LANES>
struct Lanes {
    using Point = T;
};
template <>
struct Lanes<float, 4> {
    typedef float Point __attribute__((vector_size(16), aligned(4), may_alias));
};
template <>
struct Lanes<double, 4> {
    typedef double Point __attribute__((vector_size(32), aligned(8), may_alias));
};

// The point at `values`.
template <int LANES, class T>
inline const typename Lanes<T, LANES>::Point &point(const T *values) {
    return *reinterpret_cast<const typename Lanes<T, LANES>::Point *>(values);
}
template <int LANES, class T>
inline typename Lanes<T, LANES>::Point &point(T *values) {
    return *reinterpret_cast<typename Lanes<T, LANES>::Point *>(values);
}

// out[i] = sum over k of weights[k] rows[k][i]; with ADD, that much more than before. Sixteen sums at a time stay in
// registers.
template <bool ADD, class T>
void sum_rows(const T *const *rows, const T *weights, int count, T *out, size_t length) {
    using Four = typename Lanes<T, 4>::Point;
    size_t at = 0;
    for (; at + 16 <= length; at += 16) {
        Four sums[4] = {};
        for (int k = 0; k < count; k++)
            for (size_t q = 0; q < 4; q++) sums[q] += weights[k] * point<4>(rows[k] + at + 4 * q);
        for (size_t q = 0; q < 4; q++) {
            Four &to = point<4>(out + at + 4 * q);
            to = ADD ? to + sums[q] : sums[q];
        }
    }
    for (; at < length; at++) {
        T sum = 0;
        for (int k = 0; k < count; k++) sum += weights[k] * rows[k][at];
        out[at] = ADD ? out[at] + sum : sum;
    }
}

}  // namespace fastload
