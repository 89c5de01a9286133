#include "base/process.h"

#include <pthread.h>

#include <atomic>
#include <new>

namespace fastload {
namespace {

std::atomic<uint64_t> forks{0};
// Registered as the library is loaded, so before anything that could ask. Handlers of children run in this order.
const int counts_forks = pthread_atfork(nullptr, nullptr, [] { forks++; });

}  // namespace

uint64_t fork_count() noexcept { return forks; }

void call_in_forked_child(void (*function)()) {
    if (counts_forks != 0 || pthread_atfork(nullptr, nullptr, function) != 0) throw std::bad_alloc();
}

}  // namespace fastload
