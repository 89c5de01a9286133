// Rows of RGB from the planes of luma and chroma that libjpeg stores, converted by our own kernels.
//
// In: a JpegDecoder after start_planes. Out: rows of some columns, as three planes of bytes.
// Promises: the bits that libjpeg-turbo's own interpolation and conversion give (which the tests compare). libjpeg
// makes interleaved RGB, which the resize has to take apart again; here the planes stay planes.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "decode/jpeg.h"
#include "decode/pixel_kernels.h"

namespace fastload {

// At least `size` bytes, an odd number of cache lines: rows that lie a power of two apart share the cache's sets, and
// a 1024 pixel wide strip took four times as long to gather.
size_t spread_stride(size_t size);

class PlaneReader {
   public:
    // Columns [left, left + columns) of each row; `left` is rounded down to the one that is returned.
    uint32_t begin(JpegDecoder *decoder, const JpegPlanes &planes, const PixelKernels *kernels, uint32_t left,
                   uint32_t *columns);
    void skip(uint32_t rows) { row_ += rows; }
    // The next `count` rows to `out`; LANE_PADDING past `columns` may be written.
    JpegDecoder::Status read(uint8_t *out, size_t plane_stride_bytes, size_t stride_bytes, uint32_t count);

   private:
    JpegDecoder::Status have(uint32_t part);
    uint8_t *luma_row(uint32_t row) { return luma_.data() + row % (2 * planes_.luma_rows) * luma_stride_; }
    uint8_t *chroma_row(size_t c, uint32_t row) {
        return chroma_[c].data() + FRONT_PADDING + row % (2 * planes_.chroma_rows) * chroma_stride_;
    }

    JpegDecoder *decoder_ = nullptr;
    const PixelKernels *kernels_ = nullptr;
    JpegPlanes planes_{};
    uint32_t left_ = 0, columns_ = 0, row_ = 0;
    uint32_t parts_read_ = 0;  // a part is what one call to libjpeg gives; the last two are held
    size_t luma_stride_ = 0, chroma_stride_ = 0;
    std::vector<uint8_t> luma_, chroma_[2];
    std::vector<uint16_t> sums_;
};

}  // namespace fastload
