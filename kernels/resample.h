// The arithmetic of the letterbox, in integers up to the one division that is defined in float32. See geometry.taps.
#pragma once

#include <cstdint>

#include "device.h"

namespace edgekd {

constexpr int kCoefficientBits = 11;
constexpr int32_t kOne = 1 << kCoefficientBits;

struct Tap {
    int64_t first;   // source index; the second tap is min(first + 1, source - 1)
    int32_t weight;  // of the second tap, in 0..2047 of 2048
};

EDGEKD_HOST_DEVICE inline Tap tap(int64_t x, int64_t source, int64_t target) {
    const int64_t numerator = ((2 * x + 1) * source - target) * kOne + target;
    const int64_t last = (source - 1) * kOne;
    int64_t q = numerator / (2 * target);  // C rounds towards 0, not down; what is negative becomes 0 either way
    q = q < 0 ? 0 : q > last ? last : q;
    return {q >> kCoefficientBits, int32_t(q & (kOne - 1))};
}

// Two neighbours of a row: at most 255 * 2048, 19 bits.
EDGEKD_HOST_DEVICE inline int32_t blend_across(int32_t first, int32_t second, int32_t weight) {
    return first * kOne + (second - first) * weight;
}

// Two rows of such sums, rounded half up: 0..255. The sum is below 2^31.
EDGEKD_HOST_DEVICE inline int32_t blend_down(int32_t upper, int32_t lower, int32_t weight) {
    const int32_t half = 1 << (2 * kCoefficientBits - 1);
    return (upper * kOne + (lower - upper) * weight + half) >> (2 * kCoefficientBits);
}

EDGEKD_HOST_DEVICE inline float normalise(int32_t value, float mean, float std) { return (float(value) - mean) / std; }

}  // namespace edgekd
