// Binds image_batch.h to Python: requests, waiting for them, and reports as arrays.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <utility>

#include "base/unlocked.h"
#include "decode/image_batch.h"
#include "decode/jpeg.h"

namespace fastload {
namespace {
namespace py = pybind11;
using Positions = py::array_t<int64_t, py::array::c_style | py::array::forcecast>;

// One field as Python gives it.
struct FieldRequest {
    ImageSpec spec;
    size_t first_blob, geometry_first_blob;
    std::shared_ptr<const PixelWriter> writer;
    py::buffer out;
    std::shared_ptr<const ImageAugmenter> augmenter;
};

// Python objects whose last reference a native thread dropped, until a thread with the GIL releases them.
class DeferredRelease {
   public:
    // Keeps `object` alive for threads without the GIL. Call it with the GIL.
    static std::shared_ptr<void> hold(py::object object) {
        auto held = std::make_unique<Held>();
        held->object = object.release().ptr();
        // No mutex: a child forked while a native thread holds it would wait for ever.
        return {held.release(), [](Held *held_object) {
                    held_object->next = first.load();
                    while (!first.compare_exchange_weak(held_object->next, held_object)) {
                    }
                }};
    }
    // Call it with the GIL.
    static void release_all() {
        for (Held *held_object = first.exchange(nullptr); held_object;) {
            std::unique_ptr<Held> held(held_object);
            held_object = held->next;
            Py_DECREF(held->object);
        }
    }

   private:
    struct Held {
        PyObject *object;
        Held *next;
    };
    inline static std::atomic<Held *> first{nullptr};
};

std::shared_ptr<void> memory_of(const py::buffer &out) {
    if (py::isinstance<Buffer>(out)) return out.cast<std::shared_ptr<Buffer>>();
    return DeferredRelease::hold(out);
}

// A submitted batch. Destroying it cancels the batch without waiting: the batch owns the memory that it writes to.
class PendingImages {
   public:
    PendingImages(std::shared_ptr<ThreadPool> pool, std::shared_ptr<ImageBatch> batch)
        : pool_(std::move(pool)), batch_(std::move(batch)) {}
    ~PendingImages() {
        batch_->cancel();
        batch_.reset();
        DeferredRelease::release_all();
    }
    PendingImages(const PendingImages &) = delete;
    PendingImages &operator=(const PendingImages &) = delete;
    bool wait(double timeout_seconds) { return batch_->wait(timeout_seconds); }
    const ImageBatch &batch() const { return *batch_; }
    void cancel() { batch_->cancel(); }

