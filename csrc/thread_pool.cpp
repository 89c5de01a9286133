#include "thread_pool.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>

namespace fastload {

int64_t now_nanoseconds() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

ThreadPool::ThreadPool(int threads) : owner_(getpid()) {
    // Signals belong to Python's main thread: a worker that took one would see its reads interrupted.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int i = 0; i < threads; i++) threads_.emplace_back([this] { serve(); });
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

bool ThreadPool::alive() const { return getpid() == owner_; }

ThreadPool::~ThreadPool() {
    if (!alive()) {
        for (std::thread &thread : threads_) thread.detach();
        return;
    }
    {
        std::lock_guard<std::mutex> lock(mutex_);
        stopping_ = true;
        for (auto &work : queue_) work->cancel();
    }
    ready_.notify_all();
    for (std::thread &thread : threads_) thread.join();
}

void ThreadPool::submit(std::shared_ptr<Work> work) {
    if (work->count() == 0) return work->finished();
    {
        std::lock_guard<std::mutex> lock(mutex_);
        queue_.push_back(std::move(work));
    }
    ready_.notify_all();
}

void ThreadPool::serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
        ready_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
        if (queue_.empty()) return;  // what was queued before the stop is finished first (cancelled parts are quick)
        std::shared_ptr<Work> work = queue_.front();
        size_t part = work->next_++;
        if (work->next_ == work->count_) queue_.pop_front();
        lock.unlock();
        int64_t begun = now_nanoseconds();
        if (!work->cancelled()) work->run(part);
        if (work->remaining_.fetch_sub(1) == 1) work->finished();
        busy_nanoseconds_ += now_nanoseconds() - begun;
        work.reset();
        lock.lock();
    }
}

void Completion::set() {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        done_.store(true, std::memory_order_release);
    }
    changed_.notify_all();
}

bool Completion::wait(double timeout_seconds) {
    if (done()) return true;
    std::unique_lock<std::mutex> lock(mutex_);
    return changed_.wait_for(lock, std::chrono::duration<double>(timeout_seconds), [this] { return done(); });
}

}  // namespace fastload
