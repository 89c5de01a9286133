#include "ops/augment.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "decode/pixels.h"

namespace fastload {
namespace {

constexpr size_t LINE_BYTES = 64, MAX_KEPT_BYTES = size_t{32} << 20;

// Builds the steps of an image from its row. uint8 pixels are in range: a step that changes nothing is left out, and a
// step that mixes them with their mean or gray by a factor below 1 need not clamp. Floats may be out of range.
class Steps {
   public:
    Steps(const AugmentSource &source, AugmentProgram *program)
        : colour_(source.channels == 3), trusted_(!source.floats), program_(program) {}

    void jitter(const float *factors, const float *order) {
        for (int i = 0; i < 4; i++) {
            int step = static_cast<int>(order[i]);
            float factor = factors[step];
            if (step == 0) brightness(factor);
            if (step == 1) contrast(factor);
            if (step == 2) saturation(factor);
            if (step == 3) {
                if (colour_) hue(factor);
                if (!trusted_) affine(1, 0);
            }
        }
    }

    void matrix(const float *C) {
        if (!colour_) return affine(C[0], C[3] * program_->top);
        AugmentStep &step = add(AugmentStepKind::matrix);
        std::copy(C, C + 12, step.numbers);
        for (int row = 0; row < 3; row++) step.numbers[4 * row + 3] *= program_->top;
    }

    void hsv(float turns, float factor) {
        if (!colour_) return;
        hue(turns);
        if (factor != 1) add(trusted_ ? AugmentStepKind::hsv : AugmentStepKind::any_hsv).numbers[0] = factor;
    }

   private:
    AugmentStep &add(AugmentStepKind kind) {
        AugmentStep &step = program_->steps[program_->step_count++];
        step = {kind, {}};
        return step;
    }

    void affine(float factor, float offset, AugmentStepKind kind = AugmentStepKind::affine_clamped) {
        AugmentStep &step = add(kind);
        step.numbers[0] = factor;
        step.numbers[1] = offset;
    }

    // The weights of gray add up to 0.9999, so that with such a factor no sum is rounded to more than 1.
    bool mixes(float factor) const { return trusted_ && factor >= 0 && factor < 0.99f; }

    void brightness(float factor) {
        if (factor == 1 && trusted_) return;
        affine(factor, 0,
               trusted_ && factor >= 0 && factor <= 1 ? AugmentStepKind::affine
               : trusted_ && factor > 1               ? AugmentStepKind::affine_capped
                                                      : AugmentStepKind::affine_clamped);
    }

    void contrast(float factor) {
        if (factor == 1) return trusted_ ? void() : affine(1, 0);
        program_->mean_step = program_->step_count;
        affine(factor, static_cast<float>(1.0 - static_cast<double>(factor)),
               mixes(factor) ? AugmentStepKind::affine : AugmentStepKind::affine_clamped);
    }

    void saturation(float factor) {
        if (factor == 1 || !colour_) return trusted_ ? void() : affine(1, 0);
        AugmentStep &step = add(mixes(factor) ? AugmentStepKind::saturation : AugmentStepKind::saturation_clamped);
        step.numbers[0] = factor;
        for (int channel = 0; channel < 3; channel++)
            step.numbers[1 + channel] = static_cast<float>(AUGMENT_GRAY[channel] * (1.0 - static_cast<double>(factor)));
    }

    void hue(float turns) {
        if (turns == 0) return;
        using Kind = AugmentStepKind;
        constexpr Kind KINDS[2][3][2] = {
            {{Kind::any_hue_rgb, Kind::any_hue_rbg},
             {Kind::any_hue_brg, Kind::any_hue_bgr},
             {Kind::any_hue_gbr, Kind::any_hue_grb}},
            {{Kind::hue_rgb, Kind::hue_rbg}, {Kind::hue_brg, Kind::hue_bgr}, {Kind::hue_gbr, Kind::hue_grb}}};
        double sixths = std::remainder(6.0 * static_cast<double>(turns), 6.0), thirds = std::round(sixths / 2);
        double rest = sixths - 2 * thirds;
        AugmentStep &step = add(KINDS[trusted_][(static_cast<int>(thirds) + 3) % 3][rest < 0]);
        step.numbers[0] = static_cast<float>(std::fabs(rest));
        step.numbers[1] = static_cast<float>(1 - std::fabs(rest));
    }

