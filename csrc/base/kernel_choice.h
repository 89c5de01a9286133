// Which of several tables of kernels is in use: the widest instruction set that this machine runs, unless a test or a
// benchmark forced another. Not for files that are compiled for wide instruction sets (see pixel_kernels.h).
#pragma once
#include <atomic>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace fastload {

#if defined(__x86_64__)
// Whether this machine runs what setup.py's AVX512 flags make.
inline bool has_avx512() {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

inline bool has_avx2() {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#endif

// Kernels: a table with a `name`.
template <class Kernels>
class KernelChoice {
   public:
    // widest_first: all tables of this build, and whether they run here; the last runs everywhere.
    explicit KernelChoice(std::initializer_list<std::pair<const Kernels *, bool>> widest_first) {
        for (const auto &[kernels, runs_here] : widest_first)
            if (runs_here) runnable_.push_back(kernels);
        in_use_ = runnable_.front();
    }

    const Kernels &in_use() const { return *in_use_.load(); }

    // The empty name chooses the widest. Throws std::invalid_argument for an unknown name or a set that cannot run
    // here.
    void use(const std::string &name) {
        for (const Kernels *kernels : runnable_)
            if (name.empty() || name == kernels->name) {
                in_use_ = kernels;
                return;
            }
        throw std::invalid_argument("no such instruction set on this machine: '" + name + "'");
    }

   private:
    std::vector<const Kernels *> runnable_;
    std::atomic<const Kernels *> in_use_;
};

}  // namespace fastload
