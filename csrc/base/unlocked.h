// Native code without Python's lock, also while Python ends.
//
// A thread that asks for the GIL while Python ends is ended by CPython (before 3.14) with pthread_exit, which unwinds
// its C++ frames and aborts the process where one of them must not throw. So once `begin_end` has been called, every
// other thread that enters or leaves native code sleeps there until the process is gone: what a daemon thread may do
// at exit, a loop over batches or an operator of a network, does not change the program's exit status.
#pragma once
#include <Python.h>

namespace fastload {

// Releases the GIL for a scope, as pybind11's gil_scoped_release does, which ignores that Python may be ending.
class Unlocked {
   public:
    Unlocked();
    ~Unlocked();
    Unlocked(const Unlocked &) = delete;
    Unlocked &operator=(const Unlocked &) = delete;

   private:
    PyThreadState *state_;
};

// What `function` returns, called without the GIL.
template <class Function>
auto without_gil(const Function &function) {
    Unlocked unlocked;
    return function();
}

// Python is about to end, on the calling thread. Waits until no other thread is on its way back to Python and then,
// for at most `seconds`, until those that have ever called native code sleep or have ended. Call it with the GIL.
void begin_end(double seconds);

// For a thread that must not go on, as Python ends. Call it with the GIL.
[[noreturn]] void sleep_for_ever();

// Once, as the module is loaded: a forked child starts with no thread counted and nothing ending.
void reset_in_forked_children();

}  // namespace fastload
