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
    // One byte more than there should be, in the same call: a file that has grown is found without another one.
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
    std::unordered_map<uint64_t, std::list<Entry>::iterator> places;
    std::list<Entry> given_up;  // and to be closed
    std::list<Entry> closing;   // one for each thread that is at it
    size_t closers = 0;         // threads, those that wait for more among them
    std::condition_variable changed;
    uint64_t of_others = 0;  // descriptors, when they were last counted

    void give_up(std::list<Entry>::iterator one) {
        places.erase(one->key);
        given_up.splice(given_up.end(), recent, one);
    }
    bool has_unclosed(int64_t table) const {
        for (const std::list<Entry> *some : {&given_up, &closing})
            for (const Entry &one : *some)
                if (table == ALL_TABLES || static_cast<int64_t>(one.key >> 32) == table) return true;
        return false;
    }
};

// Where all closing threads hang, there is another one for each so many files.
constexpr size_t FILES_OF_A_CLOSER = 8;
constexpr double CLOSER_WAITS_SECONDS = 0.5;  // for more to close, before it ends
constexpr size_t MOST_WAITING = 2;            // to be closed, where files are given up for others
constexpr size_t MOST_HANGING = 16;           // threads that close; more of them hang where a mount is gone
constexpr double FULL_WAITS_SECONDS = 1.0;
constexpr uint32_t OPENINGS_OF_A_MEASUREMENT = 16;  // one takes nearly as long as opening a file on a local disk

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
    while (state->changed.wait_for(lock, wait, [&] { return !state->given_up.empty(); })) {
        state->closing.splice(state->closing.begin(), state->given_up, state->given_up.begin());
        auto one = state->closing.begin();
        lock.unlock();
        one->file.reset();
        lock.lock();
        state->closing.erase(one);
        state->changed.notify_all();
    }
    state->closers--;
}

// Sees to it that what is given up is closed. is_waited_for: at once, whatever hangs; and on this thread where the
// system gives no other.
void set_to_close(PerProcess<State> &state, bool is_waited_for = false) noexcept {
    {
        std::lock_guard<std::mutex> lock(state->mutex);
        if (state->given_up.empty()) return;
        if (state->closers > state->closing.size()) return state->changed.notify_all();
        const bool is_enough = state->closing.size() > state->given_up.size() / FILES_OF_A_CLOSER;
        if (is_enough && (!is_waited_for || state->closing.size() >= MOST_HANGING)) return;
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
        // Else the next file that is given up tries again.
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

// How many files to keep where others hold so many descriptors.
size_t allowed(uint64_t of_others) {
    rlimit limit;
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return MOST;
    return static_cast<size_t>(std::clamp<uint64_t>(less(limit.rlim_cur, of_others) / SHARE, 1, MOST));
}

}  // namespace

bool is_scarce(int error) { return error == EMFILE || error == ENFILE; }

uint32_t new_table() {
    static std::atomic<uint32_t> next{0};
    return next++;
}

SharedFile find(uint32_t table, int32_t file_id) {
    PerProcess<State> &state = here();
    std::lock_guard<std::mutex> lock(state->mutex);
    auto found = state->places.find(key_of(table, file_id));
    if (found == state->places.end()) return nullptr;
    state->recent.splice(state->recent.begin(), state->recent, found->second);
    return found->second->file;
}

SharedFile keep(uint32_t table, int32_t file_id, SharedFile file) {
    PerProcess<State> &state = here();
    const uint64_t key = key_of(table, file_id);
    static std::atomic<uint32_t> openings{0};
    const uint64_t measured = openings++ % OPENINGS_OF_A_MEASUREMENT == 0 ? descriptors_taken() : 0;
    std::list<Entry> one;
    one.push_back({key, file});  // memory for the entry is asked for without the lock
    std::unique_lock<std::mutex> lock(state->mutex);
    auto [place, is_new] = state->places.try_emplace(key, one.begin());
    if (!is_new) {
        state->recent.splice(state->recent.begin(), state->recent, place->second);
        return place->second->file;
    }
    state->recent.splice(state->recent.begin(), one);
    // The descriptor that it got was the lowest that is free: all below it are taken.
    const size_t ours = state->recent.size() + state->given_up.size() + state->closing.size();
    if (measured) state->of_others = less(measured, ours);
    const size_t most = allowed(std::max(state->of_others, less(static_cast<uint64_t>(file->descriptor()) + 1, ours)));
    const bool is_full = state->recent.size() > most;
    while (state->recent.size() > most) state->give_up(std::prev(state->recent.end()));
    lock.unlock();
    if (!is_full) return file;
    // What waits to be closed is open still: who opens more does not run ahead of it, unless closing hangs.
    set_to_close(state, true);
    lock.lock();
    state->changed.wait_for(lock, std::chrono::duration<double>(FULL_WAITS_SECONDS), [&] {
        return state->given_up.size() <= MOST_WAITING || state->closing.size() >= MOST_HANGING;
    });
    return file;
}

void forget(uint32_t table, int32_t file_id, const SharedFile &file) noexcept {
    PerProcess<State> *state = made_here();
    if (!state) return;
    {
        std::lock_guard<std::mutex> lock((*state)->mutex);
        auto found = (*state)->places.find(key_of(table, file_id));
        if (found != (*state)->places.end() && found->second->file == file) (*state)->give_up(found->second);
    }
    set_to_close(*state);
}

void drop(uint32_t table) noexcept {
    PerProcess<State> *state = made_here();
    if (!state) return;
    {
        std::lock_guard<std::mutex> lock((*state)->mutex);
        for (auto one = (*state)->recent.begin(); one != (*state)->recent.end();) {
            auto next = std::next(one);
            if (one->key >> 32 == table) (*state)->give_up(one);
            one = next;
        }
    }
    set_to_close(*state);
}

size_t give_up() noexcept {
    PerProcess<State> *state = made_here();
    if (!state) return 0;
    size_t count;
    {
        std::lock_guard<std::mutex> lock((*state)->mutex);
        count = (*state)->recent.size();
        while (!(*state)->recent.empty()) (*state)->give_up((*state)->recent.begin());
    }
    set_to_close(*state);
    return count;
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
    return {(*state)->recent.size(), (*state)->given_up.size() + (*state)->closing.size()};
}

}  // namespace open_files
}  // namespace fastload
