// Which source a place of a mixture takes from: the C++ twin of fastload/order/mixture.py, equal in every integer.
//
// In:  shares (they add up to SHARES), what each source has given and is owed, all as in the plain twin.
// Out: the source of the next place, again and again. Promise: with unchanged shares no source is ever a whole sample
//      away from share * places / SHARES, counted from a start at which nothing is owed.
//
// A source's first place at which it may be taken, and the one by which it is due, change only when it is taken itself;
// so a place costs one comparison a source and two divisions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fastload {

class Mixture {
   public:
    static constexpr int64_t SHARES = int64_t{1} * 65536 * 81 * 15625 * 49 * 11 * 13;
    static constexpr size_t MOST_SOURCES = 1024;
    static constexpr int64_t MOST_GIVEN = int64_t{1} << 62;

    // Throws std::invalid_argument for columns of different lengths, shares that are negative or do not add up to
    // SHARES, and amounts owed of more than two samples for every source there is.
    Mixture(std::vector<int64_t> shares, std::vector<int64_t> given, std::vector<int64_t> owed);

    // The source of the next place; its sample is `given()[source]` before the call.
    size_t next();

    const std::vector<int64_t> &given() const { return given_; }
    std::vector<int64_t> owed() const;  // after the last place that was taken

   private:
    struct Source {
        size_t number;
        int64_t share;
        int64_t owed;   // just behind the place `since`
        int64_t since;  // places since the start of this object
        int64_t ready;  // the first place at which it is owed enough
        int64_t due;    // the first place at which it must not wait longer
    };

    void set_times(Source &source) const;

    std::vector<Source> active_;  // those with a share, by number
    std::vector<int64_t> given_, owed_;
    int64_t enough_ = SHARES, most_ = SHARES;
    int64_t place_ = 0;
};

}  // namespace fastload
