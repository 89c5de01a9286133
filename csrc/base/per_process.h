// What only the process that made it may destroy.
//
// A forked child has a copy of everything but the threads: a mutex may be locked by a thread that does not exist
// there, and destroying a condition variable on which such a thread waits never returns. The child leaves it where it
// is; its pages are shared with the parent until either writes to them.
#pragma once
#include "base/process.h"

namespace fastload {

template <class State>
class PerProcess {
   public:
    PerProcess() : state_(new State), owner_(fork_count()) {}
    ~PerProcess() {
        if (is_ours()) delete state_;
    }
    PerProcess(const PerProcess &) = delete;
    PerProcess &operator=(const PerProcess &) = delete;
    bool is_ours() const { return fork_count() == owner_; }  // false in a forked child
    State *operator->() const { return state_; }

   private:
    State *const state_;
    const uint64_t owner_;
};

}  // namespace fastload
