#include "open_files.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
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
#include <system_error>
#include <thread>
#include <unordered_map>

#include "per_process.h"

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

std::atomic<bool> may_have_leftovers{false};  // to be looked at without the lock, after every read

struct State {
    std::mutex mutex;
    std::list<Entry> recent;  // front: used last
    std::unordered_map<uint64_t, std::list<Entry>::iterator> places;
    std::list<Entry> leftovers;  // given up and to be closed
    size_t closing = 0;          // threads that are at it
    uint64_t of_others = 0;      // descriptors, when they were last counted

    void give_up(std::list<Entry>::iterator one) {
        places.erase(one->key);
        leftovers.splice(leftovers.end(), recent, one);
        may_have_leftovers = true;
    }
};

// A thread closes, and another one for each so many that wait: where a server is gone, few threads hang.
constexpr size_t LEFTOVERS_OF_A_CLOSER = 8;
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
    std::lock_guard<std::mutex> lock(state->mutex);
    auto [place, is_new] = state->places.try_emplace(key, one.begin());
    if (!is_new) {
        state->recent.splice(state->recent.begin(), state->recent, place->second);
        return place->second->file;
    }
    state->recent.splice(state->recent.begin(), one);
    // The descriptor that it got was the lowest that is free: all below it are taken.
    const size_t ours = state->recent.size() + state->leftovers.size();
    if (measured) state->of_others = less(measured, ours);
    const size_t most = allowed(std::max(state->of_others, less(static_cast<uint64_t>(file->descriptor()) + 1, ours)));
    while (state->recent.size() > most) state->give_up(std::prev(state->recent.end()));
    return file;
}

void forget(uint32_t table, int32_t file_id, const SharedFile &file) noexcept {
    PerProcess<State> *state = made_here();
    if (!state) return;
    std::lock_guard<std::mutex> lock((*state)->mutex);
    auto found = (*state)->places.find(key_of(table, file_id));
    if (found != (*state)->places.end() && found->second->file == file) (*state)->give_up(found->second);
}

void drop(uint32_t table) noexcept {
    PerProcess<State> *state = made_here();
    if (!state) return;
    std::lock_guard<std::mutex> lock((*state)->mutex);
    for (auto one = (*state)->recent.begin(); one != (*state)->recent.end();) {
        auto next = std::next(one);
        if (one->key >> 32 == table) (*state)->give_up(one);
        one = next;
    }
}

size_t give_up() noexcept {
    PerProcess<State> *state = made_here();
    if (!state) return 0;
    std::lock_guard<std::mutex> lock((*state)->mutex);
    const size_t count = (*state)->recent.size();
    while (!(*state)->recent.empty()) (*state)->give_up((*state)->recent.begin());
    return count;
}

void close_leftovers(size_t most) noexcept {
    if (!may_have_leftovers) return;
    PerProcess<State> *state = made_here();
    while (state) {
        std::list<Entry> one;
        {
            std::lock_guard<std::mutex> lock((*state)->mutex);
            std::list<Entry> &left = (*state)->leftovers;
            if (left.empty()) may_have_leftovers = false;
            if (left.size() <= most || (*state)->closing > left.size() / LEFTOVERS_OF_A_CLOSER) return;
            one.splice(one.begin(), left, left.begin());
            (*state)->closing++;
        }
        one.clear();
        std::lock_guard<std::mutex> lock((*state)->mutex);
        (*state)->closing--;
    }
}

void close_leftovers_within(double seconds) {
    struct End {
        std::mutex mutex;
        std::condition_variable come;
        bool is_here = false;
    };
    if (count().leftovers == 0) return;
    auto end = std::make_shared<End>();
    // Signals belong to Python's main thread.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
        std::thread([end] {
            close_leftovers();
            std::lock_guard<std::mutex> lock(end->mutex);
            end->is_here = true;
            end->come.notify_all();
        }).detach();
    } catch (const std::system_error &) {  // no thread is to be had: the readers close them, with their next range
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        return;
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    std::unique_lock<std::mutex> lock(end->mutex);
    end->come.wait_for(lock, std::chrono::duration<double>(seconds), [&] { return end->is_here; });
}

Count count() {
    PerProcess<State> *state = made_here();
    if (!state) return {0, 0};
    std::lock_guard<std::mutex> lock((*state)->mutex);
    return {(*state)->recent.size(), (*state)->leftovers.size()};
}

}  // namespace open_files
}  // namespace fastload
