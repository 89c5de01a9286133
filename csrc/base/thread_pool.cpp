#include "base/thread_pool.h"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

namespace fastload {

int64_t now_nanoseconds() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

void name_this_thread(const char *name) {
    // Only for display: a failure changes nothing.
#ifdef __APPLE__
    (void)pthread_setname_np(name);
#else
    (void)pthread_setname_np(pthread_self(), name);
#endif
}

SignalsBlocked::SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
}

SignalsBlocked::~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

ThreadPool::ThreadPool(int threads, const char *name)
    : threads_(threads), name_(name), state_(std::make_shared<State>()), owner_(fork_count()) {
    try {
        start(static_cast<size_t>(threads));
    } catch (...) {
        stop();
        throw;
    }
}

ThreadPool::~ThreadPool() {
    if (alive()) stop();
}

void ThreadPool::start(size_t count) {
    SignalsBlocked blocked;
    for (size_t i = 0; i < count; i++) {
        check_room_for_thread();
        std::unique_lock<std::mutex> lock(state_->mutex);
        auto self = state_->threads.emplace(state_->threads.end());
        lock.unlock();
        try {
            std::thread([state = state_, self, name = name_] {
                name_this_thread(name);
                serve(state, self);
            }).detach();
        } catch (...) {
            lock.lock();
            state_->threads.erase(self);
            throw;
        }
    }
}

void ThreadPool::stop() {
    {
        std::lock_guard<std::mutex> lock(state_->mutex);
        state_->stopping = true;
        for (auto &work : state_->queue) work->cancel();
        for (Thread &thread : state_->threads)
            if (thread.serving) thread.serving->cancel();
    }
    state_->ready.notify_all();
}

void ThreadPool::submit(std::shared_ptr<Work> work, bool urgent) {
    if (work->count() == 0) return work->finished();
    std::exception_ptr failure = start_missing();
    {
        std::lock_guard<std::mutex> lock(state_->mutex);
        if (failure && state_->missing >= static_cast<size_t>(threads_)) std::rethrow_exception(failure);
        if (urgent)
            state_->queue.push_front(std::move(work));
        else
            state_->queue.push_back(std::move(work));
    }
    state_->ready.notify_all();
}

void ThreadPool::leave_behind(const std::shared_ptr<Work> &work) {
    work->cancel();
    {
        std::lock_guard<std::mutex> lock(state_->mutex);
        for (Thread &thread : state_->threads) {
            if (thread.serving != work || thread.left_behind) continue;
            thread.left_behind = true;
            state_->missing++;
        }
    }
    (void)start_missing();  // `submit` tries again, and throws if that fails
}

// Why some are still missing, or nullptr.
std::exception_ptr ThreadPool::start_missing() {
    for (;;) {
        {
            std::lock_guard<std::mutex> lock(state_->mutex);
            if (state_->missing == 0) return nullptr;
            state_->missing--;
        }
        try {
            start(1);
        } catch (...) {
            std::lock_guard<std::mutex> lock(state_->mutex);
            state_->missing++;
            return std::current_exception();
        }
    }
}

void ThreadPool::serve(const std::shared_ptr<State> &shared, std::list<Thread>::iterator self) {
    prepare_thread();
    State &state = *shared;
    std::unique_lock<std::mutex> lock(state.mutex);
    for (;;) {
        if (self->left_behind && state.missing > 0) {
            self->left_behind = false;
            state.missing--;
        }
        state.ready.wait(lock, [&] { return state.stopping || self->left_behind || !state.queue.empty(); });
        // What was queued before the stop is finished first (cancelled parts are quick).
        if (state.queue.empty() || self->left_behind) break;
        std::shared_ptr<Work> &work = self->serving;
        work = state.queue.front();
        size_t part = work->next_++;
        if (work->next_ == work->count_) state.queue.pop_front();
        lock.unlock();
        if (!work->cancelled()) work->run(part);
        if (work->remaining_.fetch_sub(1) == 1) work->finished();
        std::shared_ptr<Work> done;
        lock.lock();
        done.swap(work);
        lock.unlock();
        done.reset();  // destroying what it holds may take long
        lock.lock();
    }
    state.threads.erase(self);
}

void check_room_for_thread() {
    constexpr size_t SPARE_BYTES = size_t{4} << 20;
    size_t stack_bytes = 0;
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) == 0) {
        (void)pthread_attr_getstacksize(&attributes, &stack_bytes);
        pthread_attr_destroy(&attributes);
    }
    size_t bytes = stack_bytes + SPARE_BYTES;
    void *room = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (room == MAP_FAILED) throw std::system_error(ENOMEM, std::generic_category());
    munmap(room, bytes);
}

void check_threads(size_t count) {
    SignalsBlocked blocked;
    struct Threads {
        ~Threads() {
            all_there.set();
            for (std::thread &thread : started) thread.join();
        }
        Completion all_there;
        std::vector<std::thread> started;
    } threads;
    threads.started.reserve(count);
    for (size_t i = 0; i < count; i++) {
        check_room_for_thread();
        threads.started.emplace_back([&] {
            while (!threads.all_there.wait(1.0)) {
            }
        });
    }
}

void prepare_thread() {
    // Its exceptions' bookkeeping.
    volatile int bookkeeping = std::uncaught_exceptions();  // volatile: it is declared to have no effects
    (void)bookkeeping;
}

bool Work::pause(int64_t nanoseconds) const {
    // Polled: a condition variable would have to survive forks, and 5 ms do not matter here.
    constexpr int64_t LOOK_NANOSECONDS = 5'000'000;
    for (int64_t stop = now_nanoseconds() + nanoseconds; !cancelled();) {
        int64_t left = stop - now_nanoseconds();
        if (left <= 0) return true;
        std::this_thread::sleep_for(std::chrono::nanoseconds(std::min(left, LOOK_NANOSECONDS)));
    }
    return false;
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
