#include "read/open_files.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <list>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "base/per_process.h"
#include "base/thread_pool.h"

namespace fastload {

OpenFile::OpenFile(const std::string &path, int *error) : descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    *error = descriptor_ < 0 ? errno : 0;
}

OpenFile::~OpenFile() {
    if (descriptor_ >= 0) (void)::close(descriptor_);
}

int OpenFile::read(uint64_t offset, uint64_t size, uint8_t *to, bool nothing_follows) const {
    // Reads one byte more than expected, so that a file that has grown is found without another call.
    uint8_t beyond;
    size_t more = nothing_follows ? 1 : 0;
    while (size + more > 0) {
        iovec parts[2] = {{to, static_cast<size_t>(size)}, {&beyond, more}};
        ssize_t got = more ? ::preadv(descriptor_, parts, 2, static_cast<off_t>(offset))
                           : ::pread(descriptor_, to, static_cast<size_t>(size), static_cast<off_t>(offset));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return errno;
        if (static_cast<uint64_t>(got) > size) return CHANGED_FILE;
        if (got == 0) return size == 0 ? 0 : SHORT_FILE;
        to += got;
        offset += static_cast<uint64_t>(got);
        size -= static_cast<uint64_t>(got);
        if (size == 0) return 0;
    }
    return 0;
}

namespace open_files {
namespace {

struct Entry {
    uint64_t key;  // the table, then the file
    SharedFile file;
};

struct State {
    std::mutex mutex;
    std::list<Entry> recent;  // front: used last
    std::unordered_map<uint64_t, std::list<Entry>::iterator> entries;
    std::list<Entry> evicted;  // and to be closed
    std::list<Entry> closing;  // an entry for each thread that is closing one
    size_t closers = 0;        // threads, idle ones included
    std::condition_variable changed;
    uint64_t of_others = 0;  // descriptors, when they were last counted

