#include "decode/render_jpeg.h"

#include <algorithm>
#include <memory>
#include <new>
#include <vector>

#include "decode/jpeg_planes.h"
#include "decode/pixels.h"
#include "decode/resize.h"

namespace fastload {
namespace {

using Status = JpegDecoder::Status;

constexpr size_t MAX_KEPT_BYTES = size_t{32} << 20;

// What a thread keeps from image to image.
struct Scratch {
    JpegDecoder decoder;
    PlaneReader planes;
    std::unique_ptr<Resizer> resizer;
    const PixelKernels *kernels = nullptr;
    std::vector<uint8_t> strip, pixels, upright;

    // One huge image must not hold its memory for the life of the thread.
    void let_go_of_much() {
        for (std::vector<uint8_t> *memory : {&strip, &pixels, &upright})
            if (memory->capacity() > MAX_KEPT_BYTES) std::vector<uint8_t>().swap(*memory);
        if (resizer && resizer->held_bytes() > MAX_KEPT_BYTES) kernels = nullptr;
    }

    Resizer &resizer_for(const PixelKernels &wanted) {
        if (kernels != &wanted) resizer = std::make_unique<Resizer>(&wanted);  // what the last one held is freed
        kernels = &wanted;
        return *resizer;
    }
};

// EXIF orientations 2 to 8: where the pixel (x, y) of the upright image lies in the stored one.
// 5 to 8 swap the axes; then x runs along stored rows.
void make_upright(const uint8_t *stored, int stored_width, int stored_height, int orientation,
                  std::vector<uint8_t> *upright) {
    bool swapped = orientation >= 5;
    int width = swapped ? stored_height : stored_width, height = swapped ? stored_width : stored_height;
    bool from_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    bool from_bottom = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    upright->resize(static_cast<size_t>(width) * static_cast<size_t>(height) * 3);
    uint8_t *to = upright->data();
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            int column = swapped ? y : x, row = swapped ? x : y;
            if (from_right) column = stored_width - 1 - column;
            if (from_bottom) row = stored_height - 1 - row;
            const uint8_t *from =
                stored +
                (static_cast<size_t>(row) * static_cast<size_t>(stored_width) + static_cast<size_t>(column)) * 3;
            *to++ = from[0];
            *to++ = from[1];
            *to++ = from[2];
        }
}

// At least FRONT_PADDING into `memory`, and at no multiple of 16: libjpeg-turbo writes rows that are aligned to its
// vectors past the cache, from where the resize would have to fetch them again.
uint8_t *unaligned_strip(std::vector<uint8_t> *memory, size_t size) {
    constexpr size_t LINE_BYTES = 64, OFFSET = 8;
    memory->resize(FRONT_PADDING + LINE_BYTES + size);
    uint8_t *begin = memory->data() + FRONT_PADDING;
    size_t past_line = reinterpret_cast<uintptr_t>(begin) % LINE_BYTES;
    return begin + (LINE_BYTES + OFFSET - past_line) % LINE_BYTES;
}

// Fills one strip after the other; read(blank, count) puts the next `count` rows below the first `blank` of `strip`.
template <class Read>
Status push_rows(Resizer &resizer, const Strip &strip, const RowSink &sink, Read read) {
    uint32_t blank = static_cast<uint32_t>(resizer.blank_rows());
    uint32_t row = static_cast<uint32_t>(resizer.first_row()), stop = static_cast<uint32_t>(resizer.last_row());
    for (; row < stop; blank = 0) {
        uint32_t count = std::min<uint32_t>(STRIP_ROWS - blank, stop - row);
        Status status = read(blank, count);
        if (status != Status::ok) return status;
        resizer.push_strip(strip, sink);
        row += count;
    }
    return Status::ok;
}

// Decodes rows and columns that the resize reads, a strip at a time, and resizes each while it is in the cache.
Status stream(Scratch &scratch, Resizer &resizer, const RowSink &sink) {
    JpegDecoder &decoder = scratch.decoder;
    uint32_t wanted_left = static_cast<uint32_t>(resizer.first_column_needed()),
             wanted_stop = static_cast<uint32_t>(resizer.last_column_needed());
    uint32_t left = wanted_left, columns = wanted_stop - wanted_left;
    Status status = decoder.crop(&left, &columns);
    if (status != Status::ok) return status;
    size_t skipped_bytes = static_cast<size_t>(wanted_left - left) * 3;
    size_t stride = spread_stride(
        std::max(static_cast<size_t>(columns) * 3, skipped_bytes + resizer.columns_read() * 3 + LANE_PADDING));
    uint8_t *strip = unaligned_strip(&scratch.strip, stride * STRIP_ROWS);
    status = decoder.skip(static_cast<uint32_t>(resizer.first_row()));
    if (status != Status::ok) return status;
    return push_rows(resizer, {strip + skipped_bytes, stride, 0}, sink, [&](uint32_t blank, uint32_t count) {
        return decoder.read(strip + blank * stride, stride, count);
    });
}

// The same from planes of luma and chroma.
Status stream_planes(Scratch &scratch, const JpegPlanes &planes, Resizer &resizer, const RowSink &sink) {
    uint32_t wanted_left = static_cast<uint32_t>(resizer.first_column_needed());
    uint32_t columns = static_cast<uint32_t>(resizer.last_column_needed()) - wanted_left;
    uint32_t left = scratch.planes.begin(&scratch.decoder, planes, scratch.kernels, wanted_left, &columns);
    size_t skipped = wanted_left - left;
    size_t stride = spread_stride(std::max<size_t>(columns, skipped + resizer.columns_read()) + LANE_PADDING);
    size_t plane_stride = stride * STRIP_ROWS;
    scratch.strip.resize(FRONT_PADDING + 3 * plane_stride);
    uint8_t *strip = scratch.strip.data() + FRONT_PADDING;
    scratch.planes.skip(static_cast<uint32_t>(resizer.first_row()));
    return push_rows(resizer, {strip + skipped, stride, plane_stride}, sink, [&](uint32_t blank, uint32_t count) {
        return scratch.planes.read(strip + blank * stride, plane_stride, stride, count);
    });
}

// Whether planes are the faster way: libjpeg then decodes what it could have skipped, columns that the crop leaves out
// and rows above it, which costs more than the conversion where that is about half of the image.
bool mostly_needed(const Resizer &resizer, const ResizeRequest &request) {
    double columns = resizer.last_column_needed() - resizer.first_column_needed();
    double rows = resizer.last_row() - resizer.first_row();
    return columns * rows > 0.6 * request.in_width * resizer.last_row();
}

// The first `rows` rows of an upright image, all of any other. No more: what lies below is not looked at on any other
// way either, and whether an image is damaged must not depend on the kernels that decide the way.
Status decode_all(Scratch &scratch, int orientation, int rows, const uint8_t **pixels) {
    JpegDecoder &decoder = scratch.decoder;
    int width = static_cast<int>(decoder.width()), height = static_cast<int>(decoder.height());
    if (orientation != 1) rows = height;
    size_t stride = static_cast<size_t>(width) * 3;
    scratch.pixels.resize(stride * static_cast<size_t>(rows));
    Status status = decoder.read(scratch.pixels.data(), stride, static_cast<uint32_t>(rows));
    *pixels = scratch.pixels.data();
    if (status == Status::ok && orientation != 1) {
        make_upright(scratch.pixels.data(), width, height, orientation, &scratch.upright);
        *pixels = scratch.upright.data();
    }
    return status;
}

ResizeRequest request_for(const JpegDecoder &decoder, int orientation, const Geometry &geometry, int denominator,
                          int filter) {
    int width = static_cast<int>(decoder.stored_width()), height = static_cast<int>(decoder.stored_height());
    if (orientation >= 5) std::swap(width, height);
    ScaledBox scaled = scaled_box(geometry, width, height, denominator, orientation);
    ResizeRequest request{scaled.width,       scaled.height, {},           geometry.resized_w,
                          geometry.resized_h, geometry.left, geometry.top, geometry.width,
                          geometry.height,    geometry.flip, filter};
    std::copy(scaled.box, scaled.box + 4, request.box);
    return request;
}

std::string contradiction(uint32_t width, uint32_t height, uint32_t expected_width, uint32_t expected_height) {
    return "its headers contradict each other: " + std::to_string(width) + " x " + std::to_string(height) +
           " pixels, or " + std::to_string(expected_width) + " x " + std::to_string(expected_height);
}

Status outcome(Status status, const JpegDecoder &decoder, std::string *message) {
    if (status == Status::damaged && decoder.out_of_memory()) throw std::bad_alloc();
    if (status == Status::damaged) *message = decoder.message();
    return status;
}

}  // namespace

