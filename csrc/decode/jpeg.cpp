// One file, because what libjpeg calls back, what jumps out of it and what calls it share its structs, whose layout
// nobody else is to know.
#include "decode/jpeg.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
#include <new>

namespace fastload {
namespace {

// The part of libjpeg's interface that is used here, laid out as its documentation and ABI have it. The fields up
// to `output_scanline` have the same places in ABI 62 and ABI 80; the rest is only reserved. libjpeg compares the
// size we state with its own and refuses a difference, so a wrong layout cannot go unnoticed.
static_assert(sizeof(void *) == 8, "the structure sizes below are those of 64-bit machines");
constexpr size_t STRUCT_SIZE_ABI_62 = 632;
constexpr size_t STRUCT_SIZE_ABI_80 = 656;
constexpr int COLOR_GRAYSCALE = 1, COLOR_RGB = 2, COLOR_YCBCR = 3;
constexpr int HEADER_OK = 1;
constexpr size_t MESSAGE_SIZE = 200;  // JMSG_LENGTH_MAX

// What libjpeg says where pixels are missing or wrong, and it would fill them with gray: one of these in a message of
// its warnings is damage. The other warnings are harmless: a revision or an Adobe transform that it does not know, SOS
// parameters that a baseline decoder does not need, a bad ICC profile, and "N extraneous bytes before marker", since
// what came before them has been decoded (padding, or more rows than the header counts). The texts are compared
// because the numbers of the messages differ between ABI 62 and 80.
constexpr const char *DAMAGE[] = {"premature end of data segment", "bad Huffman code", "bad arithmetic code",
                                  "instead of RST", "Inconsistent progression"};

struct ErrorManager {
    void (*error_exit)(void *);
    void (*emit_message)(void *, int);
    void (*output_message)(void *);
    void (*format_message)(void *, char *);
    void (*reset_error_mgr)(void *);
    int msg_code;
    char msg_parm[80];
    int trace_level;
    long num_warnings;
    const void *tables[6];
};

struct SourceManager {
    const uint8_t *next_input_byte;
    size_t bytes_in_buffer;
    void (*init_source)(void *);
    int (*fill_input_buffer)(void *);
    void (*skip_input_data)(void *, long);
    int (*resync_to_restart)(void *, int);
    void (*term_source)(void *);
};

struct ProgressMonitor {
    void (*progress_monitor)(void *);
    long pass_counter, pass_limit;
    int completed_passes, total_passes;
};

struct Decompress {
    ErrorManager *err;
    void *mem;
    ProgressMonitor *progress;
    void *client_data;
    int is_decompressor;
    int global_state;
    SourceManager *src;
    unsigned image_width, image_height;
    int num_components;
    int jpeg_color_space, out_color_space;
    unsigned scale_num, scale_denom;
    double output_gamma;
    int buffered_image, raw_data_out, dct_method, do_fancy_upsampling, do_block_smoothing;
    int quantize_colors, dither_mode, two_pass_quantize, desired_number_of_colors;
    int enable_1pass_quant, enable_external_quant, enable_2pass_quant;
    unsigned output_width, output_height;
    int out_color_components, output_components, rec_outbuf_height, actual_number_of_colors;
    void *colormap;
    unsigned output_scanline;
    int input_scan_number;
    unsigned input_imcu_row;
    int output_scan_number;
    unsigned output_imcu_row;
    void *coef_bits, *quantization_tables[4], *dc_tables[4], *ac_tables[4];
    int data_precision;
    struct Component *components;
    unsigned char rest[STRUCT_SIZE_ABI_80];
};
static_assert(offsetof(Decompress, output_gamma) == 80 && offsetof(Decompress, output_scanline) == 168 &&
                  offsetof(Decompress, components) == 304,
              "ABI layout");

struct Component {
    int id, index, h_samp_factor, v_samp_factor;
    int tables[3];
    unsigned width_in_blocks, height_in_blocks;
    int scaled_size;  // ABI 80 has two of these, and what follows 4 bytes later
    unsigned char rest[96 - 40];
};
static_assert(sizeof(Component) == 96, "ABI layout");
static_assert(sizeof(ErrorManager) <= 256 && offsetof(ErrorManager, num_warnings) == 128, "ABI layout");

// jpeg_memory_mgr. What lives as long as the decoder is asked for from pool 0.
using AllocateSmall = void *(*)(void *, int, size_t);
struct MemoryManager {
    AllocateSmall allocate_small;
    void (*others[10])();
    long max_memory_to_use, max_alloc_chunk;
};
static_assert(offsetof(MemoryManager, max_memory_to_use) == 88 && offsetof(MemoryManager, max_alloc_chunk) == 96,
              "ABI layout");
constexpr long MAX_ALLOC_CHUNK = 1000000000;  // what every libjpeg sets: the proof that the layout is this one
constexpr int POOL_PERMANENT = 0;
constexpr size_t TABLE_ALIGNMENT = 32;

struct Functions {
    void *(*std_error)(ErrorManager *);
    void (*create)(Decompress *, int, size_t);
    void (*destroy)(Decompress *);
    void (*abort)(Decompress *);
    int (*read_header)(Decompress *, int);
    int (*start)(Decompress *);
    unsigned (*read_scanlines)(Decompress *, uint8_t **, unsigned);
    unsigned (*read_raw_data)(Decompress *, uint8_t **const *, unsigned);
    int (*resync_to_restart)(void *, int);
    void (*crop_scanline)(Decompress *, unsigned *, unsigned *);
    unsigned (*skip_scanlines)(Decompress *, unsigned);
};

Functions functions;
JpegLibrary library;

}  // namespace

struct JpegState {
    Decompress decompress;
    ErrorManager errors;
    SourceManager source;
    ProgressMonitor progress;
    std::jmp_buf escape;
    char message[MESSAGE_SIZE];
    std::vector<uint8_t> row;  // of `check`
    AllocateSmall allocate;
    size_t tables_used;
    alignas(TABLE_ALIGNMENT) unsigned char tables[4096];  // 4 quantization and 8 Huffman tables: 2944 bytes
};

namespace {

JpegState *state_of(void *decompress) {
    return static_cast<JpegState *>(static_cast<Decompress *>(decompress)->client_data);
}

// libjpeg must not return from error_exit, and its C frames cannot be unwound by an exception.
[[noreturn]] void on_error(void *decompress) {
    JpegState *state = state_of(decompress);
    state->errors.format_message(decompress, state->message);
    std::longjmp(state->escape, 1);
}
void on_message(void *decompress, int level) {
    if (level >= 0) return;
    JpegState *state = state_of(decompress);
    state->errors.format_message(decompress, state->message);
    for (const char *text : DAMAGE)
        if (std::strstr(state->message, text)) std::longjmp(state->escape, 1);
    state->message[0] = 0;
}
void on_progress(void *decompress) {
    JpegState *state = state_of(decompress);
    if (state->decompress.input_scan_number <= JpegDecoder::MAX_SCANS) return;
    std::snprintf(state->message, MESSAGE_SIZE, "more than %d scans", JpegDecoder::MAX_SCANS);
    std::longjmp(state->escape, 1);
}
void on_output(void *) {}
// After jpeg_CreateDecompress only tables are permanent: they get a place that the next image takes again.
void *on_allocate(void *decompress, int pool, size_t size) {
    JpegState *state = state_of(decompress);
    size_t left = sizeof state->tables - state->tables_used;
    size_t whole = (size + TABLE_ALIGNMENT - 1) / TABLE_ALIGNMENT * TABLE_ALIGNMENT;
    if (pool != POOL_PERMANENT || size > left || whole > left) return state->allocate(decompress, pool, size);
    state->tables_used += whole;
    return state->tables + state->tables_used - whole;
}
void on_init_source(void *) {}
int on_fill_input(void *) { return 0; }  // all bytes were given at once: asking for more means that the file was cut
void on_skip_input(void *decompress, long count) {
    SourceManager &source = state_of(decompress)->source;
    if (count <= 0) return;
    size_t skipped = std::min(static_cast<size_t>(count), source.bytes_in_buffer);
    source.next_input_byte += skipped;
    source.bytes_in_buffer -= skipped;
}

void prepare(JpegState *state) {
    std::memset(&state->decompress, 0, sizeof state->decompress);
    std::memset(&state->errors, 0, sizeof state->errors);
    state->message[0] = 0;
    state->decompress.err = static_cast<ErrorManager *>(functions.std_error(&state->errors));
    state->decompress.client_data = state;
    state->errors.error_exit = on_error;
    state->errors.emit_message = on_message;
    state->errors.output_message = on_output;
    state->source.init_source = on_init_source;
    state->source.fill_input_buffer = on_fill_input;
    state->source.skip_input_data = on_skip_input;
    state->source.resync_to_restart = functions.resync_to_restart;
    state->source.term_source = on_init_source;
}

// jpeg_CreateDecompress clears the structure but for `err` and `client_data`.
bool create(JpegState *state, int abi) {
    if (setjmp(state->escape)) return false;
    prepare(state);
    functions.create(&state->decompress, abi, abi == 62 ? STRUCT_SIZE_ABI_62 : STRUCT_SIZE_ABI_80);
    state->decompress.src = &state->source;
    state->progress.progress_monitor = on_progress;
    state->decompress.progress = &state->progress;
    auto *memory = static_cast<MemoryManager *>(state->decompress.mem);
    if (memory->max_alloc_chunk != MAX_ALLOC_CHUNK) {
        std::snprintf(state->message, MESSAGE_SIZE, "its memory manager is laid out in another way");
        functions.destroy(&state->decompress);
        return false;
    }
    // JPEGMEM sets a limit, at which libjpeg refuses progressive files. What is too large, max_pixels decides.
    memory->max_memory_to_use = std::numeric_limits<long>::max();
    state->allocate = memory->allocate_small;
    memory->allocate_small = on_allocate;
    return true;
}

template <class Function>
bool find(void *handle, const char *name, Function *function) {
    *function = reinterpret_cast<Function>(dlsym(handle, name));
    return *function != nullptr;
}

// jpeg_abort_decompress keeps the tables of the last image, and a file that lacks its own would be decoded with those:
// to other pixels on every thread. A decoder made anew for each image would cost more than a small image does:
// libjpeg-turbo 3.2 then asks CPUID three times, which a hypervisor answers.
void forget_tables(JpegState *state) {
    Decompress &decompress = state->decompress;
    for (auto *pointers : {decompress.quantization_tables, decompress.dc_tables, decompress.ac_tables})
        std::fill(pointers, pointers + 4, nullptr);
    state->tables_used = 0;
}

// From behind, where it is in a whole file. Within a scan 0xFF is followed by 0, so this is no part of its content.
bool has_end_marker(const uint8_t *bytes, size_t size) {
    for (size_t i = size; i >= 2; i--)
        if (bytes[i - 1] == 0xD9 && bytes[i - 2] == 0xFF) return true;
    return false;
}

// The empty string, or why this library will not do.
std::string try_library(const std::string &path) {
    void *handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        const char *error = dlerror();
        return error ? error : "dlopen failed";
    }
    Functions found{};
    if (!(find(handle, "jpeg_std_error", &found.std_error) && find(handle, "jpeg_CreateDecompress", &found.create) &&
          find(handle, "jpeg_destroy_decompress", &found.destroy) &&
          find(handle, "jpeg_abort_decompress", &found.abort) && find(handle, "jpeg_read_header", &found.read_header) &&
          find(handle, "jpeg_start_decompress", &found.start) &&
          find(handle, "jpeg_read_scanlines", &found.read_scanlines) &&
          find(handle, "jpeg_read_raw_data", &found.read_raw_data) &&
          find(handle, "jpeg_resync_to_restart", &found.resync_to_restart))) {
        dlclose(handle);
        return "a function of libjpeg is missing";
    }
    bool can_crop = find(handle, "jpeg_crop_scanline", &found.crop_scanline) &&
                    find(handle, "jpeg_skip_scanlines", &found.skip_scanlines);
    functions = found;
    auto state = std::make_unique<JpegState>();
    for (int abi : {62, 80}) {
        if (!create(state.get(), abi)) continue;
        functions.destroy(&state->decompress);
        library = {path, abi, can_crop};
        return "";
    }
    dlclose(handle);
    return std::string("its ABI is neither 62 nor 80: ") + state->message;
}

}  // namespace

