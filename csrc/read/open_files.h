// The files that this process keeps open for reading, of all its loaders together.
//
// In: open files, each with the number of its table and its number there. Out: the same files, while they are kept.
// Promises: at most a quarter of the descriptors that the rest of the process leaves are kept, by the limit at each
// opening; the most recently used of all tables are kept; a file that is evicted stays open until its readers are done.
// Closing may hang where a mount's server is gone: threads that do nothing else close files, so that dropping a table,
// evicting and reading never hang, and further threads start while one hangs. A forked child begins with no files; the
// descriptors that it inherited stay open there and are not used.
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

constexpr int SHORT_FILE = -1;    // shorter than its index says
constexpr int CHANGED_FILE = -2;  // not the file that was indexed

using SharedFile = std::shared_ptr<const OpenFile>;

namespace open_files {

constexpr size_t MAX_FILES = 2048;  // however many descriptors there are: servers count them as well
constexpr uint64_t SHARE = 4;       // the inverse of our share of the descriptors that are free or ours

uint32_t new_table();  // a number that no other table has had
SharedFile find(uint32_t table, int32_t file_id);
// Keeps `file`, or returns the file that another thread has kept meanwhile. Throws std::bad_alloc.
SharedFile keep(uint32_t table, int32_t file_id, SharedFile file);
void forget(uint32_t table, int32_t file_id, const SharedFile &file) noexcept;  // this file only
void drop(uint32_t table) noexcept;                                             // all of a table
size_t evict_all() noexcept;                                                    // all; how many they were

// Waits until all evicted files, of this table or of all, are closed; false if that takes longer than `seconds`.
constexpr int64_t ALL_TABLES = -1;
bool wait_until_closed(int64_t table, double seconds) noexcept;

struct Count {
    size_t kept, unclosed;  // unclosed: evicted and not closed yet
};
Count count();

}  // namespace open_files
}  // namespace fastload