Status render_jpeg(const uint8_t *bytes, size_t size, const ImageHeader &header, const Geometry &geometry, int scaled,
                   int filter, const PixelWriter &writer, uint8_t *sample, std::string *message) {
    static thread_local Scratch scratch;
    const PixelKernels &kernels = pixel_kernels_in_use();
    JpegDecoder &decoder = scratch.decoder;
    int d = denominator(scaled, geometry), orientation = header.orientation;
    Status status = decoder.open(bytes, size);
    if (status == Status::ok && (decoder.stored_width() != header.width || decoder.stored_height() != header.height)) {
        *message = contradiction(decoder.stored_width(), decoder.stored_height(), header.width, header.height);
        return Status::damaged;
    }
    if (status != Status::ok) return outcome(status, decoder, message);
    Resizer &resizer = scratch.resizer_for(kernels);
    ResizeRequest request = request_for(decoder, orientation, geometry, d, filter);
    resizer.begin(request);
    bool upright = orientation == 1 && JpegDecoder::can_crop();
    bool by_planes = upright && resizer.can_stream(true) && kernels.gather_planes && decoder.can_read_planes(d) &&
                     mostly_needed(resizer, request);
    JpegPlanes planes{};
    if (by_planes && decoder.start_planes(d, &planes) != Status::ok) {
        by_planes = false;  // a lossless JPEG, say: libjpeg has its RGB only
        status = decoder.open(bytes, size);
    }
    if (status == Status::ok && !by_planes) status = decoder.start(d);
    if (status != Status::ok) return outcome(status, decoder, message);
    uint32_t scaled_width = (header.width - 1) / static_cast<uint32_t>(d) + 1,
             scaled_height = (header.height - 1) / static_cast<uint32_t>(d) + 1;
    if (decoder.width() != scaled_width || decoder.height() != scaled_height) {  // a libjpeg that scales in another way
        *message = contradiction(decoder.width(), decoder.height(), scaled_width, scaled_height);
        return Status::damaged;
    }
    RowSink sink = [&](int y, const uint8_t *rows, size_t plane_stride) {
        writer.write_row(kernels, y, rows, plane_stride, sample);
    };
    if (by_planes) {
        status = stream_planes(scratch, planes, resizer, sink);
    } else if (upright && resizer.can_stream(false)) {
        status = stream(scratch, resizer, sink);
    } else {
        const uint8_t *pixels = nullptr;
        status = decode_all(scratch, orientation, resizer.last_row(), &pixels);
        if (status == Status::ok) resizer.run(pixels, static_cast<size_t>(request.in_width) * 3, sink);
    }
    kernels.finish_writes();
    outcome(status, decoder, message);
    decoder.finish();
    scratch.let_go_of_much();
    return status;
}

}  // namespace fastload
