// Binds shard_reader.h to Python: arguments are checked, waits release the GIL.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <limits>
#include <stdexcept>
#include <tuple>
#include <unordered_map>

#include "base/unlocked.h"
#include "read/shard_reader.h"

namespace fastload {
namespace {
namespace py = pybind11;
template <class Item>
using Array = py::array_t<Item, py::array::c_style | py::array::forcecast>;

class ShardReader {
   public:
    explicit ShardReader(int threads) : pool_(threads, "fastload-read") {}

    std::shared_ptr<ByteBatch> submit(std::shared_ptr<FileTable> files, Array<int32_t> file_ids, Array<int64_t> offsets,
                                      Array<int64_t> sizes, const std::unordered_map<size_t, std::string> &paths,
                                      BufferPool &memory, bool urgent, bool retry) {
        size_t count = static_cast<size_t>(file_ids.size());
        if (static_cast<size_t>(offsets.size()) != count || static_cast<size_t>(sizes.size()) != count)
            throw std::invalid_argument("file_ids, offsets_bytes and sizes_bytes must have one length");
        std::vector<BlobRequest> blobs(count);
        for (size_t i = 0; i < count; i++) {
            BlobRequest &blob = blobs[i];
            blob.file_id = file_ids.data()[i];
            blob.missing = sizes.data()[i] < 0;
            if (blob.missing) continue;
            if (offsets.data()[i] < 0 || sizes.data()[i] > std::numeric_limits<int64_t>::max() / 2 - offsets.data()[i])
                throw std::invalid_argument("offset and size must not be negative, and their sum must be below 2^62");
            blob.offset_bytes = static_cast<uint64_t>(offsets.data()[i]);
            blob.size_bytes = static_cast<uint64_t>(sizes.data()[i]);
            auto path = paths.find(i);
            if (blob.file_id < 0 && path == paths.end())
                throw std::invalid_argument("a blob with file_id=-1 needs a path");
            if (blob.file_id < 0) blob.path = path->second;
            if (blob.file_id >= 0 && static_cast<size_t>(blob.file_id) >= files->size())
                throw std::invalid_argument("file_id is beyond the table of files");
        }
        RetryPolicy policy = retry ? policy_ : RetryPolicy{policy_.delay_nanoseconds, {}};
        auto batch = ByteBatch::make(std::move(files), std::move(blobs), memory, std::move(policy));
        pool_.submit(batch, urgent);
        return batch;
    }

    void leave_behind(const std::shared_ptr<ByteBatch> &batch) { pool_.leave_behind(batch); }
    int threads() const { return pool_.threads(); }
    // For batches submitted later.
    void set_delay_seconds(double seconds) { policy_.delay_nanoseconds = static_cast<int64_t>(seconds * 1e9); }
    void set_backoff_seconds(const std::vector<double> &seconds) {
        policy_.backoff_nanoseconds.clear();
        for (double each : seconds) policy_.backoff_nanoseconds.push_back(static_cast<int64_t>(each * 1e9));
    }
    std::vector<double> backoff_seconds() const {
        std::vector<double> seconds;
        for (int64_t each : policy_.backoff_nanoseconds) seconds.push_back(static_cast<double>(each) * 1e-9);
        return seconds;
    }