    const bool colour_, trusted_;
    AugmentProgram *const program_;
};

// Converts G_inv from centred coordinates to columns and rows.
void set_warp(const float *G_inv, const AugmentSource &source, AugmentProgram *program) {
    double center_x = (source.width - 1) / 2.0, center_y = (source.height - 1) / 2.0;
    bool mirrors = G_inv[1] == 0 && G_inv[2] == 0 && G_inv[3] == 0 && G_inv[5] == 0 && std::fabs(G_inv[0]) == 1 &&
                   std::fabs(G_inv[4]) == 1;
    program->flip_columns = mirrors && G_inv[0] < 0;
    program->flip_rows = mirrors && G_inv[4] < 0;
    program->warped = !mirrors;
    for (int axis = 0; axis < 2; axis++) {
        const float *from = G_inv + 3 * axis;
        double *to = program->to_source + 3 * axis;
        to[0] = static_cast<double>(from[0]);
        to[1] = static_cast<double>(from[1]);
        to[2] = static_cast<double>(from[2]) - to[0] * center_x - to[1] * center_y + (axis ? center_y : center_x);
    }
}

// The pixels of a side that a cut covers: those whose centre is less than half its size away.
void set_cut(double size, double center, int side, int *start, int *stop) {
    *start = *stop = 0;
    for (int i = 0; i < side; i++)
        if (std::fabs(i + 0.5 - side * center) < size * side / 2) {
            if (*stop == 0) *start = i;
            *stop = i + 1;
        }
}

// Scale and offset from values in [0, top] to results. The ends of the range equal the reference's to the last bit, and
// no result lies outside. Floats out of range, which the contract excludes, are not clamped.
void set_range(const AugmentSettings &settings, bool floats, size_t channel, AugmentProgram *program) {
    const double to_bytes = 255.0 / static_cast<double>(program->top), std = settings.std[channel];
    float &scale = program->scale[channel], &offset = program->offset[channel], &limit = program->limit[channel];
    limit = std::numeric_limits<float>::infinity();
    if (settings.dtype == Dtype::uint8) {
        scale = static_cast<float>(to_bytes);
        offset = 0;
        return;
    }
    const float mean_f = static_cast<float>(settings.mean[channel]), std_f = static_cast<float>(std);
    const float end = (255.0f / static_cast<float>(settings.divisor) - mean_f) / std_f;
    scale = static_cast<float>(to_bytes / (settings.divisor * std));
    offset = (0.0f - mean_f) / std_f;
    if (!floats)
        limit = end;
    else
        while (scale + offset > end) scale = std::nextafter(scale, 0.0f);
}

AugmentProgram program_of(const AugmentSettings &settings, const float *row, const AugmentSource &source) {
    AugmentProgram program{};
    program.mean_step = -1;
    program.top = source.floats ? 1.0f : 255.0f;
    program.nearest = settings.nearest;
    program.dtype = settings.dtype;
    program.channels_last = settings.channels_last;
    program.past_cache = settings.past_cache;
    if (settings.stages & STAGE_WARP) set_warp(row + COLUMN_G_INV, source, &program);
    Steps steps(source, &program);
    if (settings.stages & STAGE_JITTER) steps.jitter(row + COLUMN_JITTER, row + COLUMN_ORDER);
    if (settings.stages & STAGE_COLOR) steps.matrix(row + COLUMN_C);
    if (settings.stages & STAGE_HSV) steps.hsv(row[COLUMN_HSV], row[COLUMN_HSV + 1]);
    if (settings.stages & STAGE_CUTOUT) {
        double size = row[COLUMN_CUT_SIZE];
        set_cut(size, row[COLUMN_CUT_CENTER], source.width, &program.cut_left, &program.cut_right);
        set_cut(size, row[COLUMN_CUT_CENTER + 1], source.height, &program.cut_top, &program.cut_bottom);
    }
    for (size_t channel = 0; channel < 3; channel++) set_range(settings, source.floats, channel, &program);
    return program;
}

// Scratch memory of a thread, reused for each image.
class Memory {
   public:
    AugmentScratch scratch(const AugmentSource &source, bool warped) {
        size_t width = static_cast<size_t>(source.width), height = static_cast<size_t>(source.height);
        AugmentScratch scratch{};
        scratch.row_items = (width + AUGMENT_PADDING - 1) / AUGMENT_PADDING * AUGMENT_PADDING + AUGMENT_PADDING;
        size_t row_bytes = scratch.row_items * sizeof(float), pixel_bytes = source.floats ? 16 : 4;
        size_t packed_bytes = warped ? (width + 1) * (height + 1) * pixel_bytes + LINE_BYTES : 0;
        bytes_.resize(LINE_BYTES + 8 * row_bytes + packed_bytes);
        uint8_t *start = bytes_.data();
        start += (LINE_BYTES - reinterpret_cast<uintptr_t>(start) % LINE_BYTES) % LINE_BYTES;
        scratch.bytes = start;  // three rows of a quarter of row_bytes each
        scratch.floats = reinterpret_cast<float *>(start + row_bytes);
        scratch.results = start + 4 * row_bytes;
        scratch.keep = reinterpret_cast<int32_t *>(start + 7 * row_bytes);
        scratch.packed = start + 8 * row_bytes;
        return scratch;
    }
    uint8_t *image(size_t size) {
        image_.resize(size);
        return image_.data();
    }
    // One huge image must not hold its memory for the life of the thread.
    void release_if_large() {
        for (std::vector<uint8_t> *memory : {&bytes_, &image_})
            if (memory->capacity() > MAX_KEPT_BYTES) std::vector<uint8_t>().swap(*memory);
    }

