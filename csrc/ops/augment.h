// fastload/ops/fused_augment.py on the CPU: from resized pixels to the training tensor, all stages in one pass.
//
// In: an image, uint8 or float32 in any strides, and its row of parameters, laid out as in
// fastload/ops/augment_params.py. Out: the sample in the batch. Promises: within the contract's tolerances of the
// float64 reference, on every instruction set; the same bits however many threads there are. The mean that a contrast
// needs is taken wherever the contrast does something: Stage.MEAN is for kernels that must know before they read the
// row. Which pixels are cut out is decided in float64, where the row's numbers times a side are exact.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/kernel_choice.h"
#include "decode/image_batch.h"
#include "ops/augment_kernels.h"

namespace fastload {

// First columns of a row's parts, and which parts a batch has.
enum AugmentColumn {
    COLUMN_G_INV = 0,
    COLUMN_C = 6,
    COLUMN_JITTER = 18,
    COLUMN_ORDER = 22,
    COLUMN_HSV = 26,
    COLUMN_CUT_SIZE = 28,
    COLUMN_CUT_CENTER = 29,
    AUGMENT_COLUMNS = 32
};
enum AugmentStage {
    STAGE_WARP = 1,
    STAGE_JITTER = 2,
    STAGE_MEAN = 4,
    STAGE_COLOR = 8,
    STAGE_HSV = 16,
    STAGE_CUTOUT = 32,
    STAGE_ALL = 63
};

// What all images of a batch share.
struct AugmentSettings {
    int stages;
    double divisor;
    std::array<double, 3> mean, std;  // not used for uint8 results
    bool nearest;
    Dtype dtype;
    bool channels_last;
    bool past_cache;  // whether the batch is larger than the caches, so that it is better written past them
};

// The best of this machine, unless a test or a benchmark forced another.
KernelChoice<AugmentKernels> &augment_kernel_choice();

// What is wrong with a row; empty if it is valid.
std::string row_error(const AugmentSettings &settings, const float *row);

size_t result_bytes(const AugmentSettings &settings, int height, int width, int channels);

// One image. `row` has no row_error. Uses memory of the calling thread.
void augment_image(const AugmentSettings &settings, const float *row, const AugmentSource &source, uint8_t *out);

// The augmentation of a batch of the loader: images of one size in three channels of uint8.
class Augmenter : public ImageAugmenter {
   public:
    Augmenter(const AugmentSettings &settings, std::vector<float> rows, int height, int width);
    uint8_t *scratch() const override;
    void augment_scratch(size_t sample, uint8_t *out) const override;
    // The same from an image of interleaved bytes.
    void augment(const uint8_t *pixels, size_t sample, uint8_t *out) const;

   private:
    void augment_strided(const uint8_t *pixels, ptrdiff_t row_stride, ptrdiff_t column_stride, ptrdiff_t channel_stride,
                         size_t sample, uint8_t *out) const;

    const AugmentSettings settings_;
    const std::vector<float> rows_;
};

}  // namespace fastload
