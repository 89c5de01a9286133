// The types that pixels are written as. Included by files that are compiled for wide instruction sets: no inline code.
#pragma once

namespace fastload {

enum class Dtype { uint8 = 0, float32 = 1, float16 = 2, bfloat16 = 3 };

}  // namespace fastload
