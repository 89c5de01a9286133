// JPEG decoding through a libjpeg-turbo that is loaded at run time.
//
// In: one JPEG in memory. Out: rows of interleaved RGB bytes, a few at a time, of all or some columns; or the planes of
// luma and chroma as they are stored.
// Promises: nothing is linked at build time; a library whose own size check refuses our structures is not used;
// damage is reported, never papered over, and want of memory is none, nor is what JPEGMEM in the environment allows;
// pixels equal those that Pillow gets from the same library (slow integer DCT, fancy upsampling), and depend on the
// file alone.
// Damaged is: a file without an end marker behind its header; a file that libjpeg warns of because it fills pixels with
// gray (the list is in jpeg.cpp); one of more than MAX_SCANS scans. Rows below those that are asked for are not looked
// at, unless the file is progressive.
#pragma once
#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace fastload {

struct JpegLibrary {
    std::string path;  // what dlopen was given
    int abi = 0;       // 62 or 80
    bool can_crop = false;
};

// Loads the first of `paths` that has what is needed; the first success holds for the process.
// Returns nullptr and the reason of each refusal in `reasons` where none will do.
const JpegLibrary *load_jpeg_library(const std::vector<std::string> &paths, std::string *reasons);

// Whether what a libjpeg said is about the memory of this process, and tells nothing about the image.
bool tells_of_memory(const char *message);

// Luma and chroma as `read_planes` delivers them, at the scale that was asked for.
struct JpegPlanes {
    bool halved;  // chroma has half the rows and columns, rounded up; else as many
    uint32_t chroma_width, chroma_height;
    uint32_t luma_rows, chroma_rows;          // of one call
    size_t luma_row_bytes, chroma_row_bytes;  // that a call may write: whole blocks
};

struct JpegState;  // libjpeg's structures and ours, kept out of the header

class JpegDecoder {
   public:
    enum class Status { ok, unsupported, damaged };

    // Each scan of a progressive file visits all blocks and may take a few bytes, so that a small valid file can ask
    // for minutes. Encoders write 6 to 20 scans.
    static constexpr int MAX_SCANS = 256;

    JpegDecoder();  // throws std::bad_alloc
    ~JpegDecoder();
    JpegDecoder(const JpegDecoder &) = delete;
    JpegDecoder &operator=(const JpegDecoder &) = delete;

    // Reads the header. `unsupported` is a JPEG that Pillow must take: CMYK, YCCK, lossless.
    Status open(const uint8_t *bytes, size_t size);
    // Reads the whole file, of any colour space, for nothing but its damage.
    Status check(const uint8_t *bytes, size_t size);
    uint32_t stored_width() const;
    uint32_t stored_height() const;

    // Begins decoding at 1/denominator of the size (1, 2, 4 or 8).
    Status start(int denominator);
    uint32_t width() const;  // of the scaled image
    uint32_t height() const;

    // Restricts decoding to columns that include [left, left + columns) and a margin; returns what will be delivered.
    // Pixels further than CROP_MARGIN inside equal those of a full decode.
    Status crop(uint32_t *left, uint32_t *columns);
    static constexpr uint32_t CROP_MARGIN = 4;

    static bool can_crop();  // crop and skip are there (libjpeg-turbo has them, the original libjpeg has not)
    Status skip(uint32_t rows);
    // Reads `count` rows of RGB bytes to `rows`, `stride_bytes` apart.
    Status read(uint8_t *rows, size_t stride_bytes, uint32_t count);

    // Luma and chroma in place of RGB. False, and nothing happens, for what is not YCbCr with chroma of half the size
    // or, scaled, of the same: then `start` is the way. To be called in place of `start`, after `open`.
    bool can_read_planes(int denominator) const;
    Status start_planes(int denominator, JpegPlanes *planes);
    // The next luma_rows and chroma_rows; rows[c] points to as many pointers. Rows past the end are not written.
    Status read_planes(uint8_t **const rows[3]);
    void finish();

    const char *message() const;  // of the last damage
    bool out_of_memory() const;   // whether that was none of the image's

   private:
    Status damaged(const char *message);
    Status cut();
    Status begin(int denominator, bool planes);
    Status read_some(uint8_t **rows, uint32_t count, uint32_t *done);

    JpegState *state_;
};

}  // namespace fastload