    void evict(std::list<Entry>::iterator entry) {
        entries.erase(entry->key);
        evicted.splice(evicted.end(), recent, entry);
    }
    bool has_unclosed(int64_t table) const {
        for (const std::list<Entry> *some : {&evicted, &closing})
            for (const Entry &entry : *some)
                if (table == ALL_TABLES || static_cast<int64_t>(entry.key >> 32) == table) return true;
        return false;
    }
};

// While all closing threads hang, a further thread starts for every so many files.
constexpr size_t FILES_OF_A_CLOSER = 8;
constexpr double CLOSER_WAITS_SECONDS = 0.5;  // for more files, before the thread ends
constexpr size_t MAX_WAITING = 2;             // files waiting to be closed, while others are opened
constexpr size_t MAX_HANGING = 16;            // closing threads, which all hang where a mount is gone
constexpr double FULL_WAITS_SECONDS = 1.0;
constexpr uint32_t OPENINGS_OF_A_MEASUREMENT = 16;  // a measurement takes nearly as long as opening a local file

// Never destroyed: threads that outlive main may use it. A child leaves its parent's where it is, for that may be
// locked by a thread which does not exist there.
std::atomic<PerProcess<State> *> current{nullptr};

PerProcess<State> *made_here() noexcept {
    PerProcess<State> *found = current.load(std::memory_order_acquire);
    return found && found->is_ours() ? found : nullptr;
}

PerProcess<State> &here() {
    if (PerProcess<State> *found = made_here()) return *found;
    PerProcess<State> *before = current.load(std::memory_order_acquire);
    auto fresh = std::make_unique<PerProcess<State>>();
    while (!before || !before->is_ours())
        if (current.compare_exchange_weak(before, fresh.get())) return *fresh.release();
    return *before;
}

void close_all(PerProcess<State> &state, double wait_seconds) noexcept {
    std::unique_lock<std::mutex> lock(state->mutex);
    const auto wait = std::chrono::duration<double>(wait_seconds);
    while (state->changed.wait_for(lock, wait, [&] { return !state->evicted.empty(); })) {
        state->closing.splice(state->closing.begin(), state->evicted, state->evicted.begin());
        auto entry = state->closing.begin();
        lock.unlock();
        entry->file.reset();
        lock.lock();
        state->closing.erase(entry);
        state->changed.notify_all();
    }
    state->closers--;
}

// Makes sure that a thread closes the evicted files. is_waited_for: at once, even if others hang, and on this thread if
// the system gives no other.
void set_to_close(PerProcess<State> &state, bool is_waited_for = false) noexcept {
    {
        std::lock_guard<std::mutex> lock(state->mutex);
        if (state->evicted.empty()) return;
        if (state->closers > state->closing.size()) return state->changed.notify_all();
        const bool is_enough = state->closing.size() > state->evicted.size() / FILES_OF_A_CLOSER;
        if (is_enough && (!is_waited_for || state->closing.size() >= MAX_HANGING)) return;
        state->closers++;
    }
    try {
        SignalsBlocked blocked;
        check_room_for_thread();
        std::thread([&state] {
            name_this_thread("fastload-close");
            prepare_thread();
            close_all(state, CLOSER_WAITS_SECONDS);
        }).detach();
    } catch (const std::exception &) {
        // Otherwise the next evicted file tries again.
        if (is_waited_for) return close_all(state, 0);
        std::lock_guard<std::mutex> lock(state->mutex);
        state->closers--;
    }
}

uint64_t key_of(uint32_t table, int32_t file_id) { return uint64_t{table} << 32 | static_cast<uint32_t>(file_id); }

// How many descriptors this process has taken, as Linux tells since 6.2; 0 elsewhere.
uint64_t descriptors_taken() {
    struct stat status;
    return ::stat("/proc/self/fd", &status) == 0 && status.st_size > 0 ? static_cast<uint64_t>(status.st_size) : 0;
}

uint64_t less(uint64_t all, uint64_t some) { return all > some ? all - some : 0; }

// How many files to keep if others hold so many descriptors.
size_t allowed(uint64_t of_others) {
    rlimit limit;
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return MAX_FILES;
    return static_cast<size_t>(std::clamp<uint64_t>(less(limit.rlim_cur, of_others) / SHARE, 1, MAX_FILES));
}

// Evicts the files whose entry fulfils the condition, and returns their number.
template <class Condition>
size_t evict_where(Condition holds) noexcept {
    PerProcess<State> *state = made_here();
    if (!state) return 0;
    size_t count = 0;
    {
        std::lock_guard<std::mutex> lock((*state)->mutex);
        for (auto next = (*state)->recent.begin(); next != (*state)->recent.end();) {
            auto entry = next++;
            if (!holds(*entry)) continue;
            (*state)->evict(entry);
            count++;
        }
    }
    set_to_close(*state);
    return count;
}

}  // namespace

uint32_t new_table() {
    static std::atomic<uint32_t> next{0};
    return next++;
}

SharedFile find(uint32_t table, int32_t file_id) {
    PerProcess<State> &state = here();
    std::lock_guard<std::mutex> lock(state->mutex);
    auto found = state->entries.find(key_of(table, file_id));
    if (found == state->entries.end()) return nullptr;
    state->recent.splice(state->recent.begin(), state->recent, found->second);
    return found->second->file;
}

SharedFile keep(uint32_t table, int32_t file_id, SharedFile file) {
    PerProcess<State> &state = here();
    const uint64_t key = key_of(table, file_id);
    static std::atomic<uint32_t> openings{0};
    const uint64_t measured = openings++ % OPENINGS_OF_A_MEASUREMENT == 0 ? descriptors_taken() : 0;
    std::list<Entry> added;
    added.push_back({key, file});  // allocates without the lock
    std::unique_lock<std::mutex> lock(state->mutex);
    auto [found, is_new] = state->entries.try_emplace(key, added.begin());
    if (!is_new) {
        state->recent.splice(state->recent.begin(), state->recent, found->second);
        return found->second->file;
    }
    state->recent.splice(state->recent.begin(), added);
    // The new descriptor was the lowest free number: all below it are taken.
    const size_t ours = state->recent.size() + state->evicted.size() + state->closing.size();
    if (measured) state->of_others = less(measured, ours);
    const size_t max_files =
        allowed(std::max(state->of_others, less(static_cast<uint64_t>(file->descriptor()) + 1, ours)));
    const bool is_full = state->recent.size() > max_files;
    while (state->recent.size() > max_files) state->evict(std::prev(state->recent.end()));
    lock.unlock();
    if (!is_full) return file;
    // Evicted files are still open: opening must not run ahead of closing, unless closing hangs.
    set_to_close(state, true);
    lock.lock();
    state->changed.wait_for(lock, std::chrono::duration<double>(FULL_WAITS_SECONDS), [&] {
        return state->evicted.size() <= MAX_WAITING || state->closing.size() >= MAX_HANGING;
    });
    return file;
}

void forget(uint32_t table, int32_t file_id, const SharedFile &file) noexcept {
    evict_where([&](const Entry &entry) { return entry.key == key_of(table, file_id) && entry.file == file; });
}

void drop(uint32_t table) noexcept {
    evict_where([table](const Entry &entry) { return entry.key >> 32 == table; });
}

size_t evict_all() noexcept {
    return evict_where([](const Entry &) { return true; });
}

bool wait_until_closed(int64_t table, double seconds) noexcept {
    PerProcess<State> *state = made_here();
    if (!state) return true;
    set_to_close(*state, true);
    std::unique_lock<std::mutex> lock((*state)->mutex);
    return (*state)->changed.wait_for(lock, std::chrono::duration<double>(seconds),
                                      [&] { return !(*state)->has_unclosed(table); });
}

Count count() {
    PerProcess<State> *state = made_here();
    if (!state) return {0, 0};
    std::lock_guard<std::mutex> lock((*state)->mutex);
    return {(*state)->recent.size(), (*state)->evicted.size() + (*state)->closing.size()};
}

}  // namespace open_files
}  // namespace fastload
