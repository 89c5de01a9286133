#include "thread_pool.h"

#include <pthread.h>
#include <signal.h>

#include <chrono>

namespace fastload {

int64_t now_nanoseconds() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

ThreadPool::ThreadPool(int threads) {
    // Signals belong to Python's main thread: a worker that took one would see its reads interrupted.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
        for (int i = 0; i < threads; i++)
            state_->threads.emplace_back([state = state_.operator->()] { serve(*state); });
    } catch (...) {
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        stop();
        throw;
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

ThreadPool::~ThreadPool() {
    if (alive()) stop();
}

void ThreadPool::stop() {
    {
        std::lock_guard<std::mutex> lock(state_->mutex);
        state_->stopping = true;
        for (auto &work : state_->queue) work->cancel();
    }
    state_->ready.notify_all();
    for (std::thread &thread : state_->threads) thread.join();
}

void ThreadPool::submit(std::shared_ptr<Work> work, bool urgent) {
    if (work->count() == 0) return work->finished();
    {
        std::lock_guard<std::mutex> lock(state_->mutex);
        if (urgent)
            state_->queue.push_front(std::move(work));
        else
            state_->queue.push_back(std::move(work));
    }
    state_->ready.notify_all();
}

void ThreadPool::serve(State &state) {
    std::unique_lock<std::mutex> lock(state.mutex);
    for (;;) {
        state.ready.wait(lock, [&state] { return state.stopping || !state.queue.empty(); });
        if (state.queue.empty())
            return;  // what was queued before the stop is finished first (cancelled parts are quick)
        std::shared_ptr<Work> work = state.queue.front();
        size_t part = work->next_++;
        if (work->next_ == work->count_) state.queue.pop_front();
        lock.unlock();
        if (!work->cancelled()) work->run(part);
        if (work->remaining_.fetch_sub(1) == 1) work->finished();
        work.reset();
        lock.lock();
    }
}

void Completion::set() {
    {
        std::lock_guard<std::mutex> lock(state_->mutex);
        done_.store(true, std::memory_order_release);
    }
    state_->changed.notify_all();
}

bool Completion::wait(double timeout_seconds) {
    if (done()) return true;
    std::unique_lock<std::mutex> lock(state_->mutex);
    return state_->changed.wait_for(lock, std::chrono::duration<double>(timeout_seconds), [this] { return done(); });
}

}  // namespace fastload
