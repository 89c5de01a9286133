// The files that this process keeps open for reading, of all its loaders together.
//
// In: files that were opened, each by the number of its table and its own number there. Out: the same, while they are
// kept.
// Promises: at most a quarter of the descriptors that the rest of the process leaves are kept, by the limit as it is
// whenever a file is opened; those of all tables that were used last stay; a file that is given up stays open for who
// reads it; nothing is closed under the lock, nor by who drops a table or gives files up: `close_leftovers` does that,
// which may take for ever, as a mount whose server is gone does. A forked child begins with no files; descriptors that
// it inherited stay open there and are not used.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace fastload {

class OpenFile {
   public:
    OpenFile(const std::string &path, int *error);  // 0 or an errno
    ~OpenFile();
    OpenFile(const OpenFile &) = delete;
    OpenFile &operator=(const OpenFile &) = delete;
    // 0, an errno, SHORT_FILE or, where nothing may follow, CHANGED_FILE.
    int read(uint64_t offset, uint64_t size, uint8_t *to, bool nothing_follows) const;
    int descriptor() const { return descriptor_; }

   private:
    int descriptor_;
};

constexpr int SHORT_FILE = -1;    // it ends before its index says
constexpr int CHANGED_FILE = -2;  // it is not the one that was indexed

using SharedFile = std::shared_ptr<const OpenFile>;

namespace open_files {

constexpr size_t MOST = 2048;  // however many descriptors there are: servers count them as well
constexpr uint64_t SHARE = 4;  // one in so many of those that are free or ours

bool is_scarce(int error);  // EMFILE or ENFILE: what is given up here may help

uint32_t new_table();  // the number of a table, which no other one has had
SharedFile find(uint32_t table, int32_t file_id);
// Keeps it; or returns the one that another thread has kept meanwhile. Throws std::bad_alloc.
SharedFile keep(uint32_t table, int32_t file_id, SharedFile file);
void forget(uint32_t table, int32_t file_id, const SharedFile &file) noexcept;  // that one only
void drop(uint32_t table) noexcept;                                             // all of a table
size_t give_up() noexcept;                                                      // all; how many they were

// Closes what was given up, on this thread, until no more than `most` wait; not where other threads are at it that may
// hang there. Needs no Python.
void close_leftovers(size_t most = 0) noexcept;
// The same on a thread of its own, for a caller that must not hang; waits for it so long at most.
void close_leftovers_within(double seconds);

struct Count {
    size_t kept, leftovers;
};
Count count();

}  // namespace open_files
}  // namespace fastload
