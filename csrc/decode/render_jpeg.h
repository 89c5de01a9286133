// One JPEG, from bytes to the batch: decode just what the crop needs, resize, flip, normalize.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "decode/geometry.h"
#include "decode/image_header.h"
#include "decode/jpeg.h"
#include "decode/pixel_writer.h"

namespace fastload {

// `header` is what the image says of itself, and what `geometry` was made from: where libjpeg reads another size, the
// image is damaged. `geometry` is in pixels of the upright image. Uses memory and a decoder of the
// calling thread. A load_jpeg_library must have succeeded before. Throws std::bad_alloc.
JpegDecoder::Status render_jpeg(const uint8_t *bytes, size_t size, const ImageHeader &header, const Geometry &geometry,
                                int scaled, int filter, const PixelWriter &writer, uint8_t *sample,
                                std::string *message);

}  // namespace fastload
