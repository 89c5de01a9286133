#include "order/mixture.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <utility>

#include "base/unlocked.h"

namespace py = pybind11;

namespace fastload {
namespace {

int64_t floor_division(int64_t number, int64_t positive) {
    const int64_t quotient = number / positive;
    return number % positive < 0 ? quotient - 1 : quotient;
}

}  // namespace

Mixture::Mixture(std::vector<int64_t> shares, std::vector<int64_t> given, std::vector<int64_t> owed)
    : given_(std::move(given)), owed_(std::move(owed)) {
    if (shares.empty() || shares.size() > MOST_SOURCES || shares.size() != given_.size() ||
        shares.size() != owed_.size()) {
        throw std::invalid_argument("a mixture needs as many amounts as shares, from 1 to 1024");
    }
    const int64_t limit = 2 * static_cast<int64_t>(shares.size()) * SHARES;
    int64_t total = 0;
    for (size_t number = 0; number < shares.size(); ++number) {
        const int64_t amount = owed_[number];
        if (shares[number] < 0 || shares[number] > SHARES - total || given_[number] < 0 ||
            given_[number] > MOST_GIVEN || amount > limit || amount < -limit) {
            throw std::invalid_argument("a mixture's shares or amounts are out of range");
        }
        total += shares[number];
        if (shares[number] > 0) active_.push_back({number, shares[number], amount, 0, 0, 0});
    }
    if (total != SHARES) throw std::invalid_argument("a mixture's shares do not add up");
    if (active_.size() > 1) {
        const int64_t parts = 2 * static_cast<int64_t>(active_.size()) - 2;
        enough_ = (SHARES + parts - 1) / parts;
        most_ = SHARES - SHARES / parts;
    }
    for (Source &source : active_) set_times(source);
}

size_t Mixture::next() {
    ++place_;
    Source *chosen = nullptr;
    for (Source &source : active_) {
        if (source.ready <= place_ && (chosen == nullptr || source.due < chosen->due)) chosen = &source;
    }
    if (chosen == nullptr) {  // only after a change of weights, when sources that are off are owed something
        for (Source &source : active_) {
            if (chosen == nullptr || source.due < chosen->due) chosen = &source;
        }
    }
    chosen->owed += (place_ - chosen->since) * chosen->share - SHARES;
    chosen->since = place_;
    set_times(*chosen);
    ++given_[chosen->number];
    return chosen->number;
}

std::vector<int64_t> Mixture::owed() const {
    std::vector<int64_t> now = owed_;
    for (const Source &source : active_) now[source.number] = source.owed + (place_ - source.since) * source.share;
    return now;
}

void Mixture::set_times(Source &source) const {
    source.ready = source.since - floor_division(source.owed - enough_, source.share);
    source.due = source.since - floor_division(source.owed - most_, source.share);
}

namespace {

using Amounts = std::vector<int64_t>;

py::tuple mixture_take(Amounts shares, Amounts given, Amounts owed, py::ssize_t count) {
    if (count < 0) throw py::value_error("count must not be negative");
    Mixture mixture(std::move(shares), std::move(given), std::move(owed));
    py::array_t<int32_t> sources(count);
    py::array_t<int64_t> samples(count);
    int32_t *source = sources.mutable_data();
    int64_t *sample = samples.mutable_data();
    {
        Unlocked unlocked;
        for (py::ssize_t i = 0; i < count; ++i) {
            const size_t number = mixture.next();
            source[i] = static_cast<int32_t>(number);
            sample[i] = mixture.given()[number] - 1;
        }
    }
    return py::make_tuple(sources, samples, mixture.given(), mixture.owed());
}

py::tuple mixture_advance(Amounts shares, Amounts given, Amounts owed, py::ssize_t count) {
    if (count < 0) throw py::value_error("count must not be negative");
    Mixture mixture(std::move(shares), std::move(given), std::move(owed));
    {
        Unlocked unlocked;
        for (py::ssize_t i = 0; i < count; ++i) mixture.next();
    }
    return py::make_tuple(mixture.given(), mixture.owed());
}

}  // namespace

void bind_mixture(py::module_ &module) {
    module.def("mixture_take", &mixture_take, py::arg("shares"), py::arg("given"), py::arg("owed"), py::arg("count"));
    module.def("mixture_advance", &mixture_advance, py::arg("shares"), py::arg("given"), py::arg("owed"),
               py::arg("count"));
}

}  // namespace fastload
