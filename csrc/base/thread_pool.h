// Native worker threads, which never touch Python.
//
// In: work of `count` independent parts, in order of submission. Out: each part run once, then `finished`.
// Promises: parts begin in order, urgent work before everything in the queue; destroying a pool cancels its work
// without waiting, as a part may hang in a read for ever: its threads end after their current part; work that hangs can
// be left behind with its threads, while new threads go on.
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

// An event: set once, by the thread that finishes the work.
class Completion {
   public:
    void set();
    bool done() const { return done_.load(std::memory_order_acquire); }
    bool wait(double timeout_seconds);  // false on timeout

   private:
    struct State {
        std::mutex mutex;
        std::condition_variable changed;
    };
    PerProcess<State> state_;
    std::atomic<bool> done_{false};
};

class Work {
   public:
    explicit Work(size_t count) : count_(count), remaining_(count) {}
    virtual ~Work() = default;
    virtual void run(size_t part) noexcept = 0;
    virtual void finished() noexcept = 0;  // on the thread that ran the last part
    size_t count() const { return count_; }
    void cancel() { cancelled_ = true; }  // skips parts that have not begun; `finished` is still called
    bool cancelled() const { return cancelled_; }
    bool wait(double timeout_seconds) { return completion_.wait(timeout_seconds); }  // false on timeout
    double busy_seconds() const { return static_cast<double>(busy_nanoseconds_.load()) * 1e-9; }

   protected:
    // Sleeps in the middle of a part; returns false as soon as the work is cancelled.
    bool pause(int64_t nanoseconds) const;

    Completion completion_;  // set by `finished`
    std::atomic<int64_t> busy_nanoseconds_{0};

   private:
    friend class ThreadPool;
    const size_t count_;
    size_t next_ = 0;  // under the pool's mutex
    std::atomic<size_t> remaining_;
    std::atomic<bool> cancelled_{false};
};

class ThreadPool {
   public:
    // name: of the threads, a literal of at most 15 letters. Throws std::system_error if the system gives no more
    // threads.
    ThreadPool(int threads, const char *name);
    ~ThreadPool();

    // Throws std::bad_alloc; std::system_error if no thread is left and the system gives none.
    void submit(std::shared_ptr<Work> work, bool urgent = false);
    // Cancels work that hangs. Its threads end after their current part, and new threads replace them. If the system
    // gives no more threads, `submit` tries again, and a thread whose part returns after all goes on serving.
    void leave_behind(const std::shared_ptr<Work> &work);
    int threads() const { return threads_; }
    bool alive() const { return fork_count() == owner_; }  // false in a forked child

   private:
    struct Thread {
        std::shared_ptr<Work> serving;  // or nullptr
        bool left_behind = false;       // it ends after its current part
    };
    // Shared with the threads, which outlive the pool. In a forked child their shares are never given back, so that
    // nothing is destroyed there on which a thread of the parent waits.
    struct State {
        std::mutex mutex;
        std::condition_variable ready;
        std::deque<std::shared_ptr<Work>> queue;
        std::list<Thread> threads;
        size_t missing = 0;  // threads that were left behind and not yet replaced
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

int64_t now_nanoseconds();

// Signals belong to Python's main thread: in a worker they would interrupt reads. Threads that are created within the
// scope inherit the mask.
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

// Throws std::system_error if there is no memory for a thread and what it allocates as it begins: without it glibc ends
// the process, and CPython hangs the thread that started it.
void check_room_for_thread();

// Throws std::system_error if the system does not give so many threads at once: for libraries that abort then. The
// threads have ended when it returns.
void check_threads(size_t count);

// Allocates what a thread needs once, and without which glibc ends the process. To be called as it begins.
void prepare_thread();

}  // namespace fastload
