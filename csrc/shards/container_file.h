// One container file on disk, read by offset: what goes in is a path, what comes out are exact byte ranges.
// Promised: every read returns all the bytes that were asked for or throws; offsets are checked against the size
// that the file had when it was opened; the bytes read are counted, so that tests can hold the indexers to reading
// headers only. What is wrong with the bytes is a ContainerProblem whose text is the finished one-line message
// "NAME: WHAT at byte OFFSET. WAY OUT", which the bindings turn into fastload.errors.ShardError. Where the system
// refuses to open or read the file, that says nothing about its bytes: a std::system_error, in Python an OSError.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace fastload {

class ContainerProblem : public std::runtime_error {
   public:
    using std::runtime_error::runtime_error;
};

class ContainerFile {
   public:
    // path: what is opened. name: how messages call the file.
    ContainerFile(const std::string &path, std::string name);
    ~ContainerFile();
    ContainerFile(const ContainerFile &) = delete;
    ContainerFile &operator=(const ContainerFile &) = delete;

    uint64_t size() const { return size_; }
    uint64_t bytes_read() const { return bytes_read_; }

    // Fills out with the bytes [start, start + count); the range must lie inside the file.
    void read(uint64_t start, uint64_t count, void *out);

    // True if [start, start + count) lies inside the file; cannot overflow.
    bool holds(uint64_t start, uint64_t count) const { return start <= size_ && count <= size_ - start; }

    // Control characters of member names are shown as \xNN, so that the message stays one line.
    [[noreturn]] void fail(
        uint64_t offset_bytes, const std::string &what,
        const char *way_out = "Copy or download it again, or leave this shard out of the source.") const;

   private:
    [[noreturn]] void refused(int error) const;

    std::string name_;
    int descriptor_ = -1;
    uint64_t size_ = 0;
    uint64_t bytes_read_ = 0;
};

}  // namespace fastload
