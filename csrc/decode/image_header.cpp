// The parsers of image_header.h, one per format. Every read goes through Bytes, which checks.
#include "decode/image_header.h"

#include <algorithm>
#include <cstring>
#include <iterator>

namespace fastload {
namespace {

// A stretch of memory that knows its end. `has` first, then read.
struct Bytes {
    const uint8_t *at;
    uint64_t size;

    bool has(uint64_t offset, uint64_t count) const { return offset <= size && count <= size - offset; }
    bool starts(uint64_t offset, const char *magic, uint64_t count) const {
        return has(offset, count) && std::memcmp(at + offset, magic, count) == 0;
    }
    Bytes part(uint64_t offset, uint64_t count) const {
        return has(offset, 0) ? Bytes{at + offset, std::min(count, size - offset)} : Bytes{at, 0};
    }
    uint64_t number(uint64_t offset, int count, bool big) const {
        uint64_t value = 0;
        for (int i = 0; i < count; ++i) value = value << 8 | at[offset + (big ? i : count - 1 - i)];
        return value;
    }
    uint32_t big16(uint64_t offset) const { return static_cast<uint32_t>(number(offset, 2, true)); }
    uint32_t big32(uint64_t offset) const { return static_cast<uint32_t>(number(offset, 4, true)); }
    uint32_t little16(uint64_t offset) const { return static_cast<uint32_t>(number(offset, 2, false)); }
    uint32_t little24(uint64_t offset) const { return static_cast<uint32_t>(number(offset, 3, false)); }
    uint32_t little32(uint64_t offset) const { return static_cast<uint32_t>(number(offset, 4, false)); }
};

// What the first directory of a TIFF file, or of an EXIF block, which has the same form, says.
struct Directory {
    uint64_t width = 0, height = 0, orientation = 1, bits = 1, samples = 1;
};

struct Tag {
    uint64_t number;
    uint64_t Directory::*member;
};
constexpr Tag TAGS[] = {{256, &Directory::width},
                        {257, &Directory::height},
                        {258, &Directory::bits},
                        {274, &Directory::orientation},
                        {277, &Directory::samples}};

// The sizes of the parts of a directory: classic TIFF, or BigTIFF.
struct DirectoryForm {
    bool big_endian;
    int count_bytes, entry_bytes, value_bytes;  // of the number of entries, of an entry, of its value field
};

// The first value of an entry; false where its type is not SHORT, LONG or LONG8, or its value lies outside.
bool first_value(const Bytes &tiff, uint64_t entry, const DirectoryForm &form, uint64_t *value) {
    const uint64_t type = tiff.number(entry + 2, 2, form.big_endian);
    const uint64_t count = tiff.number(entry + 4, form.value_bytes, form.big_endian);
    const int bytes = type == 3 ? 2 : type == 4 ? 4 : type == 16 ? 8 : 0;
    if (bytes == 0 || count == 0) return false;
    uint64_t offset = entry + 4 + form.value_bytes;
    if (count > static_cast<uint64_t>(form.value_bytes / bytes)) {
        offset = tiff.number(offset, form.value_bytes, form.big_endian);
    }
    if (!tiff.has(offset, bytes)) return false;
    *value = tiff.number(offset, bytes, form.big_endian);
    return true;
}

// True where there is a directory; a directory that is cut counts as far as it goes.
bool read_directory(const Bytes &tiff, Directory *out) {
    const bool little = tiff.starts(0, "II", 2);
    if (!tiff.has(0, 8) || (!little && !tiff.starts(0, "MM", 2))) return false;
    const uint64_t version = tiff.number(2, 2, !little);
    const DirectoryForm classic{!little, 2, 12, 4}, big_tiff{!little, 8, 20, 8};
    if (version != 42 && version != 43) return false;
    const DirectoryForm &form = version == 42 ? classic : big_tiff;
    if (version == 43 && !tiff.has(0, 16)) return false;
    const uint64_t directory = tiff.number(version == 42 ? 4 : 8, form.value_bytes, form.big_endian);
    if (!tiff.has(directory, form.count_bytes)) return false;
    const uint64_t entries = tiff.number(directory, form.count_bytes, form.big_endian);
    uint64_t entry = directory + form.count_bytes;
    bool seen[std::size(TAGS)] = {};
    for (uint64_t i = 0; i < entries && tiff.has(entry, form.entry_bytes); ++i, entry += form.entry_bytes) {
        uint64_t value = 0;
        if (!first_value(tiff, entry, form, &value)) continue;
        const uint64_t tag = tiff.number(entry, 2, form.big_endian);
        for (size_t field = 0; field < std::size(TAGS); ++field) {
            if (TAGS[field].number != tag || seen[field]) continue;  // the first of two counts, as in libtiff
            seen[field] = true;
            out->*TAGS[field].member = value;
        }
    }
    return true;
}

int valid_orientation(uint64_t value) { return value >= 1 && value <= 8 ? static_cast<int>(value) : 1; }

// The orientation in an EXIF block, with or without its "Exif\0\0"; 1 where there is none.
int exif_orientation(Bytes exif) {
    while (exif.starts(0, "Exif\0\0", 6)) exif = exif.part(6, exif.size);
    Directory directory;
    return read_directory(exif, &directory) ? valid_orientation(directory.orientation) : 1;
}

bool set_size(ImageHeader *header, uint64_t width, uint64_t height) {
    if (width == 0 || height == 0 || width > UINT32_MAX || height > UINT32_MAX) return false;
    header->width = static_cast<uint32_t>(width);
    header->height = static_cast<uint32_t>(height);
    return true;
}

// ISO/IEC 10918-1, B.2.2: SOF0 to SOF15, less DHT (C4), JPG (C8) and DAC (CC).
bool is_frame_marker(int marker) {
    return marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
}

// A frame header: length (2), precision (1), height (2), width (2), components (1).
bool read_frame(const Bytes &file, uint64_t segment, uint64_t length, int marker, ImageHeader *header) {
    if (length < 8 || !file.has(segment, 8)) return false;
    header->bits = file.at[segment + 2];
    header->channels = file.at[segment + 7];
    header->progressive = (marker & 3) == 2;
    return set_size(header, file.big16(segment + 5), file.big16(segment + 3));
}

bool parse_jpeg(const Bytes &file, ImageHeader *header) {
    bool found = false, oriented = false;
    uint64_t at = 2;
    while (file.has(at, 2) && file.at[at] == 0xFF) {
        const int marker = file.at[at + 1];
        if (marker == 0xFF) {  // a fill byte
            ++at;
            continue;
        }
        at += 2;
        if (marker == 0x01 || (marker >= 0xD0 && marker <= 0xD8)) continue;  // markers without a segment
        if (marker == 0xD9 || marker == 0xDA || !file.has(at, 2)) break;     // the end, or the scan begins
        const uint64_t length = file.big16(at);
        if (length < 2) break;
        const Bytes content = file.part(at + 2, length - 2);
        if (is_frame_marker(marker) && !found) {
            if (!read_frame(file, at, length, marker, header)) return false;
            found = true;
        } else if (marker == 0xE1 && !oriented && content.starts(0, "Exif\0\0", 6)) {
            header->orientation = exif_orientation(content);
            oriented = true;
        } else if (marker == 0xEE && content.size >= 12 && content.starts(0, "Adobe", 5)) {
            header->adobe_transform = content.at[11];
        }
        at += length;
    }
    return found;
}

bool parse_png(const Bytes &file, ImageHeader *header) {
    if (!file.has(0, 29) || file.big32(8) != 13 || !file.starts(12, "IHDR", 4)) return false;
    const int colour = file.at[25];
    header->bits = file.at[24];
    header->channels = colour == 2 ? 3 : colour == 4 ? 2 : colour == 6 ? 4 : 1;
    if (!set_size(header, file.big32(16), file.big32(20))) return false;
    for (uint64_t at = 33; file.has(at, 8);) {  // a chunk: length (4), type (4), content, checksum (4)
        const uint64_t length = file.big32(at);
        if (file.starts(at + 4, "IEND", 4)) break;
        if (file.starts(at + 4, "eXIf", 4)) {
            header->orientation = exif_orientation(file.part(at + 8, length));
            break;
        }
        at += 12 + length;
    }
    return true;
}

// Pillow's canvas, and ours, grows where the first frame reaches over the logical screen.
bool parse_gif(const Bytes &file, ImageHeader *header) {
    if (!file.has(0, 13)) return false;
    header->bits = 8;
    header->channels = 1;
    uint64_t width = file.little16(6), height = file.little16(8);
    const int flags = file.at[10];
    uint64_t at = 13 + (flags & 0x80 ? uint64_t{3} << ((flags & 7) + 1) : 0);
    while (file.has(at, 1) && file.at[at] != 0x3B) {
        if (file.at[at] == 0x2C) {  // the first image: left, top, width, height
            if (!file.has(at, 9)) break;
            width = std::max<uint64_t>(width, file.little16(at + 1) + file.little16(at + 5));
            height = std::max<uint64_t>(height, file.little16(at + 3) + file.little16(at + 7));
            break;
        }
        const bool extension = file.at[at] == 0x21;
        at += extension ? 2 : 1;
        while (extension && file.has(at, 1)) {  // blocks, each after its length; a length of 0 ends them
            const uint64_t length = file.at[at];
            at += 1 + length;
            if (length == 0) break;
        }
    }
    return set_size(header, width, height);
}

bool parse_webp(const Bytes &file, ImageHeader *header) {
    header->bits = 8;
    header->channels = 3;
    if (file.starts(12, "VP8 ", 4)) {  // a key frame: tag (3), start code (3), 14 bits of width, of height
        if (!file.has(20, 10) || (file.at[20] & 1) || !file.starts(23, "\x9d\x01\x2a", 3)) return false;
        return set_size(header, file.little16(26) & 0x3FFF, file.little16(28) & 0x3FFF);
    }
    if (file.starts(12, "VP8L", 4)) {  // 14 bits of width - 1, of height - 1, one of alpha
        if (!file.has(20, 5) || file.at[20] != 0x2F) return false;
        const uint32_t word = file.little32(21);
        header->channels = word >> 28 & 1 ? 4 : 3;
        return set_size(header, (word & 0x3FFF) + 1, (word >> 14 & 0x3FFF) + 1);
    }
    if (!file.starts(12, "VP8X", 4) || !file.has(20, 10)) return false;
    const int flags = file.at[20];
    header->channels = flags & 0x10 ? 4 : 3;
    if (!set_size(header, uint64_t{file.little24(24)} + 1, uint64_t{file.little24(27)} + 1)) return false;
    for (uint64_t at = 12; (flags & 0x08) && file.has(at, 8);) {  // chunks: type (4), length (4), content, padding
        const uint64_t length = file.little32(at + 4);
        if (file.starts(at, "EXIF", 4)) {
            header->orientation = exif_orientation(file.part(at + 8, length));
            break;
        }
        at += 8 + length + (length & 1);
    }
    return true;
}

bool parse_bmp(const Bytes &file, ImageHeader *header) {
    if (!file.has(0, 18)) return false;
    const uint64_t form = file.little32(14);
    if ((form != 12 && form < 40) || !file.has(14, std::min<uint64_t>(form, 16))) return false;
    const uint32_t depth = file.little16(form == 12 ? 24 : 28);
    header->channels = depth <= 8 ? 1 : depth == 32 ? 4 : 3;
    header->bits = static_cast<int>(depth <= 8 ? depth : depth == 16 ? 5 : 8);
    if (form == 12) return set_size(header, file.little16(18), file.little16(20));
    const int64_t width = static_cast<int32_t>(file.little32(18)), height = static_cast<int32_t>(file.little32(22));
    if (width < 0) return false;
    return set_size(header, static_cast<uint64_t>(width), static_cast<uint64_t>(height < 0 ? -height : height));
}

bool parse_tiff(const Bytes &file, ImageHeader *header) {
    Directory directory;
    if (!read_directory(file, &directory)) return false;
    header->orientation = valid_orientation(directory.orientation);
    header->channels = static_cast<int>(std::min<uint64_t>(directory.samples, 65535));
    header->bits = static_cast<int>(std::min<uint64_t>(directory.bits, 65535));
    return set_size(header, directory.width, directory.height);
}

// A decimal number of a PNM header, behind white space and comments; false where there is none.
bool pnm_number(const Bytes &file, uint64_t *at, uint64_t *value) {
    bool comment = false;
    for (; file.has(*at, 1); ++*at) {
        const uint8_t byte = file.at[*at];
        if (byte == '#') comment = true;
        if (byte == '\n' || byte == '\r') comment = false;
        const bool white = byte == ' ' || (byte >= '\t' && byte <= '\r');
        if (!comment && !white) break;
    }
    int digits = 0;
    for (*value = 0; file.has(*at, 1) && file.at[*at] >= '0' && file.at[*at] <= '9' && digits < 10; ++*at, ++digits) {
        *value = *value * 10 + (file.at[*at] - '0');
    }
    return digits > 0 && file.has(*at, 1);
}

bool parse_pnm(const Bytes &file, ImageHeader *header) {
    const int kind = file.at[1] - '0';
    uint64_t at = 2, width = 0, height = 0, highest = 1;
    if (!pnm_number(file, &at, &width) || !pnm_number(file, &at, &height)) return false;
    const bool bitmap = kind == 1 || kind == 4;
    if (!bitmap && !pnm_number(file, &at, &highest)) return false;
    if (highest == 0 || highest > 65535) return false;
    header->channels = kind == 3 || kind == 6 ? 3 : 1;
    header->bits = bitmap ? 1 : highest < 256 ? 8 : 16;
    return set_size(header, width, height);
}

bool is_pnm(const Bytes &file) {
    if (!file.has(0, 3) || file.at[0] != 'P' || file.at[1] < '1' || file.at[1] > '6') return false;
    return file.at[2] == '#' || file.at[2] == ' ' || (file.at[2] >= '\t' && file.at[2] <= '\r');
}

bool is_tiff(const Bytes &file) {
    return file.starts(0, "II*\0", 4) || file.starts(0, "MM\0*", 4) || file.starts(0, "II+\0", 4) ||
           file.starts(0, "MM\0+", 4);
}

int format_of(const Bytes &file) {
    if (file.starts(0, "\xff\xd8\xff", 3)) return IMAGE_FORMAT_JPEG;
    if (file.starts(0, "\x89PNG\r\n\x1a\n", 8)) return IMAGE_FORMAT_PNG;
    if (file.starts(0, "GIF87a", 6) || file.starts(0, "GIF89a", 6)) return IMAGE_FORMAT_GIF;
    if (file.starts(0, "RIFF", 4) && file.starts(8, "WEBP", 4)) return IMAGE_FORMAT_WEBP;
    if (file.starts(0, "BM", 2)) return IMAGE_FORMAT_BMP;
    if (is_tiff(file)) return IMAGE_FORMAT_TIFF;
    return is_pnm(file) ? IMAGE_FORMAT_PNM : IMAGE_FORMAT_UNKNOWN;
}

// By format.
constexpr bool (*PARSERS[])(const Bytes &, ImageHeader *) = {nullptr,    parse_jpeg, parse_png,  parse_gif,
                                                             parse_webp, parse_bmp,  parse_tiff, parse_pnm};

}  // namespace

bool parse_image_header(const uint8_t *bytes, size_t size, ImageHeader *header) {
    const Bytes file{bytes, size};
    *header = ImageHeader{};
    header->format = format_of(file);
    return header->format != IMAGE_FORMAT_UNKNOWN && PARSERS[header->format](file, header);
}

}  // namespace fastload
