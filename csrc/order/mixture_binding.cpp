// Binds mixture.h to Python; the contract is fastload/order/mixture.py.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <utility>

#include "base/unlocked.h"
#include "order/mixture.h"

namespace fastload {
namespace {
namespace py = pybind11;

using Amounts = std::vector<int64_t>;

py::tuple mixture_take(Amounts shares, Amounts given, Amounts owed, py::ssize_t count) {
    if (count < 0) throw py::value_error("count must not be negative");
    Mixture mixture(std::move(shares), std::move(given), std::move(owed));
    py::array_t<int32_t> sources(count);
    py::array_t<int64_t> samples(count);
    int32_t *source = sources.mutable_data();
    int64_t *sample = samples.mutable_data();
    without_gil([&] {
        for (py::ssize_t i = 0; i < count; ++i) {
            const size_t number = mixture.next();
            source[i] = static_cast<int32_t>(number);
            sample[i] = mixture.given()[number] - 1;
        }
    });
    return py::make_tuple(sources, samples, mixture.given(), mixture.owed());
}

py::tuple mixture_advance(Amounts shares, Amounts given, Amounts owed, py::ssize_t count) {
    if (count < 0) throw py::value_error("count must not be negative");
    Mixture mixture(std::move(shares), std::move(given), std::move(owed));
    without_gil([&] {
        for (py::ssize_t i = 0; i < count; ++i) mixture.next();
    });
    return py::make_tuple(mixture.given(), mixture.owed());
}

}  // namespace

void bind_mixture(py::module_ &module) {
    module.def("mixture_take", &mixture_take, py::arg("shares"), py::arg("given"), py::arg("owed"), py::arg("count"));
    module.def("mixture_advance", &mixture_advance, py::arg("shares"), py::arg("given"), py::arg("owed"),
               py::arg("count"));
}

}  // namespace fastload
