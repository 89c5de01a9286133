#include "decode/image_batch.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "decode/image_header.h"
#include "decode/render_jpeg.h"

namespace fastload {
namespace {

struct Size {
    int width = 0, height = 0;
};

Size upright_size(const ImageHeader &header) {
    int width = static_cast<int>(std::min<uint32_t>(header.width, INT32_MAX)),
        height = static_cast<int>(std::min<uint32_t>(header.height, INT32_MAX));
    return header.orientation >= 5 ? Size{height, width} : Size{width, height};
}

// The geometry of an image of another size that shares the view: a mask at half the resolution of its picture.
Geometry stretched(Geometry geometry, Size from, Size to) {
    for (int edge = 0; edge < 4; edge++) {
        int old_side = edge % 2 ? from.height : from.width, new_side = edge % 2 ? to.height : to.width;
        if (old_side != new_side) geometry.box[edge] = geometry.box[edge] * new_side / old_side;
    }
    return geometry;
}

}  // namespace

ImageBatch::ImageBatch(std::shared_ptr<ByteBatch> bytes, ImageRequest request)
    : Work(request.fields.size() * request.positions.size()),
      bytes_(std::move(bytes)),
      request_(std::move(request)),
      reports_(count(), ImageReport{IMAGE_UNREAD, 0, 0, {}}),
      messages_(count()) {}

// Parts go sample by sample, so that the blobs of a sample are still in the cache.
void ImageBatch::run(size_t part) noexcept {
    int64_t begun = now_nanoseconds();
    size_t field_index = part % request_.fields.size(), sample = part / request_.fields.size();
    const ImageField &field = request_.fields[field_index];
    size_t index = field_index * samples() + sample;
    try {
        reports_[index].status = render(field, sample, index);
    } catch (const std::bad_alloc &) {
        reports_[index].status = IMAGE_OUT_OF_MEMORY;
    } catch (const std::exception &error) {
        reports_[index].status = IMAGE_FAILED;
        try {
            messages_[index] = error.what();
        } catch (const std::bad_alloc &) {
            reports_[index].status = IMAGE_OUT_OF_MEMORY;
        }
    }
    busy_nanoseconds_ += now_nanoseconds() - begun;
}

void ImageBatch::finished() noexcept {
    request_.memory.clear();  // before the wait ends: whoever waited may count on the memory
    completion_.set();
}

void ImageBatch::out_of_memory() noexcept {
    for (ImageReport &report : reports_) report.status = IMAGE_OUT_OF_MEMORY;
    finished();
}

ImageStatus ImageBatch::render(const ImageField &field, size_t sample, size_t index) {
    size_t blob = field.first_blob + sample, guide = field.geometry_first_blob + sample;
    ImageReport &report = reports_[index];
    if (bytes_->missing(blob) || bytes_->missing(guide)) return IMAGE_MISSING;
    if (bytes_->error(blob) || bytes_->error(guide)) return IMAGE_UNREAD;
    ImageHeader header{}, guide_header{};
    if (!parse_image_header(bytes_->bytes(blob), bytes_->size(blob), &header) || header.format != IMAGE_FORMAT_JPEG)
        return IMAGE_UNSUPPORTED;
    guide_header = header;
    if (guide != blob && !parse_image_header(bytes_->bytes(guide), bytes_->size(guide), &guide_header))
        return IMAGE_UNSUPPORTED;
    if (uint64_t{header.width} * header.height > request_.max_pixels) {
        messages_[index] = std::to_string(header.width) + "x" + std::to_string(header.height) +
                           " pixels are more than max_pixels=" + std::to_string(request_.max_pixels);
        return IMAGE_TOO_LARGE;
    }
    Size own = upright_size(header), guiding = upright_size(guide_header);
    report.width = guiding.width;
    report.height = guiding.height;
    report.geometry = geometry(field.spec, guiding.width, guiding.height, request_.seed,
                               static_cast<uint64_t>(request_.positions[sample]));
    if (report.geometry.status != GEOMETRY_OK) return IMAGE_BAD_GEOMETRY;
    const ImageAugmenter *augmenter = field.augmenter.get();
    uint8_t *out = field.out + sample * field.sample_bytes();
    JpegDecoder::Status status =
        render_jpeg(bytes_->bytes(blob), bytes_->size(blob), header, stretched(report.geometry, guiding, own),
                    field.spec.scaled, field.spec.filter, augmenter ? augmenter->pixel_writer : *field.writer,
                    augmenter ? augmenter->scratch() : out, &messages_[index]);
    if (status == JpegDecoder::Status::unsupported) return IMAGE_UNSUPPORTED;
    if (status == JpegDecoder::Status::damaged) return IMAGE_DAMAGED;
    if (augmenter) augmenter->augment_scratch(sample, out);
    return IMAGE_OK;
}

}  // namespace fastload
