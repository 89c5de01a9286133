// The images of a batch, from bytes to the training tensor, on threads that never touch Python.
//
// In: a ByteBatch (started when it is read), a spec for each image field, seed and positions of the samples.
// Out: pixels in the batch's buffer, and a report for each image: status, sizes, crop.
// Promises: one task per image; an image that this path does not take (not a JPEG, CMYK, 12 bits) is reported as
// `unsupported` and left to Pillow; a damaged one as `damaged` with the reason; neither stops the others. Failures
// that say nothing about the image (no memory, a bug of ours) are never reported as damage.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "decode/geometry.h"
#include "decode/pixel_writer.h"
#include "read/shard_reader.h"

namespace fastload {

enum ImageStatus {
    IMAGE_OK = 0,
    IMAGE_UNSUPPORTED = 1,
    IMAGE_DAMAGED = 2,
    IMAGE_MISSING = 3,
    IMAGE_UNREAD = 4,
    IMAGE_TOO_LARGE = 5,
    IMAGE_BAD_GEOMETRY = 6,
    IMAGE_OUT_OF_MEMORY = 7,  // nothing is wrong with the image
    IMAGE_FAILED = 8          // a bug of ours; nothing is wrong with the image
};

// Augments the images of a batch on the thread that decoded them, before they are written; ops/augment.h is one.
class ImageAugmenter {
   public:
    ImageAugmenter(int height, int width, size_t samples, size_t sample_bytes)
        : pixel_writer(Dtype::uint8, false, height, width, 255.0f, {}, {1.0f, 1.0f, 1.0f}),
          samples(samples),
          sample_bytes(sample_bytes) {}
    virtual ~ImageAugmenter() = default;
    // Memory of the calling thread for one image, as `pixel_writer` writes it.
    virtual uint8_t *scratch() const = 0;
    // Augments the image in scratch() as sample number `sample`, and writes `sample_bytes` to `out`.
    virtual void augment_scratch(size_t sample, uint8_t *out) const = 0;

    const PixelWriter pixel_writer;  // planes of uint8
    const size_t samples, sample_bytes;
};

struct ImageField {
    ImageSpec spec;              // of the field whose geometry it shares, but for filter and scaled
    size_t first_blob;           // its blobs in the ByteBatch: first_blob + sample
    size_t geometry_first_blob;  // those of the field whose geometry it shares; its own first_blob otherwise
    std::shared_ptr<const PixelWriter> writer;
    std::shared_ptr<const ImageAugmenter> augmenter;  // writes in place of the writer; nullptr: none
    uint8_t *out;                                     // [samples] of sample_bytes()

    size_t sample_bytes() const { return augmenter ? augmenter->sample_bytes : writer->sample_bytes(); }
};

// The result for one image. Sizes are upright, in pixels, of the image that decides the geometry.
struct ImageReport {
    int32_t status, width, height;
    Geometry geometry;
};

struct ImageRequest {
    std::vector<ImageField> fields;
    std::vector<std::shared_ptr<void>> memory;  // what the fields write to; held until no thread does any more
    std::vector<int64_t> positions;             // one per sample
    uint64_t seed;
    uint64_t max_pixels;  // checked from the header before anything is decoded
};

class ImageBatch : public Work {
   public:
    ImageBatch(std::shared_ptr<ByteBatch> bytes, ImageRequest request);
    void run(size_t part) noexcept override;
    void finished() noexcept override;
    void out_of_memory() noexcept;  // in place of being submitted

    // What follows holds after the batch is complete; index = field * samples + sample.
    const std::vector<ImageReport> &reports() const { return reports_; }
    const std::string &message(size_t index) const { return messages_[index]; }
    size_t samples() const { return request_.positions.size(); }

   private:
    ImageStatus render(const ImageField &field, size_t sample, size_t index);

    std::shared_ptr<ByteBatch> bytes_;
    ImageRequest request_;
    std::vector<ImageReport> reports_;
    std::vector<std::string> messages_;
};

}  // namespace fastload
