#include "ops/image_threads.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <new>
#include <stdexcept>
#include <string>

namespace fastload {
namespace {

class ImageWork : public Work {
   public:
    ImageWork(size_t helpers, size_t images, std::function<void(size_t, size_t)> work)
        : Work(helpers), images_(images), work_(std::move(work)) {}

    void run(size_t worker) noexcept override {
        for (size_t i = next_image_++; i < images_; i = next_image_++) {
            try {
                work_(i, worker);
            } catch (const std::exception &) {  // nothing else is thrown on the way
                out_of_memory_ = true;
            }
        }
    }
    void finished() noexcept override { completion_.set(); }
    bool out_of_memory() const { return out_of_memory_; }

   private:
    const size_t images_;
    const std::function<void(size_t, size_t)> work_;
    std::atomic<size_t> next_image_{0};
    std::atomic<bool> out_of_memory_{false};
};

}  // namespace

ImageThreads::ImageThreads(int threads) : threads_(threads) {
    if (threads < 1) throw std::invalid_argument("threads must be at least 1, got " + std::to_string(threads));
    if (threads > 1) pool_ = std::make_unique<ThreadPool>(threads - 1, "fastload-ops");
}

void ImageThreads::check() const {
    if (pool_ && !pool_->alive())
        throw std::invalid_argument("these threads belong to another process: make new ones after a fork");
}

size_t ImageThreads::workers(size_t images) const {
    return std::max(std::min(static_cast<size_t>(threads_), images), size_t{1});
}

void ImageThreads::run(size_t images, std::function<void(size_t, size_t)> work) const {
    size_t helpers = workers(images) - 1;
    auto shared = std::make_shared<ImageWork>(helpers, images, std::move(work));
    if (helpers) pool_->submit(shared);
    shared->run(helpers);
    while (helpers && !shared->wait(1.0)) {
    }
    if (shared->out_of_memory()) throw std::bad_alloc();
}

}  // namespace fastload
