#include "buffer_pool.h"

#include <pybind11/pybind11.h>
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
    // Huge pages need an aligned start: one more is mapped and the ends that stick out are given back.
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
    (void)madvise(start, capacity, MADV_HUGEPAGE);  // a wish: without it the pages are small, and all else holds
#endif
    return start;
}

}  // namespace

Buffer::~Buffer() { pool_->give_back(bytes_, capacity_); }

BufferPool::~BufferPool() { trim(); }

void BufferPool::trim() {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const Idle &idle : idle_) munmap(idle.bytes, idle.capacity);
    idle_.clear();
    idle_bytes_ = 0;
}

std::shared_ptr<Buffer> BufferPool::acquire(size_t size) {
    size_t capacity = rounded_capacity(size);
    uint8_t *bytes = nullptr;
    {
        std::lock_guard<std::mutex> lock(mutex_);
        size_t best = idle_.size();
        for (size_t i = 0; i < idle_.size(); i++)
            if (idle_[i].capacity >= capacity && idle_[i].capacity / 2 <= capacity && (best == idle_.size() || idle_[i].capacity < idle_[best].capacity))
                best = i;
        if (best < idle_.size()) {
            bytes = idle_[best].bytes;
            capacity = idle_[best].capacity;
            idle_[best] = idle_.back();
            idle_.pop_back();
            idle_bytes_ -= capacity;
            reused_++;
        }
    }
    if (!bytes) {
        bytes = map_pages(capacity);
        allocated_++;
    }
    used_bytes_ += capacity;
    return std::make_shared<Buffer>(shared_from_this(), bytes, capacity);
}

void BufferPool::give_back(uint8_t *bytes, size_t capacity) {
    used_bytes_ -= capacity;
    std::lock_guard<std::mutex> lock(mutex_);
    // Room is made by letting the oldest go: the sizes that are asked for now are the ones to keep.
    while (!idle_.empty() && idle_bytes_ + capacity > max_idle_bytes_) {
        munmap(idle_.front().bytes, idle_.front().capacity);
        idle_bytes_ -= idle_.front().capacity;
        idle_.erase(idle_.begin());
    }
    if (capacity > max_idle_bytes_) {
        munmap(bytes, capacity);
        return;
    }
    idle_.push_back({bytes, capacity});
    idle_bytes_ += capacity;
}

void bind_buffer_pool(pybind11::module_ &module) {
    namespace py = pybind11;
    py::class_<Buffer, std::shared_ptr<Buffer>>(module, "Buffer", py::buffer_protocol(), "Memory of a BufferPool, writable bytes.")
        .def_buffer([](Buffer &buffer) {
            return py::buffer_info(buffer.bytes(), 1, py::format_descriptor<uint8_t>::format(), 1, {buffer.capacity()}, {size_t{1}});
        })
        .def_property_readonly("address", [](const Buffer &buffer) { return reinterpret_cast<uintptr_t>(buffer.bytes()); })
        .def_property_readonly("capacity", &Buffer::capacity);
    py::class_<BufferPool, std::shared_ptr<BufferPool>>(module, "BufferPool")
        .def(py::init([](size_t max_idle_bytes) { return std::make_shared<BufferPool>(max_idle_bytes); }), py::arg("max_idle_bytes"))
        .def("acquire", &BufferPool::acquire, py::arg("size"))
        .def("trim", &BufferPool::trim)
        .def_property_readonly("idle_bytes", &BufferPool::idle_bytes)
        .def_property_readonly("used_bytes", &BufferPool::used_bytes)
        .def_property_readonly("reused", &BufferPool::reused)
        .def_property_readonly("allocated", &BufferPool::allocated);
}

}  // namespace fastload
