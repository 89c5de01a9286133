// Binds tar_index.h and zip_index.h: a ContainerProblem becomes a ShardError, a refusal of the system an OSError.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cerrno>
#include <system_error>
#include <vector>

#include "base/unlocked.h"
#include "shards/tar_index.h"
#include "shards/zip_index.h"

namespace fastload {
namespace {
namespace py = pybind11;

// The rows as the keyword arguments of fastload.shards.rows.Rows.
py::dict rows_to_python(const SampleRows &rows) {
    auto array = [](const std::vector<int64_t> &values) {
        return py::array_t<int64_t>(static_cast<py::ssize_t>(values.size()), values.data());
    };
    py::list extensions, offsets, sizes;
    for (const ExtensionColumn &column : rows.columns) {
        extensions.append(py::bytes(column.extension));
        offsets.append(array(column.offset_bytes));
        sizes.append(array(column.size_bytes));
    }
    py::object label = py::none();
    if (rows.label_offset >= 0) label = py::make_tuple(rows.label_offset, rows.label_size);
    return py::dict(py::arg("extensions") = extensions, py::arg("offset_bytes") = offsets,
                    py::arg("size_bytes") = sizes, py::arg("key_end") = array(rows.key_end),
                    py::arg("keys") = py::bytes(rows.keys), py::arg("skipped") = rows.skipped,
                    py::arg("members_stop") = rows.members_stop, py::arg("label_member") = label,
                    py::arg("header_bytes") = rows.header_bytes);
}

// Raises fastload.errors.ShardError with this message (the GIL must be held).
[[noreturn]] void raise_shard_error(const std::string &message) {
    // Member names are bytes of any encoding; the message must be text all the same.
    py::object text = py::reinterpret_steal<py::object>(
        PyUnicode_DecodeUTF8(message.data(), static_cast<Py_ssize_t>(message.size()), "backslashreplace"));
    if (!text) throw py::error_already_set();
    py::object type = py::module_::import("fastload.errors").attr("ShardError");
    PyErr_SetObject(type.ptr(), text.ptr());
    throw py::error_already_set();
}

// Rows, with the GIL released while `index` runs.
template <SampleRows (*index)(const std::string &path, const std::string &name)>
py::dict indexed(const std::string &path, const std::string &name) {
    try {
        return rows_to_python(without_gil([&] { return index(path, name); }));
    } catch (const ContainerProblem &problem) {
        raise_shard_error(problem.what());
    } catch (const std::system_error &refused) {
        errno = refused.code().value();
        PyErr_SetFromErrnoWithFilename(PyExc_OSError, path.c_str());
        throw py::error_already_set();
    }
}

}  // namespace

void bind_container_index(py::module_ &module) {
    module.def("index_tar", &indexed<index_tar>, py::arg("path"), py::arg("name"),
               "The rows of one tar as keyword arguments of Rows; see shards/tar.py.");
    module.def("index_zip", &indexed<index_zip>, py::arg("path"), py::arg("name"),
               "The rows of one zip as keyword arguments of Rows; see shards/zip.py.");
}

}  // namespace fastload
