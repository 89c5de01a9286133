// Worker threads of fastload's own, which never touch Python.
//
// In: work of `count` independent parts, in order of submission. Out: each part run once, then `finished`.
// Promises: parts are begun in order, those of urgent work before all that wait; destroying a pool cancels its work and
// waits for nothing, as a part may hang in a read for ever: its threads end when they have done what they are at; work
// that hangs can be left behind, with its threads, while others go on.
#pragma once
#include <signal.h>

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <list>
#include <memory>
#include <mutex>

#include "base/per_process.h"

namespace fastload {

class Work {
   public:
    explicit Work(size_t count) : count_(count), remaining_(count) {}
    virtual ~Work() = default;
    virtual void run(size_t part) noexcept = 0;
    virtual void finished() noexcept = 0;  // on the thread that ran the last part
    size_t count() const { return count_; }
    void cancel() { cancelled_ = true; }  // parts that have not begun are passed over; `finished` still comes
    bool cancelled() const { return cancelled_; }
    // Sleeps in the middle of a part; false, at once, where the work is cancelled meanwhile.
    bool pause(int64_t nanoseconds) const;

   private:
    friend class ThreadPool;
    const size_t count_;
    size_t next_ = 0;  // under the pool's mutex
    std::atomic<size_t> remaining_;
    std::atomic<bool> cancelled_{false};
};

class ThreadPool {
   public:
    // name: of the threads, as the system shows them; at most 15 letters, a literal. Throws std::system_error where it
    // gives no more threads.
    ThreadPool(int threads, const char *name);
    ~ThreadPool();

    // Throws std::bad_alloc; and std::system_error where no thread is left, and the system gives none.
    void submit(std::shared_ptr<Work> work, bool urgent = false);
    // Cancels work that hangs. The threads that are at it end with it, whenever that is, and others take their place.
    // Where the system gives no more threads, `submit` tries again, and who is done with what hung takes a free place.
    void leave_behind(const std::shared_ptr<Work> &work);
    int threads() const { return threads_; }
    bool alive() const { return fork_count() == owner_; }  // false in a forked child

   private:
    struct Thread {
        std::shared_ptr<Work> serving;  // or nullptr
        bool left_behind = false;       // it ends when it has done its part
    };
    // Shared with the threads, which outlive the pool. In a forked child their shares are never given back, so that
    // nothing is destroyed there on which a thread of the parent waits.
    struct State {
        std::mutex mutex;
        std::condition_variable ready;
        std::deque<std::shared_ptr<Work>> queue;
        std::list<Thread> threads;
        size_t missing = 0;  // threads that were left behind, and have no successor
        bool stopping = false;
    };
    static void serve(const std::shared_ptr<State> &state, std::list<Thread>::iterator self);
    void start(size_t count);
    std::exception_ptr start_missing();
    void stop();

    const int threads_;
    const char *const name_;
    const std::shared_ptr<State> state_;
    const uint64_t owner_;
};

// What a batch of work is waited for with: set once, by the thread that finishes it.
class Completion {
   public:
    void set();
    bool done() const { return done_.load(std::memory_order_acquire); }
    bool wait(double timeout_seconds);  // false where the time ran out

   private:
    struct State {
        std::mutex mutex;
        std::condition_variable changed;
    };
    PerProcess<State> state_;
    std::atomic<bool> done_{false};
};

int64_t now_nanoseconds();

// Signals belong to Python's main thread: a worker that took one would see its reads interrupted. Threads that are made
// within a scope of this inherit it.
class SignalsBlocked {
   public:
    SignalsBlocked();
    ~SignalsBlocked();
    SignalsBlocked(const SignalsBlocked &) = delete;
    SignalsBlocked &operator=(const SignalsBlocked &) = delete;

   private:
    sigset_t before_;
};

void name_this_thread(const char *name);  // as the system shows it; at most 15 letters

// Throws std::system_error where there is no memory for a thread and what it takes as it begins: a thread that finds
// too little then ends the process, in glibc, or hangs the one that started it, in CPython.
void check_room_for_thread();

// Throws std::system_error where the system does not give so many threads at once: for libraries that abort then. Those
// that it makes have ended when it returns.
void check_threads(size_t count);

// Takes the memory that a thread needs once, and without which glibc ends the process. To be called as it begins.
void prepare_thread();

}  // namespace fastload
