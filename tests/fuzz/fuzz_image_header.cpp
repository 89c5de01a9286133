// Fuzz target of image_header: the bytes, and the first half of them. Checked: what is found is in range, and a prefix
// says the same size as the whole or none (but for GIF, whose canvas grows with its first frame, and TIFF, where a
// value behind the end counts as absent and a later one of the same name may then count).
#include <vector>

#include "decode/image_header.h"
#include "property.h"

namespace {

fastload::ImageHeader parsed(const uint8_t *bytes, size_t size) {
    const std::vector<uint8_t> exact(bytes, bytes + size);  // so that its end is the end of an allocation
    fastload::ImageHeader header;
    const bool found = fastload::parse_image_header(exact.data(), exact.size(), &header);
    PROPERTY(found == (header.width > 0 && header.height > 0));
    PROPERTY(header.format >= fastload::IMAGE_FORMAT_UNKNOWN && header.format <= fastload::IMAGE_FORMAT_PNM);
    PROPERTY(!found || header.format != fastload::IMAGE_FORMAT_UNKNOWN);
    PROPERTY(header.orientation >= 1 && header.orientation <= 8);
    PROPERTY(header.channels >= 0 && header.channels <= 65535 && header.bits >= 0 && header.bits <= 65535);
    PROPERTY(header.adobe_transform >= -1 && header.adobe_transform <= 255);
    return header;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    const fastload::ImageHeader whole = parsed(bytes, size), half = parsed(bytes, size / 2);
    PROPERTY(half.format == whole.format || half.format == fastload::IMAGE_FORMAT_UNKNOWN);
    const bool fixed = whole.format != fastload::IMAGE_FORMAT_GIF && whole.format != fastload::IMAGE_FORMAT_TIFF;
    if (fixed && half.width > 0) PROPERTY(half.width == whole.width && half.height == whole.height);
    return 0;
}
