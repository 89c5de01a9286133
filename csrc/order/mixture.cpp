#include "order/mixture.h"

#include <stdexcept>
#include <string>
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
    if (shares.empty() || shares.size() > MAX_SOURCES || shares.size() != given_.size() ||
        shares.size() != owed_.size()) {
        throw std::invalid_argument("a mixture needs 1 to 1024 shares, and given and owed of the same length");
    }
    const int64_t limit = 2 * static_cast<int64_t>(shares.size()) * SHARES;
    int64_t total = 0;
    for (size_t number = 0; number < shares.size(); ++number) {
        const int64_t amount = owed_[number];
        if (shares[number] < 0 || shares[number] > SHARES - total || given_[number] < 0 || given_[number] > MAX_GIVEN ||
            amount > limit || amount < -limit) {
            throw std::invalid_argument("a mixture's shares, given or owed are out of range");
        }
        total += shares[number];
        if (shares[number] > 0) active_.push_back({number, shares[number], amount, 0, 0, 0});
    }
    if (total != SHARES) throw std::invalid_argument("a mixture's shares must add up to " + std::to_string(SHARES));
    if (active_.size() > 1) {
        const int64_t parts = 2 * static_cast<int64_t>(active_.size()) - 2;
        ready_from_ = (SHARES + parts - 1) / parts;
        due_from_ = SHARES - SHARES / parts;
    }
    for (Source &source : active_) set_times(source);
}

size_t Mixture::next() {
    ++taken_;
    Source *chosen = nullptr;
    for (Source &source : active_) {
        if (source.ready <= taken_ && (chosen == nullptr || source.due < chosen->due)) chosen = &source;
    }
    if (chosen == nullptr) {  // only after a change of weights, if sources with weight 0 are owed samples
        for (Source &source : active_) {
            if (chosen == nullptr || source.due < chosen->due) chosen = &source;
        }
    }
    chosen->owed += (taken_ - chosen->since) * chosen->share - SHARES;
    chosen->since = taken_;
    set_times(*chosen);
    ++given_[chosen->number];
    return chosen->number;
}

std::vector<int64_t> Mixture::owed() const {
    std::vector<int64_t> now = owed_;
    for (const Source &source : active_) now[source.number] = source.owed + (taken_ - source.since) * source.share;
    return now;
}

void Mixture::set_times(Source &source) const {
    source.ready = source.since - floor_division(source.owed - ready_from_, source.share);
    source.due = source.since - floor_division(source.owed - due_from_, source.share);
}

}  // namespace fastload
