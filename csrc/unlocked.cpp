#include "unlocked.h"

#include <pybind11/pybind11.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "process.h"

namespace fastload {
namespace {

std::atomic<bool> is_ending{false};
std::thread::id ending_thread;           // set before `is_ending`
std::atomic<int> returning{0};           // threads that ask for the GIL, and saw before that nothing was ending
std::atomic<int> callers{0}, asleep{0};  // threads that have called native code, and those of them that sleep

// The child of a fork has one thread, which is counted when it calls next.
void begin_anew() {
    is_ending = false;
    returning = callers = asleep = 0;
}

class Caller {
   public:
    void count() {
        if (process_ == fork_count()) return;
        process_ = fork_count();
        callers++;
    }
    bool counted() const { return process_ == fork_count(); }
    ~Caller() {
        if (counted()) callers--;
    }

   private:
    static constexpr uint64_t NONE = ~uint64_t{0};
    uint64_t process_ = NONE;
};
thread_local Caller caller;

bool must_sleep() { return is_ending && std::this_thread::get_id() != ending_thread; }

[[noreturn]] void sleep_unlocked() {
    asleep++;
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
    constexpr double GIL_SECONDS = 5.0;  // who keeps the GIL for longer keeps it from this thread, too
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

void bind_process(pybind11::module_ &module) {
    namespace py = pybind11;
    call_in_forked_child(begin_anew);
    module.def("fork_count", &fork_count, "How many forks lie between the process that loaded this module and this one.");
    module.def("sleep_for_ever", [] { sleep_for_ever(); }, "For a thread that must not go on, as Python ends.");
    // Handlers run in reverse order, so that whatever is registered after this module was loaded still works.
    constexpr double SECONDS = 0.25;
    py::module_::import("atexit").attr("register")(py::cpp_function([] { begin_end(SECONDS); }));
}

}  // namespace fastload
