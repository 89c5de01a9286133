#include "shards/container_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <system_error>
#include <utility>

namespace fastload {

ContainerFile::ContainerFile(const std::string &path, std::string name) : name_(std::move(name)) {
    descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor_ < 0) refused(errno);
    struct stat status;
    if (::fstat(descriptor_, &status) != 0) {
        const int error = errno;
        ::close(descriptor_);
        refused(error);
    }
    size_ = static_cast<uint64_t>(status.st_size);
#ifdef POSIX_FADV_RANDOM
    // A hint only, so its return code changes nothing: without it the kernel reads payloads ahead of the headers.
    (void)::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_RANDOM);
#endif
}

ContainerFile::~ContainerFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

void ContainerFile::read(uint64_t start, uint64_t count, void *out) {
    if (!holds(start, count)) fail(start, "the file ends inside what must be read");
    char *to = static_cast<char *>(out);
    uint64_t done = 0;
    while (done < count) {
        const ssize_t got = ::pread(descriptor_, to + done, count - done, static_cast<off_t>(start + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) refused(errno);
        if (got == 0) fail(start + done, "the file became shorter while it was read");
        done += static_cast<uint64_t>(got);
    }
    bytes_read_ += count;
}

void ContainerFile::refused(int error) const { throw std::system_error(error, std::generic_category(), name_); }

void ContainerFile::fail(uint64_t offset_bytes, const std::string &what, const char *way_out) const {
    std::string shown;
    for (const char letter : what) {
        char escaped[5];
        const auto byte = static_cast<unsigned char>(letter);
        std::snprintf(escaped, sizeof escaped, "\\x%02x", byte);
        shown += byte < 0x20 || byte == 0x7f ? std::string(escaped) : std::string(1, letter);
    }
    throw ContainerProblem(name_ + ": " + shown + " at byte " + std::to_string(offset_bytes) + ". " + way_out);
}

}  // namespace fastload