// By its text, since the number differs between ABI 62 and 80. The other cases of insufficient memory are sizes that no
// memory would hold. Where there is little, some builds go on in a file, or say that they do not.
bool tells_of_memory(const char *message) {
    for (const char *refused :
         {"Insufficient memory (case 0)", "Insufficient memory (case 2)", "Insufficient memory (case 4)",
          "Memory limit exceeded", "Backing store", "temporary file"})
        if (std::strstr(message, refused)) return true;
    return false;
}

const JpegLibrary *load_jpeg_library(const std::vector<std::string> &paths, std::string *reasons) {
    static std::mutex mutex;
    std::lock_guard<std::mutex> lock(mutex);
    if (library.abi) return &library;
    for (const std::string &path : paths) {
        std::string reason = try_library(path);
        if (reason.empty()) return &library;
        *reasons += (reasons->empty() ? "" : "; ") + path + ": " + reason;
    }
    return nullptr;
}

JpegDecoder::JpegDecoder() : state_(new JpegState) {
    if (create(state_, library.abi)) return;
    delete state_;
    throw std::bad_alloc();  // the library is known to fit
}
JpegDecoder::~JpegDecoder() {
    functions.destroy(&state_->decompress);
    delete state_;
}

// In each of the functions below nothing with a destructor lives between setjmp and the calls into libjpeg.

