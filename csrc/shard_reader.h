// Bytes, ahead of need: a batch of byte ranges of files, read by threads that never touch Python.
//
// In: (file, offset, size) for each blob of a batch. Out: the bytes, in the order that was asked for.
// Promises: batches are read in order of submission; ranges that lie close together in a file are one read; an error
// (errno, or a file that is shorter than its index says) stays with the blobs that it hit; at most `max_open` files
// are open at once. Nothing here knows what the bytes mean.
#pragma once
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "buffer_pool.h"
#include "thread_pool.h"

namespace fastload {

class OpenFile {
   public:
    explicit OpenFile(int descriptor) : descriptor_(descriptor) {}
    ~OpenFile();
    OpenFile(const OpenFile &) = delete;
    OpenFile &operator=(const OpenFile &) = delete;
    // 0, an errno, or SHORT_FILE.
    int read(uint64_t offset, uint64_t size, uint8_t *to) const;

   private:
    int descriptor_;
};

constexpr int SHORT_FILE = -1;

// The containers of a dataset by number; the least recently used is closed where too many are open.
class FileTable {
   public:
    FileTable(std::vector<std::string> paths, size_t max_open) : paths_(std::move(paths)), max_open_(max_open) {}
    std::shared_ptr<const OpenFile> open(int32_t file_id, int *error);
    size_t size() const { return paths_.size(); }

   private:
    using Entry = std::pair<int32_t, std::shared_ptr<const OpenFile>>;
    const std::vector<std::string> paths_;
    const size_t max_open_;
    std::mutex mutex_;
    std::list<Entry> recent_;  // front: used last
    std::unordered_map<int32_t, std::list<Entry>::iterator> open_;
};

std::shared_ptr<const OpenFile> open_path(const std::string &path, int *error);

struct BlobRequest {
    int32_t file_id;  // or -1: `path` is a file of its own
    uint64_t offset_bytes, size_bytes;
    bool missing;  // the sample has no such field: nothing is read
    std::string path;
};

class ByteBatch : public Work {
   public:
    static std::shared_ptr<ByteBatch> make(std::shared_ptr<FileTable> files, std::vector<BlobRequest> blobs,
                                           BufferPool &memory, int64_t delay_nanoseconds);
    void run(size_t part) noexcept override;
    void finished() noexcept override;

    // Calls `next` when everything is read: at once, or on the thread that reads the last blob.
    void then(std::function<void()> next);
    bool wait(double timeout_seconds) { return completion_.wait(timeout_seconds); }

    // What follows holds after the batch is complete.
    size_t blobs() const { return blobs_.size(); }
    const uint8_t *bytes(size_t blob) const { return places_[blob]; }
    size_t size(size_t blob) const { return static_cast<size_t>(blobs_[blob].size_bytes); }
    bool missing(size_t blob) const { return blobs_[blob].missing; }
    int error(size_t blob) const { return errors_[blob]; }
    // The decimal integers that `count` blobs from `first` hold, white space around them allowed; false where one of
    // them is missing or holds anything else, or more than 18 digits.
    bool integers(size_t first, size_t count, int64_t *out) const;
    uint64_t bytes_read() const { return bytes_read_; }
    double busy_seconds() const { return static_cast<double>(busy_nanoseconds_.load()) * 1e-9; }

   private:
    struct Range {  // neighbours in one file, read at once
        uint64_t start, stop;
        std::vector<size_t> blobs;
        uint8_t *to = nullptr;
    };
    ByteBatch(std::shared_ptr<FileTable> files, std::vector<BlobRequest> blobs, std::vector<Range> ranges,
              int64_t delay_nanoseconds);
    static std::vector<Range> plan(const std::vector<BlobRequest> &blobs);

    std::shared_ptr<FileTable> files_;
    std::vector<BlobRequest> blobs_;
    std::vector<Range> ranges_;
    std::shared_ptr<Buffer> memory_;
    std::vector<uint8_t *> places_;
    std::vector<int> errors_;
    const int64_t delay_nanoseconds_;  // slept before each read, for tests
    uint64_t bytes_read_ = 0;
    std::atomic<int64_t> busy_nanoseconds_{0};
    Completion completion_;
    std::mutex mutex_;
    std::vector<std::function<void()>> next_;
};

}  // namespace fastload
