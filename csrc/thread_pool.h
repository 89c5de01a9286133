// Worker threads of fastload's own, which never touch Python.
//
// In: work of `count` independent parts, in order of submission. Out: each part run once, then `finished`.
// Promises: parts are begun in order, those of urgent work before all that wait; a pool joins its threads when it is
// destroyed (in a forked child, where those threads do not exist, it forgets them).
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "per_process.h"

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
    // name: of the threads, as the system shows them; at most 15 letters. Throws std::system_error where it gives no
    // more threads.
    ThreadPool(int threads, const char *name);
    ~ThreadPool();

    void submit(std::shared_ptr<Work> work, bool urgent = false);
    int threads() const { return static_cast<int>(state_->threads.size()); }
    bool alive() const { return state_.is_ours(); }  // false in a forked child

   private:
    struct State {
        std::mutex mutex;
        std::condition_variable ready;
        std::deque<std::shared_ptr<Work>> queue;
        std::vector<std::shared_ptr<Work>> serving;  // by each thread, or nullptr
        bool stopping = false;
        std::vector<std::thread> threads;
    };
    static void serve(State &state, size_t thread);
    void stop();

    PerProcess<State> state_;
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

}  // namespace fastload