JpegDecoder::Status JpegDecoder::open(const uint8_t *bytes, size_t size) {
    state_->message[0] = 0;
    if (setjmp(state_->escape)) return Status::damaged;
    functions.abort(&state_->decompress);
    forget_tables(state_);
    state_->source.next_input_byte = bytes;
    state_->source.bytes_in_buffer = size;
    if (functions.read_header(&state_->decompress, 1) != HEADER_OK) return damaged("the file ends within its header");
    // A crop may not need the rows that are missing, and how far libjpeg is asked to read depends on the kernels.
    if (!has_end_marker(state_->source.next_input_byte, state_->source.bytes_in_buffer))
        return damaged("the file is cut: it has no end marker");
    int space = state_->decompress.jpeg_color_space;
    bool known = space == COLOR_GRAYSCALE || space == COLOR_RGB || space == COLOR_YCBCR;
    bool lossless = state_->decompress.components[0].scaled_size == 1;  // what libjpeg-turbo sets for "blocks" of one
    return known && !lossless ? Status::ok : Status::unsupported;
}

JpegDecoder::Status JpegDecoder::check(const uint8_t *bytes, size_t size) {
    if (open(bytes, size) == Status::damaged) return Status::damaged;
    if (setjmp(state_->escape)) return Status::damaged;
    Decompress &decompress = state_->decompress;
    decompress.scale_denom = 8;  // every code is read, and of the inverse DCT next to nothing is left to do
    if (!functions.start(&decompress)) return damaged("the file is cut");
    state_->row.resize(static_cast<size_t>(decompress.output_width) *
                       static_cast<size_t>(decompress.output_components));
    while (decompress.output_scanline < decompress.output_height)
        if (read(state_->row.data(), 0, 1) != Status::ok) return Status::damaged;
    return Status::ok;
}

