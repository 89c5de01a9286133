// Bytes, ahead of need: a batch of byte ranges of files, read by threads that never touch Python.
//
// In: (file, offset, size) for each blob of a batch. Out: the bytes, in the order that was asked for.
// Promises: batches are read in order of submission; ranges that lie close together in a file are one read; an error
// stays with the blobs that it hit; a transient error is retried, with growing pauses that end when the batch is
// cancelled; a file is compared with its index whenever it is opened; a file that is slow to open delays no other;
// files stay open for the next read as far as open_files.h allows. Nothing here knows what the bytes mean.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "read/buffer_pool.h"
#include "read/open_files.h"

namespace fastload {

bool is_transient(int error);  // whether the same read may succeed a moment later

// A container as it was when its dataset was opened; see shards/index_file.py.
struct FileStamp {
    uint64_t size_bytes;
    int64_t mtime_nanoseconds;
    uint64_t tail_start, tail_stop;
    uint32_t tail_crc;

    // 0, an errno or CHANGED_FILE. A different time alone is no proof, as a restored copy has one: then the tail
    // decides.
    int check(const OpenFile &file) const;
};

// The containers of a dataset by number. Those that are open are among the process's (open_files.h).
class FileTable {
   public:
    // stamps: one for each path, or none at all.
    FileTable(std::vector<std::string> paths, std::vector<FileStamp> stamps)
        : paths_(std::move(paths)), stamps_(std::move(stamps)), number_(open_files::new_table()) {}
    ~FileTable();
    FileTable(const FileTable &) = delete;
    FileTable &operator=(const FileTable &) = delete;
    SharedFile open(int32_t file_id, int *error);
    // The next `open` opens it again, unless another thread has done so since.
    void forget(int32_t file_id, const SharedFile &file) { open_files::forget(number_, file_id, file); }
    // Closes all of them; false if that takes longer than `seconds`. Files that are read later are opened again.
    bool close(double seconds);
    size_t size() const { return paths_.size(); }

   private:
    const std::vector<std::string> paths_;
    const std::vector<FileStamp> stamps_;
    const uint32_t number_;
};

struct BlobRequest {
    int32_t file_id;  // or -1: `path` is a file of its own, which ends where the blob does
    uint64_t offset_bytes, size_bytes;
    bool missing;  // the sample has no such field: nothing is read
    std::string path;
};

struct RetryPolicy {
    int64_t delay_nanoseconds = 0;  // slept before each read, for tests
    // Pauses before each retry. Seven seconds in all: a mount that lost its server, or a bucket that wants
    // fewer requests, is often back by then, and prefetched batches cover most of it.
    std::vector<int64_t> backoff_nanoseconds{10'000'000, 50'000'000, 250'000'000, 1'250'000'000, 5'000'000'000};
};

class ByteBatch : public Work {
   public:
    static std::shared_ptr<ByteBatch> make(std::shared_ptr<FileTable> files, std::vector<BlobRequest> blobs,
                                           BufferPool &memory, RetryPolicy policy);
    void run(size_t part) noexcept override;
    void finished() noexcept override;

    // Calls `next` when everything is read: at once, or on the thread that reads the last blob.
    void then(std::function<void()> next);

    // What follows holds after the batch is complete.
    size_t blobs() const { return blobs_.size(); }
    const uint8_t *bytes(size_t blob) const { return addresses_[blob]; }
    size_t size(size_t blob) const { return static_cast<size_t>(blobs_[blob].size_bytes); }
    bool missing(size_t blob) const { return blobs_[blob].missing; }
    int error(size_t blob) const { return errors_[blob]; }  // 0, an errno, SHORT_FILE or CHANGED_FILE
    int attempts(size_t blob) const { return attempts_[blob]; }
    // The decimal integers that `count` blobs from `first` hold, white space around them allowed; false if a blob
    // is missing, or holds anything else or more than 18 digits.
    bool integers(size_t first, size_t count, int64_t *out) const;
    uint64_t bytes_read() const { return bytes_read_; }
    int64_t retries() const { return retries_.load(); }  // summed over the batch

   private:
    struct Range {  // neighbours in one file, read at once
        uint64_t start, stop;
        std::vector<size_t> blobs;
        uint8_t *to = nullptr;
    };
    ByteBatch(std::shared_ptr<FileTable> files, std::vector<BlobRequest> blobs, std::vector<Range> ranges,
              RetryPolicy policy);
    static std::vector<Range> plan(const std::vector<BlobRequest> &blobs);
    int read_with_retries(const Range &range, int *attempts);
    int read_once(const BlobRequest &blob, uint64_t start, uint64_t stop, uint8_t *to);

    std::shared_ptr<FileTable> files_;
    std::vector<BlobRequest> blobs_;
    std::vector<Range> ranges_;
    std::shared_ptr<Buffer> memory_;
    std::vector<uint8_t *> addresses_;
    std::vector<int> errors_, attempts_;
    const RetryPolicy policy_;
    uint64_t bytes_read_ = 0;
    std::atomic<int64_t> retries_{0};
    // A range has used up its retries: the batch is lost, and its other ranges are not retried.
    std::atomic<bool> lost_{false};
    std::mutex mutex_;
    std::vector<std::function<void()>> next_;
};

}  // namespace fastload
