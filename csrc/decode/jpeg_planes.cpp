#include "decode/jpeg_planes.h"

#include <algorithm>

namespace fastload {

size_t spread_stride(size_t size) {
    constexpr size_t LINE_BYTES = 64;
    size_t lines = (size + LINE_BYTES - 1) / LINE_BYTES;
    return (lines | 1) * LINE_BYTES;
}

uint32_t PlaneReader::begin(JpegDecoder *decoder, const JpegPlanes &planes, const PixelKernels *kernels, uint32_t left,
                            uint32_t *columns) {
    decoder_ = decoder;
    kernels_ = kernels;
    planes_ = planes;
    left_ = planes.halved ? left & ~1u : left;
    columns_ = *columns + left - left_;
    *columns = columns_;
    row_ = parts_read_ = 0;
    luma_stride_ = spread_stride(planes.luma_row_bytes + LANE_PADDING);
    chroma_stride_ = spread_stride(planes.chroma_row_bytes + FRONT_PADDING + LANE_PADDING);
    luma_.resize(2 * planes.luma_rows * luma_stride_);
    for (std::vector<uint8_t> &chroma : chroma_) chroma.resize(FRONT_PADDING + 2 * planes.chroma_rows * chroma_stride_);
    if (planes.halved) sums_.resize(2 * ((columns_ + 1) / 2 + 2 * LANE_PADDING));
    return left_;
}

// Reads until `part` is there.
JpegDecoder::Status PlaneReader::have(uint32_t part) {
    constexpr size_t MAX_ROWS = 16;
    for (; parts_read_ <= part; parts_read_++) {
        uint8_t *luma[MAX_ROWS], *chroma[2][MAX_ROWS];
        for (uint32_t i = 0; i < planes_.luma_rows; i++) luma[i] = luma_row(parts_read_ * planes_.luma_rows + i);
        for (size_t c = 0; c < 2; c++)
            for (uint32_t i = 0; i < planes_.chroma_rows; i++)
                chroma[c][i] = chroma_row(c, parts_read_ * planes_.chroma_rows + i);
        uint8_t **const rows[3] = {luma, chroma[0], chroma[1]};
        JpegDecoder::Status status = decoder_->read_planes(rows);
        if (status != JpegDecoder::Status::ok) return status;
        if (!planes_.halved) continue;
        // Past its ends a row is as at its ends.
        for (size_t c = 0; c < 2; c++)
            for (uint32_t i = 0; i < planes_.chroma_rows; i++) {
                chroma[c][i][-1] = chroma[c][i][0];
                chroma[c][i][planes_.chroma_width] = chroma[c][i][planes_.chroma_width - 1];
            }
    }
    return JpegDecoder::Status::ok;
}

JpegDecoder::Status PlaneReader::read(uint8_t *out, size_t plane_stride_bytes, size_t stride_bytes, uint32_t count) {
    for (uint32_t stop = row_ + count; row_ < stop; row_++, out += stride_bytes) {
        uint32_t near = row_, far = row_, reach = row_;
        if (planes_.halved) {
            near = row_ / 2;
            reach = std::min(near + 1,
                             planes_.chroma_height - 1);  // as far as libjpeg's RGB reads, for both rows of a pair
            far = row_ % 2 ? reach : near - (near > 0);
        }
        JpegDecoder::Status status = have(reach / planes_.chroma_rows);
        if (status != JpegDecoder::Status::ok) return status;
        const uint8_t *luma = luma_row(row_) + left_;
        uint32_t chroma_left = planes_.halved ? left_ / 2 : left_;
        const uint8_t *nearer[2], *further[2];
        for (size_t c = 0; c < 2; c++) {
            nearer[c] = chroma_row(c, near) + chroma_left;
            further[c] = chroma_row(c, far) + chroma_left;
        }
        if (planes_.halved) {
            kernels_->halved_ycc_to_rgb(luma, nearer, further, static_cast<int>(columns_), sums_.data(), out,
                                        plane_stride_bytes);
        } else {
            kernels_->ycc_to_rgb(luma, nearer, static_cast<int>(columns_), out, plane_stride_bytes);
        }
    }
    return JpegDecoder::Status::ok;
}

}  // namespace fastload