   private:
    std::shared_ptr<ThreadPool> pool_;
    std::shared_ptr<ImageBatch> batch_;
};

ImageField checked_field(const FieldRequest &field, size_t samples, size_t blobs) {
    py::buffer_info out = field.out.request(true);
    ImageField checked{field.spec,   field.first_blob, field.geometry_first_blob,
                       field.writer, field.augmenter,  static_cast<uint8_t *>(out.ptr)};
    if (static_cast<size_t>(out.size) * static_cast<size_t>(out.itemsize) < samples * checked.sample_bytes())
        throw std::invalid_argument("out is too small for the batch");
    if (field.augmenter && field.augmenter->samples != samples)
        throw std::invalid_argument("the augmenter must have a row for each sample");
    const PixelWriter &writer = field.augmenter ? field.augmenter->pixel_writer : *field.writer;
    if (field.spec.width != writer.width() || field.spec.height != writer.height())
        throw std::invalid_argument("spec and its writer or augmenter must have one size");
    if (field.first_blob + samples > blobs || field.geometry_first_blob + samples > blobs)
        throw std::invalid_argument("the fields need more blobs than the batch of bytes holds");
    return checked;
}

std::unique_ptr<PendingImages> submit(std::shared_ptr<ThreadPool> pool, std::shared_ptr<ByteBatch> bytes,
                                      const std::vector<FieldRequest> &fields, uint64_t seed,
                                      const Positions &positions, uint64_t max_pixels, bool urgent) {
    std::string reasons;
    if (!load_jpeg_library({}, &reasons))
        throw std::runtime_error("no libjpeg is loaded: call load_jpeg_library first");
    DeferredRelease::release_all();
    ImageRequest request{{}, {}, {positions.data(), positions.data() + positions.size()}, seed, max_pixels};
    for (const FieldRequest &field : fields) {
        request.fields.push_back(checked_field(field, request.positions.size(), bytes->blobs()));
        request.memory.push_back(memory_of(field.out));
    }
    auto batch = std::make_shared<ImageBatch>(bytes, std::move(request));
    // Runs on a reader thread. If the pool is gone by then, the batch ends here.
    bytes->then([weak = std::weak_ptr<ThreadPool>(pool), batch, urgent] {
        auto alive = weak.lock();
        if (!alive) {
            batch->cancel();
            return batch->finished();
        }
        try {
            alive->submit(batch, urgent);
        } catch (const std::exception &) {  // no memory, and nothing else
            batch->out_of_memory();
        }
    });
    return std::make_unique<PendingImages>(std::move(pool), std::move(batch));
}

py::array_t<int32_t> statuses(const PendingImages &pending) {
    const auto &reports = pending.batch().reports();
    py::array_t<int32_t> out(static_cast<py::ssize_t>(reports.size()));
    std::transform(reports.begin(), reports.end(), out.mutable_data(),
                   [](const ImageReport &report) { return report.status; });
    return out;
}

py::dict report_of(const PendingImages &pending, size_t field) {
    const ImageBatch &batch = pending.batch();
    if ((field + 1) * batch.samples() > batch.reports().size()) throw py::index_error("no such field");
    py::ssize_t samples = static_cast<py::ssize_t>(batch.samples());
    py::array_t<int32_t> sizes({samples, py::ssize_t{2}}), resized({samples, py::ssize_t{2}}),
        corners({samples, py::ssize_t{2}});
    py::array_t<double> boxes({samples, py::ssize_t{4}});
    py::array_t<bool> flips(samples);
    for (py::ssize_t i = 0; i < samples; i++) {
        const ImageReport &report = batch.reports()[field * batch.samples() + static_cast<size_t>(i)];
        sizes.mutable_at(i, 0) = report.height;
        sizes.mutable_at(i, 1) = report.width;
        resized.mutable_at(i, 0) = report.geometry.resized_h;
        resized.mutable_at(i, 1) = report.geometry.resized_w;
        corners.mutable_at(i, 0) = report.geometry.top;
        corners.mutable_at(i, 1) = report.geometry.left;
        std::copy(report.geometry.box, report.geometry.box + 4, boxes.mutable_data(i, 0));
        flips.mutable_at(i) = report.geometry.flip;
    }
    return py::dict(py::arg("sizes") = sizes, py::arg("boxes") = boxes, py::arg("resized") = resized,
                    py::arg("corners") = corners, py::arg("flips") = flips);
}

}  // namespace

void bind_image_batch(py::module_ &module) {
    py::enum_<ImageStatus>(module, "ImageStatus", py::arithmetic())
        .value("OK", IMAGE_OK)
        .value("UNSUPPORTED", IMAGE_UNSUPPORTED)
        .value("DAMAGED", IMAGE_DAMAGED)
        .value("MISSING", IMAGE_MISSING)
        .value("UNREAD", IMAGE_UNREAD)
        .value("TOO_LARGE", IMAGE_TOO_LARGE)
        .value("BAD_GEOMETRY", IMAGE_BAD_GEOMETRY)
        .value("OUT_OF_MEMORY", IMAGE_OUT_OF_MEMORY)
        .value("FAILED", IMAGE_FAILED);
    py::class_<ImageAugmenter, std::shared_ptr<ImageAugmenter>>(module, "ImageAugmenter");
    py::class_<FieldRequest>(module, "ImageFieldRequest")
        .def(py::init<ImageSpec, size_t, size_t, std::shared_ptr<PixelWriter>, py::buffer,
                      std::shared_ptr<ImageAugmenter>>(),
             py::arg("spec"), py::arg("first_blob"), py::arg("geometry_first_blob"), py::arg("writer"), py::arg("out"),
             py::arg("augmenter") = py::none(),
             "augmenter: an Augmenter with a row for each sample, which writes in place of `writer`.");
    py::class_<PendingImages>(module, "PendingImages",
                              "A submitted batch of images; dropping it cancels the batch without waiting.")
        .def("wait", &PendingImages::wait, py::arg("timeout_seconds"), py::call_guard<Unlocked>())
        .def("cancel", &PendingImages::cancel)
        .def_property_readonly("status", &statuses, "[fields * samples] int32: an ImageStatus each.")
        .def(
            "message",
            [](const PendingImages &pending, size_t index) {
                if (index >= pending.batch().reports().size()) throw py::index_error("no such image");
                return pending.batch().message(index);
            },
            py::arg("index"))
        .def("report", &report_of, py::arg("field"),
             "sizes [N, 2] and resized [N, 2] as (height, width), corners [N, 2] as (top, left), boxes [N, 4] as (x0, "
             "y0, x1, y1), flips [N].")
        .def_property_readonly("busy_seconds",
                               [](const PendingImages &pending) { return pending.batch().busy_seconds(); });
    py::class_<ThreadPool, std::shared_ptr<ThreadPool>>(module, "ImageDecoder", "The decoder threads.")
        .def(py::init([](int threads) { return std::make_shared<ThreadPool>(threads, "fastload-decode"); }),
             py::arg("threads"))
        .def("submit", &submit, py::arg("bytes"), py::arg("fields"), py::arg("seed"), py::arg("positions"),
             py::arg("max_pixels"), py::kw_only(), py::arg("urgent") = false,
             "urgent: decoded before everything in the queue.");
}

}  // namespace fastload