   private:
    std::vector<uint8_t> bytes_, image_;
};

Memory &memory_of_thread() {
    static thread_local Memory memory;
    return memory;
}

}  // namespace

KernelChoice<AugmentKernels> &augment_kernel_choice() {
    static KernelChoice<AugmentKernels> choice({
#if defined(__x86_64__)
        {&AUGMENT_KERNELS_AVX512, has_avx512()},
        {&AUGMENT_KERNELS_AVX2, has_avx2() && __builtin_cpu_supports("f16c")},
#endif
        {&AUGMENT_KERNELS_BASELINE, true},
    });
    return choice;
}

std::string row_error(const AugmentSettings &settings, const float *row) {
    if (settings.stages & STAGE_WARP)
        for (int i = 0; i < 6; i++)
            if (!std::isfinite(row[COLUMN_G_INV + i])) return "G_inv must be finite";
    if (settings.stages & STAGE_JITTER) {
        int seen = 0;
        for (int i = 0; i < 4; i++)
            for (int step = 0; step < 4; step++)
                if (row[COLUMN_ORDER + i] == static_cast<float>(step)) seen |= 1 << step;
        if (seen != 15) return "the order of the jitter must be a permutation of 0, 1, 2, 3";
        if (!std::isfinite(row[COLUMN_JITTER + 3])) return "the hue shift of the jitter must be finite";
    }
    if (settings.stages & STAGE_HSV && !std::isfinite(row[COLUMN_HSV])) return "the hue shift of hsv must be finite";
    return {};
}

size_t result_bytes(const AugmentSettings &settings, int height, int width, int channels) {
    return static_cast<size_t>(height) * static_cast<size_t>(width) * static_cast<size_t>(channels) *
           item_bytes(settings.dtype);
}

void augment_image(const AugmentSettings &settings, const float *row, const AugmentSource &source, uint8_t *out) {
    Memory &memory = memory_of_thread();
    AugmentProgram program = program_of(settings, row, source);
    augment_kernel_choice().in_use().augment(source, program, memory.scratch(source, program.warped), out);
    memory.release_if_large();
}

Augmenter::Augmenter(const AugmentSettings &settings, std::vector<float> rows, int height, int width)
    : ImageAugmenter(height, width, rows.size() / AUGMENT_COLUMNS, result_bytes(settings, height, width, 3)),
      settings_(settings),
      rows_(std::move(rows)) {}

uint8_t *Augmenter::scratch() const { return memory_of_thread().image(pixel_writer.sample_bytes()); }

void Augmenter::augment_scratch(size_t sample, uint8_t *out) const {
    const ptrdiff_t width = pixel_writer.width();
    augment_strided(scratch(), width, 1, width * pixel_writer.height(), sample, out);
}

void Augmenter::augment(const uint8_t *pixels, size_t sample, uint8_t *out) const {
    augment_strided(pixels, ptrdiff_t{3} * pixel_writer.width(), 3, 1, sample, out);
}

void Augmenter::augment_strided(const uint8_t *pixels, ptrdiff_t row_stride, ptrdiff_t column_stride,
                                ptrdiff_t channel_stride, size_t sample, uint8_t *out) const {
    const int height = pixel_writer.height(), width = pixel_writer.width();
    const auto split = pixel_kernels_in_use().split_channels;
    const AugmentSource source{pixels, row_stride, column_stride, channel_stride, height, width, 3, false, split};
    augment_image(settings_, rows_.data() + sample * AUGMENT_COLUMNS, source, out);
}

}  // namespace fastload
