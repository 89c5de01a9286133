// Binds permutation.h to Python for whole arrays; the contract is fastload/order/permutation.py.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>

#include "base/unlocked.h"
#include "order/permutation.h"

namespace fastload {
namespace {
namespace py = pybind11;

template <typename T>
using Column = py::array_t<T, py::array::c_style>;

// One value for all indices, or one for each.
template <typename T>
struct Operand {
    Operand(const Column<T> &column, py::ssize_t count, const char *name) : values(column.data()) {
        if (column.ndim() != 1 || (column.shape(0) != 1 && column.shape(0) != count)) {
            throw py::value_error(std::string(name) + " must hold 1 value, or 1 for each index");
        }
        step = column.shape(0) == 1 ? 0 : 1;
    }
    uint64_t operator[](py::ssize_t i) const { return static_cast<uint64_t>(values[i * step]); }

    const T *values;
    py::ssize_t step;
};

// Returns the first i whose index or n is out of range, or -1 after `out` was filled.
py::ssize_t permute_all(const int64_t *indices, py::ssize_t count, const Operand<int64_t> &n,
                        const Operand<uint64_t> &key0, const Operand<uint64_t> &key1, int64_t *out) {
    Permutation permutation(1, 0, 0);
    uint64_t now_n = 0, now_key0 = 0, now_key1 = 0;  // n = 0 differs from every valid n
    for (py::ssize_t i = 0; i < count; ++i) {
        // As unsigned, a negative n or index is far beyond the bounds.
        if (n[i] - 1 >= Permutation::MAX_N || static_cast<uint64_t>(indices[i]) >= n[i]) return i;
        if (n[i] != now_n || key0[i] != now_key0 || key1[i] != now_key1) {
            now_n = n[i], now_key0 = key0[i], now_key1 = key1[i];
            permutation = Permutation(now_n, now_key0, now_key1);
        }
        out[i] = static_cast<int64_t>(permutation(static_cast<uint64_t>(indices[i])));
    }
    return -1;
}

py::array_t<int64_t> permute(const Column<int64_t> &indices, const Column<int64_t> &n, const Column<uint64_t> &key0,
                             const Column<uint64_t> &key1) {
    if (indices.ndim() != 1) throw py::value_error("indices must have one dimension");
    const py::ssize_t count = indices.shape(0);
    const Operand<int64_t> sizes(n, count, "n");
    const Operand<uint64_t> low(key0, count, "key[0]"), high(key1, count, "key[1]");
    py::array_t<int64_t> permuted(count);
    const int64_t *in = indices.data();
    int64_t *out = permuted.mutable_data();
    const py::ssize_t bad = without_gil([&] { return permute_all(in, count, sizes, low, high, out); });
    if (bad >= 0) {
        throw py::index_error("index " + std::to_string(in[bad]) + " is not in [0, n) with n=" +
                              std::to_string(static_cast<int64_t>(sizes[bad])) + ", 1 <= n <= 2**62");
    }
    return permuted;
}

}  // namespace

void bind_permutation(py::module_ &module) {
    module.def("permute", &permute, py::arg("indices").noconvert(), py::arg("n").noconvert(),
               py::arg("key0").noconvert(), py::arg("key1").noconvert());
}

}  // namespace fastload
