// The threads that work on the images of a batch in memory: the calling one, and helpers of fastload's own.
//
// In: a number of images, and what is to be done with each. Out: it is done once with each; each thread takes the next
// image until none is left. Promises: no Python is touched; threads of a process that was forked away are refused.
#pragma once
#include <cstddef>
#include <functional>
#include <memory>

#include "base/thread_pool.h"

namespace fastload {

class ImageThreads {
   public:
    // threads: with the calling one. Throws std::invalid_argument below 1.
    explicit ImageThreads(int threads);
    // Throws std::invalid_argument where the helpers belong to another process.
    void check() const;
    // How many threads, with the calling one, work on so many images.
    size_t workers(size_t images) const;
    // Calls work(image, worker) for each image, worker in [0, workers(images)); without Python's lock. Throws
    // std::bad_alloc where a call threw (the others are made all the same).
    void run(size_t images, std::function<void(size_t image, size_t worker)> work) const;

   private:
    int threads_;
    std::unique_ptr<ThreadPool> pool_;
};

}  // namespace fastload