uint32_t JpegDecoder::stored_width() const { return state_->decompress.image_width; }
uint32_t JpegDecoder::stored_height() const { return state_->decompress.image_height; }
uint32_t JpegDecoder::width() const { return state_->decompress.output_width; }
uint32_t JpegDecoder::height() const { return state_->decompress.output_height; }
bool JpegDecoder::can_crop() { return library.can_crop; }
const char *JpegDecoder::message() const { return state_->message; }

bool JpegDecoder::out_of_memory() const { return tells_of_memory(state_->message); }

JpegDecoder::Status JpegDecoder::damaged(const char *message) {
    std::snprintf(state_->message, MESSAGE_SIZE, "%s", message);
    return Status::damaged;
}

JpegDecoder::Status JpegDecoder::cut() {
    std::snprintf(state_->message, MESSAGE_SIZE, "the file is cut: %u rows of %u", state_->decompress.output_scanline,
                  height());
    return Status::damaged;
}

JpegDecoder::Status JpegDecoder::start(int denominator) { return begin(denominator, false); }

JpegDecoder::Status JpegDecoder::begin(int denominator, bool planes) {
    if (setjmp(state_->escape)) return Status::damaged;
    state_->decompress.out_color_space = planes ? COLOR_YCBCR : COLOR_RGB;
    state_->decompress.raw_data_out = planes;
    state_->decompress.scale_num = 1;
    state_->decompress.scale_denom = static_cast<unsigned>(denominator);
    // A progressive file is read to its end here.
    return functions.start(&state_->decompress) ? Status::ok : damaged("the file is cut");
}

bool JpegDecoder::can_read_planes(int denominator) const {
    const Decompress &decompress = state_->decompress;
    // What the original libjpeg does with chroma is another matter: it lacks these functions.
    if (!library.can_crop || decompress.jpeg_color_space != COLOR_YCBCR || decompress.num_components != 3) return false;
    const Component *parts = decompress.components;
    for (int i = 0; i < 3; i++) {
        int samples = i == 0 ? parts[0].h_samp_factor : 1;
        if (parts[i].index != i || parts[i].h_samp_factor != samples || parts[i].v_samp_factor != samples) return false;
    }
    if (parts[0].h_samp_factor == 1) return true;
    // Scaled, chroma is decoded at twice the scale of luma. libjpeg interpolates chroma of more than 2 columns.
    return parts[0].h_samp_factor == 2 && (denominator > 1 || decompress.image_width > 4);
}

