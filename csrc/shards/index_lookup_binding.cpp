// Binds index_lookup.h to Python: arguments are checked, the GIL is released, results become NumPy arrays.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cerrno>
#include <system_error>

#include "base/unlocked.h"
#include "shards/index_lookup.h"

namespace fastload {
namespace {

namespace py = pybind11;
using Rows = py::array_t<int64_t, py::array::c_style | py::array::forcecast>;

template <typename T>
py::array_t<T> array(const std::vector<T> &values) {
    return py::array_t<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

// A path or a key: bytes of any encoding, as os.fsdecode reads them.
py::str text(const std::string &bytes) {
    auto out = py::reinterpret_steal<py::str>(
        PyUnicode_DecodeUTF8(bytes.data(), static_cast<Py_ssize_t>(bytes.size()), "surrogateescape"));
    if (!out) throw py::error_already_set();
    return out;
}

// Raises the OSError that belongs to the reason, FileNotFoundError among them.
std::shared_ptr<MappedFile> mapped(const std::string &path) {
    try {
        Unlocked unlocked;  // a mount that is gone blocks `open` for good
        return std::make_shared<MappedFile>(path);
    } catch (const std::system_error &problem) {
        errno = problem.code().value();
        PyErr_SetFromErrnoWithFilename(PyExc_OSError, path.c_str());
        throw py::error_already_set();
    }
}

// {"at": byte in the file, "width": bytes, "shift": bits} or None.
PackedColumn column(const MappedFile &file, const py::object &description) {
    if (description.is_none()) return {};
    const auto at = description["at"].cast<uint64_t>();
    const auto width = description["width"].cast<uint8_t>();
    const auto shift = description["shift"].cast<uint8_t>();
    if ((width != 1 && width != 2 && width != 4 && width != 8) || shift > 16 || at > file.size()) {
        throw std::invalid_argument("an index column has an impossible width, shift or offset");
    }
    return {file.bytes() + at, width, shift};
}

std::shared_ptr<ContainerColumns> container(const std::shared_ptr<MappedFile> &file, const py::dict &described) {
    auto out = std::make_shared<ContainerColumns>();
    out->file = file;
    out->rows = described["rows"].cast<uint64_t>();
    out->container_bytes = described["container_bytes"].cast<uint64_t>();
    out->columns_start = described["columns_start"].cast<uint64_t>();
    out->checksum = described["checksum"].cast<uint32_t>();
    out->is_folder = !described["folder"].is_none();
    if (out->is_folder) out->folder = described["folder"].cast<std::string>();
    out->key_end = column(*file, described["key_end"]);
    out->keys = column(*file, described["keys"]);
    out->keys_bytes = described["keys_bytes"].cast<uint64_t>();
    out->labels = column(*file, described["labels"]);
    for (const py::handle item : described["extensions"]) {
        const auto extension = item.cast<py::dict>();
        ExtensionColumns columns;
        columns.extension = extension["extension"].cast<uint64_t>();
        columns.offset_bytes = column(*file, extension["offset_bytes"]);
        columns.size_bytes = column(*file, extension["size_bytes"]);
        columns.spelling = column(*file, extension["spelling"]);
        columns.spellings = extension["spellings"].cast<std::vector<std::string>>();
        if (columns.size_bytes.width == 0) throw std::invalid_argument("an extension has no sizes");
        out->extensions.push_back(std::move(columns));
    }
    if (out->key_end.width == 0 || out->keys.width != 1) throw std::invalid_argument("an index has no keys");
    return out;
}

py::tuple locate(const IndexLookup &lookup, const Rows &rows, const std::vector<uint64_t> &alternatives) {
    if (alternatives.size() > 127)
        throw std::invalid_argument("a field has at most 127 alternatives, got " + std::to_string(alternatives.size()));
    const LocatedRows found =
        without_gil([&] { return lookup.locate(rows.data(), static_cast<uint64_t>(rows.size()), alternatives); });
    py::dict paths;
    for (const auto &[i, path] : found.paths) paths[py::int_(i)] = text(path);
    return py::make_tuple(array(found.file_id), array(found.offset_bytes), array(found.size_bytes),
                          array(found.alternative), paths);
}

py::list texts(const std::vector<std::string> &all) {
    py::list out;
    for (const std::string &bytes : all) out.append(text(bytes));
    return out;
}

}  // namespace

void bind_index_lookup(py::module_ &module) {
    py::register_exception<IndexDamage>(module, "IndexDamage");
    module.def("crc32", [](const py::buffer &buffer) {
        const py::buffer_info view = buffer.request();
        Unlocked unlocked;
        return crc32(static_cast<const uint8_t *>(view.ptr), static_cast<uint64_t>(view.size * view.itemsize));
    });
    py::class_<MappedFile, std::shared_ptr<MappedFile>>(module, "MappedFile", py::buffer_protocol())
        .def(py::init(&mapped))
        .def_buffer([](MappedFile &file) {
            return py::buffer_info(const_cast<uint8_t *>(file.bytes()), static_cast<py::ssize_t>(file.size()), true);
        });
    py::class_<IndexLookup>(module, "IndexLookup")
        .def(py::init<>())
        .def("add", [](IndexLookup &self, const std::shared_ptr<MappedFile> &file,
                       const py::dict &described) { self.add(container(file, described)); })
        .def("replace", [](IndexLookup &self, uint64_t number, const std::shared_ptr<MappedFile> &file,
                           const py::dict &described) { self.replace(number, container(file, described)); })
        .def_property_readonly("rows", &IndexLookup::rows)
        .def("row_starts",
             [](const IndexLookup &self) {
                 const std::vector<uint64_t> starts = self.row_starts();
                 return array(std::vector<int64_t>(starts.begin(), starts.end()));
             })
        .def("locate", &locate)
        .def("keys",
             [](const IndexLookup &self, const Rows &rows) {
                 return texts(without_gil([&] { return self.keys(rows.data(), static_cast<uint64_t>(rows.size())); }));
             })
        .def(
            "labels",
            [](const IndexLookup &self, const Rows &rows) {
                return array(without_gil([&] { return self.labels(rows.data(), static_cast<uint64_t>(rows.size())); }));
            })
        .def("find",
             [](const IndexLookup &self, const std::vector<std::string> &wanted) {
                 const auto [found, unknown] = without_gil([&] { return self.find(wanted); });
                 return py::make_tuple(array(found), texts(unknown));
             })
        .def("tally", [](const IndexLookup &self, const Rows &rows) {
            Unlocked unlocked;
            return self.tally(rows.data(), static_cast<uint64_t>(rows.size()));
        });
}

}  // namespace fastload
