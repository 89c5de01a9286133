#include "base/unlocked.h"

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <new>
#include <thread>

#include "base/process.h"

namespace fastload {
namespace {

std::atomic<bool> is_ending{false};
std::thread::id ending_thread;           // set before `is_ending`
std::atomic<int> returning{0};           // threads that ask for the GIL, and saw before that nothing was ending
std::atomic<int> callers{0}, asleep{0};  // threads that have called native code, and those of them that sleep

// Whether the calling thread is counted. Not thread_local: its first use in a thread allocates, and ends the process if
// there is no memory.
class Caller {
   public:
    Caller() {
        if (pthread_key_create(&key_, [](void *process) {
                if (process == this_process()) callers--;
            }) != 0)
            throw std::bad_alloc();
    }
    void count() {
        // Without memory for it a thread is not counted, and the end does not wait for it.
        if (!counted() && pthread_setspecific(key_, this_process()) == 0) callers++;
    }
    bool counted() const { return pthread_getspecific(key_) == this_process(); }

   private:
    static void *this_process() { return reinterpret_cast<void *>(static_cast<uintptr_t>(fork_count() + 1)); }
    pthread_key_t key_;
};
Caller caller;

bool must_sleep() { return is_ending && std::this_thread::get_id() != ending_thread; }

[[noreturn]] void sleep_unlocked() {
    if (caller.counted()) asleep++;
    for (;;) pause();
}

template <class Condition>
void wait_until(double seconds, Condition holds) {
    auto stop = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
    while (!holds() && std::chrono::steady_clock::now() < stop)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

}  // namespace

Unlocked::Unlocked() : state_(PyEval_SaveThread()) {
    caller.count();
    if (must_sleep()) sleep_unlocked();
}

Unlocked::~Unlocked() {
    // In this order: either `begin_end` sees this thread return, and waits for it, or this thread sees the end.
    returning++;
    if (must_sleep()) {
        returning--;
        sleep_unlocked();
    }
    PyEval_RestoreThread(state_);
    returning--;
}

void begin_end(double seconds) {
    if (is_ending) return;
    constexpr double GIL_SECONDS = 5.0;  // whoever holds the GIL for longer blocks this thread, too
    ending_thread = std::this_thread::get_id();
    is_ending = true;
    const int own = caller.counted() ? 1 : 0;
    PyThreadState *state = PyEval_SaveThread();
    wait_until(GIL_SECONDS, [] { return returning == 0; });
    wait_until(seconds, [own] { return callers - own <= asleep; });
    PyEval_RestoreThread(state);
}

void sleep_for_ever() {
    caller.count();
    PyEval_SaveThread();
    sleep_unlocked();
}

void reset_in_forked_children() {
    call_in_forked_child([] {  // which has one thread, counted at its next call
        is_ending = false;
        returning = callers = asleep = 0;
    });
}

}  // namespace fastload
