// The arithmetic of the letterbox, for gcc and nvcc alike: integers up to a level 0..255, of which float32 then makes a
// value of the network's input. See geometry.taps and geometry.value_table.
#pragma once

#include <cstdint>
#include <cstring>

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

template <typename T>
EDGEKD_HOST_DEVICE inline T smaller(T a, T b) {
    return a < b ? a : b;
}

template <typename T>
EDGEKD_HOST_DEVICE inline T larger(T a, T b) {
    return a > b ? a : b;
}

EDGEKD_HOST_DEVICE inline int32_t bits_of(float value) {
    int32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

EDGEKD_HOST_DEVICE inline float float_of(int32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

EDGEKD_HOST_DEVICE inline float normalise(int32_t value, float mean, float std) { return (float(value) - mean) / std; }

// The bits of the nearest half, ties to even; 65520 and more is infinite. No NaN comes here. A value is added to the
// power of two whose last bit weighs what the last bit of its half does: that rounds it, and counts it in that bit.
EDGEKD_HOST_DEVICE inline uint16_t half_bits(float value) {
    const int32_t sign = bits_of(value) >> 16 & 0x8000, smallest_normal = 113 << 23, too_large = 143 << 23;
    const int32_t magnitude = smaller(bits_of(value) & 0x7fffffff, too_large);
    const int32_t exponent = larger(magnitude & 0x7f800000, smallest_normal), power = exponent + (13 << 23);
    const int32_t units = bits_of(float_of(magnitude) + float_of(power)) - power;
    return uint16_t(sign | (((exponent - smallest_normal) >> 13) + units));
}

// The network's input as integers: value = (q - zero_point) * scale, q in lowest..highest.
struct Quantization {
    float scale;
    int32_t zero_point, lowest, highest;
};

// Clamp and round to even. The bounds are whole numbers below 512, so clamping first changes nothing; and adding to
// 1.5 * 2^23 rounds to a whole number, the last bits of the sum.
EDGEKD_HOST_DEVICE inline int32_t whole(float steps, const Quantization& to) {
    const float high = float(to.highest - to.zero_point), low = float(to.lowest - to.zero_point), power = 12582912.0f;
    return bits_of(smaller(larger(steps, low), high) + power) - bits_of(power) + to.zero_point;
}

EDGEKD_HOST_DEVICE inline int32_t quantize(float value, const Quantization& to) { return whole(value / to.scale, to); }

}  // namespace edgekd
