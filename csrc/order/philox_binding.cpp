// Binds philox.h to Python for whole arrays of positions; the contract is fastload/rng.py.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "base/unlocked.h"
#include "order/philox.h"

namespace fastload {
namespace {
namespace py = pybind11;

using Positions = py::array_t<int64_t, py::array::c_style>;

py::array_t<uint32_t> philox_bits(uint64_t seed, const Positions &positions, uint32_t purpose, uint32_t block) {
    if (positions.ndim() != 1) throw py::value_error("positions must have one dimension");
    const py::ssize_t count = positions.shape(0);
    py::array_t<uint32_t> bits({count, py::ssize_t{4}});
    const int64_t *in = positions.data();
    uint32_t *out = bits.mutable_data();
    without_gil([&] {
        for (py::ssize_t i = 0; i < count; ++i) philox(seed, static_cast<uint64_t>(in[i]), purpose, block, out + 4 * i);
    });
    return bits;
}

}  // namespace

void bind_philox(py::module_ &module) {
    module.def("philox_bits", &philox_bits, py::arg("seed"), py::arg("positions").noconvert(), py::arg("purpose"),
               py::arg("block"));
}

}  // namespace fastload
