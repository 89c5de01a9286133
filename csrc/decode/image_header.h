// What an image says of itself in its first bytes; the native half of fastload/decode/image_header.py.
//
// In:  the bytes of an image file, or the first of them.
// Out: format by magic bytes, width and height as stored (before orientation), EXIF orientation, channels, bits.
// Promise: reads nothing outside the given bytes, whatever they are; decodes nothing; allocates nothing; time is
//          at most proportional to the bytes given.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastload {

enum {
    IMAGE_FORMAT_UNKNOWN = 0,
    IMAGE_FORMAT_JPEG = 1,
    IMAGE_FORMAT_PNG = 2,
    IMAGE_FORMAT_GIF = 3,
    IMAGE_FORMAT_WEBP = 4,
    IMAGE_FORMAT_BMP = 5,
    IMAGE_FORMAT_TIFF = 6,
    IMAGE_FORMAT_PNM = 7
};

struct ImageHeader {
    int format = IMAGE_FORMAT_UNKNOWN;
    uint32_t width = 0, height = 0;  // pixels as stored
    int orientation = 1;             // 1 to 8, as EXIF has it; 1 where it says nothing or nonsense. XMP is not read
    int channels = 0;                // as stored: gray 1, palette 1, with alpha 2, RGB or YCbCr 3, RGBA or CMYK 4
    int bits = 0;                    // of one channel, or of an index into a palette
    bool progressive = false;        // a progressive JPEG
    int adobe_transform = -1;        // of a JPEG's Adobe marker: 0 (RGB or CMYK), 1 (YCbCr), 2 (YCCK); -1: none
};

// True where format, width and height were found. False: unknown, damaged, or cut before the size; the format is set
// wherever the magic bytes were there. What lies behind the end of the given bytes (an orientation) counts as absent.
bool parse_image_header(const uint8_t *bytes, size_t size, ImageHeader *header);

}  // namespace fastload