   private:
    ThreadPool pool_;
    RetryPolicy policy_;
};

// A view of one blob that keeps its batch alive.
struct Blob {
    std::shared_ptr<ByteBatch> batch;
    size_t index;
};

size_t checked(const ByteBatch &batch, size_t blob) {
    if (blob >= batch.blobs()) throw py::index_error("no such blob");
    return blob;
}

void bind_files(py::module_ &module) {
    using StampTuple = std::tuple<uint64_t, int64_t, uint64_t, uint64_t, uint32_t>;
    module.attr("SHORT_FILE") = SHORT_FILE;
    module.attr("CHANGED_FILE") = CHANGED_FILE;
    module.def("is_transient", &is_transient, py::arg("errno"),
               "Whether this errno is transient: the same read may succeed a moment later.");
    py::class_<FileTable, std::shared_ptr<FileTable>>(module, "FileTable")
        .def(py::init([](std::vector<std::string> paths, const std::vector<StampTuple> &stamps) {
                 if (!stamps.empty() && stamps.size() != paths.size())
                     throw std::invalid_argument("stamps must have the length of paths, or be empty");
                 std::vector<FileStamp> known;
                 for (const auto &[size, mtime, start, stop, crc] : stamps)
                     known.push_back({size, mtime, start, stop, crc});
                 return std::make_shared<FileTable>(std::move(paths), std::move(known));
             }),
             py::arg("paths"), py::arg("stamps") = py::tuple(),
             "stamps: (size in bytes, time of the last change in ns, start, stop and CRC of the tail) of each file.")
        .def("close", &FileTable::close, py::arg("seconds"), py::call_guard<Unlocked>(),
             "Closes its files; False where that takes longer. What is read later is opened anew.");
    module.def(
        "give_up_open_files",
        [](double seconds) {
            size_t count = open_files::evict_all();
            open_files::wait_until_closed(open_files::ALL_TABLES, seconds);
            return count;
        },
        py::arg("seconds"), py::call_guard<Unlocked>(),
        "Closes the shards that this process keeps open, of all loaders, and returns their number. They are "
        "opened again when next read. seconds: how long to wait, as closing hangs where a server is gone.");
    module.def(
        "open_files",
        [] {
            open_files::Count count = open_files::count();
            return py::make_tuple(count.kept, count.unclosed);
        },
        "(shards that this process keeps open, shards that it no longer keeps and has not closed yet).");
}

void bind_byte_batch(py::module_ &module) {
    py::class_<Blob>(module, "Blob", py::buffer_protocol()).def_buffer([](Blob &blob) {
        const uint8_t *bytes = blob.batch->bytes(blob.index);
        return py::buffer_info(const_cast<uint8_t *>(bytes), 1, py::format_descriptor<uint8_t>::format(), 1,
                               {blob.batch->size(blob.index)}, {size_t{1}}, true);
    });
    py::class_<ByteBatch, std::shared_ptr<ByteBatch>>(module, "ByteBatch")
        .def("wait", &ByteBatch::wait, py::arg("timeout_seconds"), py::call_guard<Unlocked>())
        .def(
            "blob",
            [](std::shared_ptr<ByteBatch> batch, size_t blob) {
                checked(*batch, blob);
                return Blob{std::move(batch), blob};
            },
            py::arg("blob"))
        .def(
            "bytes",
            [](const ByteBatch &batch, size_t blob) {
                checked(batch, blob);
                return py::bytes(reinterpret_cast<const char *>(batch.bytes(blob)), batch.size(blob));
            },
            py::arg("blob"))
        .def(
            "error", [](const ByteBatch &batch, size_t blob) { return batch.error(checked(batch, blob)); },
            py::arg("blob"), "0, an errno, SHORT_FILE or CHANGED_FILE.")
        .def(
            "attempts", [](const ByteBatch &batch, size_t blob) { return batch.attempts(checked(batch, blob)); },
            py::arg("blob"), "How many reads of it were tried.")
        .def(
            "missing", [](const ByteBatch &batch, size_t blob) { return batch.missing(checked(batch, blob)); },
            py::arg("blob"))
        .def(
            "integers",
            [](const ByteBatch &batch, size_t first, size_t count) -> py::object {
                if (count > batch.blobs() || first > batch.blobs() - count) throw py::index_error("no such blobs");
                py::array_t<int64_t> out(static_cast<py::ssize_t>(count));
                return batch.integers(first, count, out.mutable_data()) ? py::object(std::move(out)) : py::none();
            },
            py::arg("first"), py::arg("count"), "int64 [count], or None where a blob is not a plain decimal integer.")
        .def("cancel", &ByteBatch::cancel)
        .def_property_readonly("first_error",
                               [](const ByteBatch &batch) -> py::object {
                                   for (size_t i = 0; i < batch.blobs(); i++)
                                       if (batch.error(i)) return py::int_(i);
                                   return py::none();
                               })
        .def_property_readonly("bytes_read", &ByteBatch::bytes_read)
        .def_property_readonly("retries", &ByteBatch::retries, "Reads that were retried.")
        .def_property_readonly("busy_seconds", &ByteBatch::busy_seconds);
}

}  // namespace

void bind_shard_reader(py::module_ &module) {
    bind_files(module);
    bind_byte_batch(module);
    py::class_<ShardReader, std::shared_ptr<ShardReader>>(module, "ShardReader", "The reader threads.")
        .def(py::init<int>(), py::arg("threads"))
        .def("submit", &ShardReader::submit, py::arg("files"), py::arg("file_ids"), py::arg("offsets_bytes"),
             py::arg("sizes_bytes"), py::arg("paths"), py::arg("memory"), py::kw_only(), py::arg("urgent") = false,
             py::arg("retry") = true,
             "urgent: read before everything in the queue. retry: whether transient errors are retried.")
        .def("leave_behind", &ShardReader::leave_behind, py::arg("batch"),
             "Abandons a batch whose reads hang: its threads end with the reads, and new threads replace them.")
        .def("set_delay_seconds", &ShardReader::set_delay_seconds, py::arg("seconds"),
             "Sleeps before each read: a slow disk, for tests.")
        .def_property("backoff_seconds", &ShardReader::backoff_seconds, &ShardReader::set_backoff_seconds,
                      "Pauses before each retry of a read; tests make them short.")
        .def_property_readonly("threads", &ShardReader::threads);
}

}  // namespace fastload