JpegDecoder::Status JpegDecoder::start_planes(int denominator, JpegPlanes *planes) {
    Status status = begin(denominator, true);
    if (status != Status::ok) return status;
    const Component *parts = state_->decompress.components;
    uint32_t samples = static_cast<uint32_t>(parts[0].h_samp_factor),
             luma_size = 8u / static_cast<uint32_t>(denominator);
    planes->halved = samples == 2 && denominator == 1;
    uint32_t chroma_size = samples == 2 && denominator > 1 ? luma_size * 2 : luma_size;
    if (static_cast<uint32_t>(parts[0].scaled_size) != luma_size ||
        static_cast<uint32_t>(parts[1].scaled_size) != chroma_size ||
        static_cast<uint32_t>(parts[2].scaled_size) != chroma_size) {
        std::snprintf(state_->message, MESSAGE_SIZE, "this libjpeg scales in another way");
        return Status::unsupported;
    }
    planes->chroma_width = planes->halved ? (width() + 1) / 2 : width();
    planes->chroma_height = planes->halved ? (height() + 1) / 2 : height();
    planes->luma_rows = samples * luma_size;
    planes->chroma_rows = chroma_size;
    planes->luma_row_bytes = static_cast<size_t>(parts[0].width_in_blocks) * luma_size;
    planes->chroma_row_bytes =
        static_cast<size_t>(std::max(parts[1].width_in_blocks, parts[2].width_in_blocks)) * chroma_size;
    return Status::ok;
}

JpegDecoder::Status JpegDecoder::read_planes(uint8_t **const rows[3]) {
    if (setjmp(state_->escape)) return Status::damaged;
    uint32_t wanted = static_cast<uint32_t>(state_->decompress.components[0].v_samp_factor *
                                            state_->decompress.components[0].scaled_size);
    return functions.read_raw_data(&state_->decompress, rows, wanted) == wanted ? Status::ok : cut();
}

JpegDecoder::Status JpegDecoder::crop(uint32_t *left, uint32_t *columns) {
    uint32_t total = state_->decompress.output_width;
    uint32_t start = *left > CROP_MARGIN ? *left - CROP_MARGIN : 0;
    uint32_t stop = total - *left - *columns > CROP_MARGIN ? *left + *columns + CROP_MARGIN : total;
    *left = 0;
    *columns = total;
    if (start == 0 && stop == total) return Status::ok;
    if (setjmp(state_->escape)) return Status::damaged;
    unsigned first = start, count = stop - start;
    functions.crop_scanline(&state_->decompress, &first, &count);
    *left = first;
    *columns = count;
    return Status::ok;
}

JpegDecoder::Status JpegDecoder::skip(uint32_t rows) {
    if (rows == 0) return Status::ok;
    if (setjmp(state_->escape)) return Status::damaged;
    return functions.skip_scanlines(&state_->decompress, rows) == rows ? Status::ok : cut();
}

// Reads at most `count` rows; 0 where the bytes end before the next one.
JpegDecoder::Status JpegDecoder::read_some(uint8_t **rows, uint32_t count, uint32_t *done) {
    if (setjmp(state_->escape)) return Status::damaged;
    *done = functions.read_scanlines(&state_->decompress, rows, count);
    return *done > 0 ? Status::ok : cut();
}

JpegDecoder::Status JpegDecoder::read(uint8_t *rows, size_t stride_bytes, uint32_t count) {
    constexpr uint32_t MAX_ROWS = 16;
    for (uint32_t done = 0; count > 0; count -= done) {
        uint8_t *pointers[MAX_ROWS];
        uint32_t wanted = std::min(count, MAX_ROWS);
        for (uint32_t i = 0; i < wanted; i++) pointers[i] = rows + i * stride_bytes;
        Status status = read_some(pointers, wanted, &done);
        if (status != Status::ok) return status;
        rows += done * stride_bytes;
    }
    return Status::ok;
}

void JpegDecoder::finish() {
    if (setjmp(state_->escape)) return;
    functions.abort(&state_->decompress);
}

}  // namespace fastload
