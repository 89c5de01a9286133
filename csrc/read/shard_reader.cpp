#include "read/shard_reader.h"

#include <errno.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <limits>
#include <numeric>
#include <thread>

#include "shards/index_lookup.h"

namespace fastload {
namespace {

// The label and caption of a sample lie a header away from its image: reading the gap costs less than another call.
constexpr uint64_t CLOSE_BYTES = 8192;
constexpr uint64_t MAX_RANGE_BYTES = uint64_t{8} << 20;
constexpr size_t BLOB_ALIGNMENT = 64;

size_t aligned(uint64_t size) {
    return static_cast<size_t>((size + BLOB_ALIGNMENT - 1) / BLOB_ALIGNMENT * BLOB_ALIGNMENT);
}

SharedFile opened(const std::string &path, int *error) {
    auto file = std::make_shared<const OpenFile>(path, error);  // opened when there is memory for what closes it
    return *error ? nullptr : file;
}

// If no descriptor is left, closes the files that are kept for later reads.
SharedFile open_path(const std::string &path, int *error) {
    SharedFile file = opened(path, error);
    if ((*error != EMFILE && *error != ENFILE) || open_files::evict_all() == 0) return file;
    constexpr double SECONDS = 1.0;
    open_files::wait_until_closed(open_files::ALL_TABLES, SECONDS);
    return opened(path, error);
}

}  // namespace

// Errors about the file itself are final: ENOENT, EACCES, EISDIR. EIO: a soft mount or a bucket that did not answer, or
// a disk that may succeed the next time. ESTALE: the server has replaced the file, or itself. ENOMEM: of the kernel, or
// ours. ENFILE, EMFILE: others may be about to close descriptors. ENOTCONN: a FUSE or Lustre mount is being connected.
bool is_transient(int error) {
    constexpr int TRANSIENT[] = {
#ifdef EREMOTEIO
        EREMOTEIO,
#endif
        EIO,        ESTALE, ETIMEDOUT, EAGAIN,    EBUSY,       EINTR,        ENOMEM,
        ENOBUFS,    ENFILE, EMFILE,    ENOTCONN,  ESHUTDOWN,   ECONNABORTED, ECONNREFUSED,
        ECONNRESET, EPIPE,  ENETDOWN,  ENETRESET, ENETUNREACH, EHOSTDOWN,    EHOSTUNREACH};
    return std::find(std::begin(TRANSIENT), std::end(TRANSIENT), error) != std::end(TRANSIENT);
}

int FileStamp::check(const OpenFile &file) const {
    struct stat status;
    if (::fstat(file.descriptor(), &status) != 0) return errno;
    if (static_cast<uint64_t>(status.st_size) != size_bytes) return CHANGED_FILE;
#ifdef __APPLE__
    const timespec &changed = status.st_mtimespec;
#else
    const timespec &changed = status.st_mtim;
#endif
    if (int64_t{changed.tv_sec} * 1'000'000'000 + changed.tv_nsec == mtime_nanoseconds) return 0;
    if (tail_stop < tail_start || tail_stop > size_bytes) return CHANGED_FILE;
    std::vector<uint8_t> tail(static_cast<size_t>(tail_stop - tail_start));
    int error = file.read(tail_start, tail.size(), tail.data(), false);
    return error ? error : crc32(tail.data(), tail.size()) == tail_crc ? 0 : CHANGED_FILE;
}

FileTable::~FileTable() { open_files::drop(number_); }

bool FileTable::close(double seconds) {
    open_files::drop(number_);
    return open_files::wait_until_closed(number_, seconds);
}

SharedFile FileTable::open(int32_t file_id, int *error) {
    *error = 0;
    if (SharedFile file = open_files::find(number_, file_id)) return file;
    // Opened and closed without the lock: both take long on a network.
    SharedFile file = open_path(paths_[static_cast<size_t>(file_id)], error);
    if (file && !stamps_.empty()) *error = stamps_[static_cast<size_t>(file_id)].check(*file);
    if (*error) return nullptr;
    return open_files::keep(number_, file_id, std::move(file));
}

std::vector<ByteBatch::Range> ByteBatch::plan(const std::vector<BlobRequest> &blobs) {
    std::vector<size_t> order(blobs.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
        return blobs[a].file_id != blobs[b].file_id ? blobs[a].file_id < blobs[b].file_id
                                                    : blobs[a].offset_bytes < blobs[b].offset_bytes;
    });
    std::vector<Range> ranges;
    for (size_t i : order) {
        const BlobRequest &blob = blobs[i];
        if (blob.missing) continue;
        uint64_t stop = blob.offset_bytes + blob.size_bytes;
        if (!ranges.empty() && blob.file_id >= 0) {
            Range &last = ranges.back();
            bool joins = blobs[last.blobs[0]].file_id == blob.file_id && blob.offset_bytes <= last.stop + CLOSE_BYTES &&
                         stop - last.start <= MAX_RANGE_BYTES;
            if (joins) {
                last.stop = std::max(last.stop, stop);
                last.blobs.push_back(i);
                continue;
            }
        }
        ranges.push_back({blob.offset_bytes, stop, {i}, nullptr});
    }
    // Ranges are read in the order of need, not of the disk: the first blob of the batch comes first.
    for (Range &range : ranges) std::sort(range.blobs.begin(), range.blobs.end());
    std::sort(ranges.begin(), ranges.end(), [](const Range &a, const Range &b) { return a.blobs[0] < b.blobs[0]; });
    return ranges;
}

ByteBatch::ByteBatch(std::shared_ptr<FileTable> files, std::vector<BlobRequest> blobs, std::vector<Range> ranges,
                     RetryPolicy policy)
    : Work(ranges.size()),
      files_(std::move(files)),
      blobs_(std::move(blobs)),
      ranges_(std::move(ranges)),
      addresses_(blobs_.size(), nullptr),
      errors_(blobs_.size(), ECANCELED),
      attempts_(blobs_.size(), 0),
      policy_(std::move(policy)) {
    for (size_t i = 0; i < blobs_.size(); i++)
        if (blobs_[i].missing) errors_[i] = 0;
}

std::shared_ptr<ByteBatch> ByteBatch::make(std::shared_ptr<FileTable> files, std::vector<BlobRequest> blobs,
                                           BufferPool &memory, RetryPolicy policy) {
    std::vector<Range> ranges = plan(blobs);
    std::shared_ptr<ByteBatch> batch(
        new ByteBatch(std::move(files), std::move(blobs), std::move(ranges), std::move(policy)));
    size_t total = 0;
    for (const Range &range : batch->ranges_) {
        if (range.stop - range.start > std::numeric_limits<size_t>::max() / 2 - total) throw std::bad_alloc();
        total += aligned(range.stop - range.start);
    }
    batch->memory_ = memory.acquire(total);
    uint8_t *to = batch->memory_->bytes();
    for (Range &range : batch->ranges_) {
        range.to = to;
        for (size_t blob : range.blobs) batch->addresses_[blob] = to + (batch->blobs_[blob].offset_bytes - range.start);
        to += aligned(range.stop - range.start);
        batch->bytes_read_ += range.stop - range.start;
    }
    return batch;
}

void ByteBatch::run(size_t part) noexcept {
    int64_t begun = now_nanoseconds(), delay = policy_.delay_nanoseconds;
    if (delay > 0) std::this_thread::sleep_for(std::chrono::nanoseconds(delay));
    const Range &range = ranges_[part];
    int attempts = 0;
    int error = read_with_retries(range, &attempts);
    for (size_t blob : range.blobs) {
        errors_[blob] = error;
        attempts_[blob] = attempts;
        if (!error || range.blobs.size() == 1 || cancelled()) continue;
        // One bad blob must not fail its neighbours.
        uint64_t start = blobs_[blob].offset_bytes;
        errors_[blob] = read_once(blobs_[blob], start, start + blobs_[blob].size_bytes, addresses_[blob]);
    }
    busy_nanoseconds_ += now_nanoseconds() - begun;
}

int ByteBatch::read_with_retries(const Range &range, int *attempts) {
    for (int64_t pause_nanoseconds : policy_.backoff_nanoseconds) {
        ++*attempts;
        int error = read_once(blobs_[range.blobs[0]], range.start, range.stop, range.to);
        if (!is_transient(error) || lost_ || !pause(pause_nanoseconds)) return error;
        retries_++;
    }
    ++*attempts;
    int error = read_once(blobs_[range.blobs[0]], range.start, range.stop, range.to);
    if (is_transient(error)) lost_ = true;
    return error;
}

int ByteBatch::read_once(const BlobRequest &blob, uint64_t start, uint64_t stop, uint8_t *to) {
    try {
        int error = 0;
        bool in_table = blob.file_id >= 0;
        auto file = in_table ? files_->open(blob.file_id, &error) : open_path(blob.path, &error);
        if (file) error = file->read(start, stop - start, to, !in_table);
        // A stale handle stays stale: the retry opens the file again.
        if (file && in_table && is_transient(error)) files_->forget(blob.file_id, file);
        return error;
    } catch (const std::bad_alloc &) {
        return ENOMEM;
    }
}

void ByteBatch::finished() noexcept {
    files_.reset();  // whoever waited may now close the files, however long this thread holds the batch
    std::vector<std::function<void()>> next;
    {
        std::lock_guard<std::mutex> lock(mutex_);
        completion_.set();
        next.swap(next_);
    }
    for (auto &call : next) call();
}

namespace {

bool is_space(uint8_t byte) { return byte == ' ' || (byte >= '\t' && byte <= '\r'); }

bool parse_integer(const uint8_t *byte, const uint8_t *end, int64_t *out) {
    constexpr int MAX_DIGITS = 18;  // no overflow so far
    while (byte < end && is_space(*byte)) byte++;
    while (byte < end && is_space(end[-1])) end--;
    bool negative = byte < end && *byte == '-';
    if (byte < end && (*byte == '-' || *byte == '+')) byte++;
    if (byte == end || end - byte > MAX_DIGITS) return false;
    int64_t value = 0;
    for (; byte < end; byte++) {
        if (*byte < '0' || *byte > '9') return false;
        value = value * 10 + (*byte - '0');
    }
    *out = negative ? -value : value;
    return true;
}

}  // namespace

bool ByteBatch::integers(size_t first, size_t count, int64_t *out) const {
    for (size_t i = 0; i < count; i++)
        if (missing(first + i) || !parse_integer(bytes(first + i), bytes(first + i) + size(first + i), out + i))
            return false;
    return true;
}

void ByteBatch::then(std::function<void()> next) {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        if (!completion_.done()) {
            next_.push_back(std::move(next));
            return;
        }
    }
    next();
}

}  // namespace fastload
