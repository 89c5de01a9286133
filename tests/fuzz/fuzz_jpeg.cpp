// Fuzz target of render_jpeg, from bytes to the training tensor, with the libjpeg that $FASTLOAD_FUZZ_LIBJPEG names.
// libjpeg itself is not instrumented: what is looked at is what we do with what it says.
//
// In: 8 bytes that choose the target (size, resize, filter, scale, dtype, layout, instruction set), then a JPEG.
// Checked: the widest kernels, which decode by planes, on a thread that has decoded all the inputs before, and a
// narrower set on a fresh thread agree in the outcome, and in every bit of the sample where there is one; nothing
// outside the sample is written; a damage has a reason.
#include <algorithm>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "decode/jpeg.h"
#include "decode/pixels.h"
#include "decode/render_jpeg.h"
#include "property.h"

namespace {

using namespace fastload;

constexpr size_t RECIPE_BYTES = 8;
constexpr uint64_t MOST_PIXELS = 1 << 16;  // of the source: more would only make an input slow
constexpr int MOST_SIDE = 48;              // of the target

struct Recipe {
    ImageSpec spec;
    Dtype dtype;
    bool channels_last;
    uint64_t position;
    const char *narrow;
};

Recipe recipe_of(const uint8_t *byte) {
    Recipe recipe{};
    recipe.spec.width = 1 + byte[0] % MOST_SIDE;
    recipe.spec.height = 1 + byte[1] % MOST_SIDE;
    recipe.spec.resize = byte[2] % 3;
    recipe.spec.crop = byte[2] / 3 % 2;
    recipe.spec.filter = byte[3] % 4;
    recipe.spec.scaled = byte[3] / 4 % 3;
    recipe.spec.xflip = byte[4] % 2;
    recipe.dtype = static_cast<Dtype>(byte[5] % 4);
    recipe.channels_last = byte[5] / 4 % 2;
    recipe.position = byte[6];
    constexpr const char *NARROW[] = {"portable", "sse2", "avx2", "avx512"};
    recipe.narrow = NARROW[byte[7] % 4];
    return recipe;
}

struct Rendered {
    RenderStatus status = RenderStatus::ok;
    std::vector<uint8_t> sample;
    std::string message;
};

// before: what the sample's memory holds; a pixel that is not written keeps it.
Rendered render(const std::vector<uint8_t> &jpeg, const ImageHeader &header, const Geometry &view, const Recipe &recipe,
                uint8_t before) {
    const PixelWriter writer(recipe.dtype, recipe.channels_last, recipe.spec.height, recipe.spec.width, 127.5f,
                             {1, 1, 1}, {1, 1, 1});
    Rendered out{RenderStatus::ok, std::vector<uint8_t>(writer.sample_bytes(), before), ""};
    out.status = render_jpeg(jpeg.data(), jpeg.size(), header, view, recipe.spec.scaled, recipe.spec.filter, writer,
                             out.sample.data(), &out.message);
    PROPERTY(out.status != RenderStatus::damaged || !out.message.empty());
    return out;
}

bool use(const char *kernels) {
    try {
        pixel_kernel_choice().use(kernels);
        return true;
    } catch (const std::invalid_argument &) {  // not on this machine
        return false;
    }
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int *, char ***) {
    const char *path = std::getenv("FASTLOAD_FUZZ_LIBJPEG");
    std::string reasons;
    if (!path || !load_jpeg_library({path}, &reasons)) {
        std::fprintf(stderr, "FASTLOAD_FUZZ_LIBJPEG must name a libjpeg: %s\n", reasons.c_str());
        std::exit(2);
    }
    return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    if (size < RECIPE_BYTES) return 0;
    const Recipe recipe = recipe_of(bytes);
    const std::vector<uint8_t> jpeg(bytes + RECIPE_BYTES, bytes + size);
    ImageHeader header;
    if (!parse_image_header(jpeg.data(), jpeg.size(), &header) || header.format != IMAGE_FORMAT_JPEG) return 0;
    if (uint64_t{header.width} * header.height > MOST_PIXELS) return 0;
    int width = static_cast<int>(header.width), height = static_cast<int>(header.height);
    if (header.orientation >= 5) std::swap(width, height);
    const Geometry view = geometry(recipe.spec, width, height, 0, recipe.position);
    if (view.status != GEOMETRY_OK) return 0;
    use("");
    const Rendered wide = render(jpeg, header, view, recipe, 0x55);
    if (!use(recipe.narrow)) return 0;
    Rendered narrow;
    std::thread([&] { narrow = render(jpeg, header, view, recipe, 0xaa); }).join();
    PROPERTY(wide.status == narrow.status);
    PROPERTY(wide.status != RenderStatus::ok || wide.sample == narrow.sample);
    return 0;
}
