// Which source the next sample comes from: the C++ twin of fastload/order/mixture.py, equal in every integer.
//
// In:  shares (they add up to SHARES), what each source has given and is owed, all as in the Python twin.
// Out: the source of the next sample, again and again. Promise: with unchanged shares no source is ever a whole sample
//      away from share * taken / SHARES, counted from a start at which nothing is owed.
//
// When a source is first ready and when it is due change only as it is taken, so a sample costs a comparison for each
// source and two divisions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fastload {

class Mixture {
   public:
    static constexpr int64_t SHARES = int64_t{1} * 65536 * 81 * 15625 * 49 * 11 * 13;
    static constexpr size_t MAX_SOURCES = 1024;
    static constexpr int64_t MAX_GIVEN = int64_t{1} << 62;

    // Throws std::invalid_argument for different lengths, shares that are negative or do not add up to SHARES, and
    // sources that are owed more than two samples for every source.
    Mixture(std::vector<int64_t> shares, std::vector<int64_t> given, std::vector<int64_t> owed);

    // The source of the next sample; its index in the source is `given()[source]` before the call.
    size_t next();

    const std::vector<int64_t> &given() const { return given_; }
    std::vector<int64_t> owed() const;  // after the last sample

   private:
    struct Source {
        size_t number;
        int64_t share;
        int64_t owed;   // after sample number `since`
        int64_t since;  // samples taken by then
        int64_t ready;  // from this sample on it may be taken
        int64_t due;    // it must be taken by this sample
    };

    void set_times(Source &source) const;

    std::vector<Source> active_;  // those with a share, by number
    std::vector<int64_t> given_, owed_;
    int64_t ready_from_ = SHARES, due_from_ = SHARES;
    int64_t taken_ = 0;
};

}  // namespace fastload
