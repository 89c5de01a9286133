// The files that this process keeps open for reading, of all its loaders together.
//
// In: files that were opened, each by the number of its table and its own number there. Out: the same, while they are
// kept.
// Promises: at most a quarter of the descriptors that the rest of the process leaves are kept, by the limit as it is
// whenever a file is opened; those of all tables that were used last stay; a file that is given up stays open for who
// reads it. Closing may take for ever, where a mount's server is gone: it is done by threads that do nothing else, so
// that whoever drops a table, gives files up or reads others does not hang; while one hangs, others take its place. A
// forked child begins with no files; descriptors that it inherited stay open there and are not used.
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

// Whether all that was given up is closed, of this table or of all; waits for it so long at most.
constexpr int64_t ALL_TABLES = -1;
bool wait_until_closed(int64_t table, double seconds) noexcept;

struct Count {
    size_t kept, unclosed;  // those that are given up and not closed yet
};
Count count();

}  // namespace open_files
}  // namespace fastload
