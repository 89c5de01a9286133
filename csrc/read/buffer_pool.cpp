#include "read/buffer_pool.h"

#include <sys/mman.h>

#include <limits>
#include <new>

namespace fastload {
namespace {

constexpr size_t HUGE_PAGE_BYTES = size_t{2} << 20;
constexpr size_t PAGE_BYTES = 4096;

size_t rounded_capacity(size_t size) {
    size_t page = size >= HUGE_PAGE_BYTES ? HUGE_PAGE_BYTES : PAGE_BYTES;
    if (size > std::numeric_limits<size_t>::max() - page) throw std::bad_alloc();
    return size == 0 ? PAGE_BYTES : (size + page - 1) / page * page;
}

uint8_t *map_pages(size_t capacity) {
    // Huge pages need an aligned start: maps one page more, and unmaps what sticks out at both ends.
    size_t extra = capacity >= HUGE_PAGE_BYTES ? HUGE_PAGE_BYTES : 0;
    void *mapped = mmap(nullptr, capacity + extra, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) throw std::bad_alloc();
    uint8_t *start = static_cast<uint8_t *>(mapped);
    if (!extra) return start;
    size_t before = (HUGE_PAGE_BYTES - reinterpret_cast<uintptr_t>(start) % HUGE_PAGE_BYTES) % HUGE_PAGE_BYTES;
    if (before) munmap(start, before);
    if (extra - before) munmap(start + before + capacity, extra - before);
    start += before;
#ifdef MADV_HUGEPAGE
    (void)madvise(start, capacity, MADV_HUGEPAGE);  // a hint: without it the pages are small
#endif
    return start;
}

}  // namespace

Buffer::~Buffer() { pool_->give_back(bytes_, capacity_); }

BufferPool::~BufferPool() { trim(); }

void BufferPool::trim() {
    if (!state_.is_ours()) return;
    std::lock_guard<std::mutex> lock(state_->mutex);
    for (const Idle &idle : state_->idle) munmap(idle.bytes, idle.capacity);
    state_->idle.clear();
    state_->keeps = false;
    idle_bytes_ = 0;
}

std::shared_ptr<Buffer> BufferPool::acquire(size_t size) {
    size_t capacity = rounded_capacity(size);
    uint8_t *bytes = state_.is_ours() ? take_idle(&capacity) : nullptr;
    if (!bytes) {
        bytes = map_pages(capacity);
        allocated_++;
    }
    used_bytes_ += capacity;
    try {
        return std::make_shared<Buffer>(shared_from_this(), bytes, capacity);
    } catch (...) {
        give_back(bytes, capacity);
        throw;
    }
}

// An idle buffer of at least this capacity and at most twice it, or nullptr after making room for a new one.
uint8_t *BufferPool::take_idle(size_t *capacity) {
    std::lock_guard<std::mutex> lock(state_->mutex);
    state_->keeps = true;
    auto best = state_->idle.end();
    for (auto idle = state_->idle.begin(); idle != state_->idle.end(); ++idle) {
        bool fits = idle->capacity >= *capacity && idle->capacity / 2 <= *capacity;
        if (fits && (best == state_->idle.end() || idle->capacity < best->capacity)) best = idle;
    }
    if (best == state_->idle.end()) {
        make_room(*capacity);
        return nullptr;
    }
    uint8_t *bytes = best->bytes;
    *capacity = best->capacity;
    state_->idle.erase(best);
    idle_bytes_ -= *capacity;
    reused_++;
    return bytes;
}

// Called by destructors.
void BufferPool::give_back(uint8_t *bytes, size_t capacity) noexcept {
    used_bytes_ -= capacity;
    if (state_.is_ours()) {
        std::lock_guard<std::mutex> lock(state_->mutex);
        if (state_->keeps && used_bytes_ + capacity <= max_bytes_) {
            make_room(capacity);
            try {
                state_->idle.push_back({bytes, capacity});
                idle_bytes_ += capacity;
                return;
            } catch (const std::bad_alloc &) {  // no memory for its entry: unmapping helps more
            }
        }
    }
    munmap(bytes, capacity);
}

// Unmaps the oldest idle memory until `capacity` more fits, or none is left; the mutex is held.
void BufferPool::make_room(size_t capacity) {
    while (!state_->idle.empty() && used_bytes_ + idle_bytes_ + capacity > max_bytes_) {
        const Idle &oldest = state_->idle.front();
        munmap(oldest.bytes, oldest.capacity);
        idle_bytes_ -= oldest.capacity;
        state_->idle.pop_front();
    }
}

}  // namespace fastload
