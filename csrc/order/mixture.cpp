#include "order/mixture.h"

#include <stdexcept>
#include <utility>

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

}  // namespace fastload
