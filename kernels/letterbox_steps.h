// The steps of a letterbox, each over one row. A set of instructions is a table of them; all give the same bits.
#pragma once

#include <cstdint>
#include <cstring>

#include "colour.h"
#include "host.h"
#include "resample.h"

namespace edgekd {

// How the columns of the result come from a source row.
struct Columns {
    int64_t count, pitch;
    int64_t row_bytes;  // of the source; none beyond is read
    int32_t* offsets;   // of a column's first pixel, in bytes; `pitch` elements, as of the next
    uint32_t* weights;  // of both taps as one pair: first in the low half, second in the high one
};

// What becomes of a level 0..255 in one channel.
struct Channel {
    float mean, std;
    Quantization to;
    bool straight;  // whole(level * factor + offset) is the same at all 256 levels; and the line stays in 32 bits
    float factor, offset;
};

// Two rows of sums, blended `weight` down, -> `count` values.
using Down = void (*)(const int32_t* upper, const int32_t* lower, int32_t weight, const Channel& channel, void* values,
                      int64_t count);
// A row of a source of interleaved channels -> sums of two neighbours, in planes `pitch` apart.
using Across = void (*)(const Columns& columns, const uint8_t* source, int32_t* sums);
// A row of a camera frame -> RGB with a fourth byte. `pairs` of pixels share U and V.
using Colour = void (*)(const uint8_t* luma, const uint8_t* chroma, uint8_t* pixels, int64_t pairs);

struct Steps {
    Across across_grey, across_three, across_four;
    Down down_float, down_half, down_quantized;
    // Three planes, `pitch` bytes apart, of values of 1, 2 or 4 bytes -> pixels of three values.
    void (*interleave)(const uint8_t* planes, int64_t pitch, int64_t bytes, uint8_t* pixels, int64_t count);
    Colour from_nv12, from_yuyv;
};

extern const Steps kPlainSteps, kAvx2Steps, kAvx512Steps, kNeonSteps;

// What follows computes from column `begin` on: the whole row, or what a loop of vectors leaves of it.

template <int kChannels>
EDGEKD_INLINE void across_from(int64_t begin, const Columns& columns, const uint8_t* source, int32_t* sums) {
    const int64_t last = columns.row_bytes - kChannels;
    for (int64_t x = begin; x < columns.count; ++x) {
        const uint8_t* first = source + columns.offsets[x];
        const uint8_t* second = columns.offsets[x] == last ? first : first + kChannels;
        const int32_t weight = int32_t(columns.weights[x] >> 16);
        for (int c = 0; c < (kChannels == 1 ? 1 : 3); ++c) {
            sums[c * columns.pitch + x] = blend_across(first[c], second[c], weight);
        }
    }
}

EDGEKD_INLINE void down_float_from(int64_t begin, const int32_t* upper, const int32_t* lower, int32_t weight,
                                   const Channel& channel, float* values, int64_t count) {
    const float mean = channel.mean, std = channel.std;
    for (int64_t x = begin; x < count; ++x) values[x] = normalise(blend_down(upper[x], lower[x], weight), mean, std);
}

EDGEKD_INLINE void down_half_from(int64_t begin, const int32_t* upper, const int32_t* lower, int32_t weight,
                                  const Channel& channel, uint16_t* values, int64_t count) {
    const float mean = channel.mean, std = channel.std;
    for (int64_t x = begin; x < count; ++x) {
        values[x] = half_bits(normalise(blend_down(upper[x], lower[x], weight), mean, std));
    }
}

// int8 and uint8 alike: the low byte is the value. By a straight line where that is the same: two divisions are slow.
EDGEKD_INLINE void down_quantized_from(int64_t begin, const int32_t* upper, const int32_t* lower, int32_t weight,
                                       const Channel& channel, uint8_t* values, int64_t count) {
    const Channel by = channel;  // a copy, which no store to `values` can change
    if (by.straight) {
        for (int64_t x = begin; x < count; ++x) {
            const int32_t level = blend_down(upper[x], lower[x], weight);
            values[x] = uint8_t(whole(float(level) * by.factor + by.offset, by.to));
        }
    } else {
        for (int64_t x = begin; x < count; ++x) {
            const int32_t level = blend_down(upper[x], lower[x], weight);
            values[x] = uint8_t(quantize(normalise(level, by.mean, by.std), by.to));
        }
    }
}

template <int kBytes>
EDGEKD_INLINE void interleave_from(int64_t begin, const uint8_t* planes, int64_t pitch, uint8_t* pixels,
                                   int64_t count) {
    for (int64_t x = begin; x < count; ++x) {
        for (int c = 0; c < 3; ++c) std::memcpy(pixels + (3 * x + c) * kBytes, planes + c * pitch + x * kBytes, kBytes);
    }
}

// kStep: bytes from one Y to the next. U and V of a pair are as far apart, and twice that from those of the next pair.
template <int kStep>
EDGEKD_INLINE void from_yuv_from(int64_t begin, const uint8_t* luma, const uint8_t* chroma, uint8_t* pixels,
                                 int64_t pairs) {
    for (int64_t i = begin; i < pairs; ++i) {
        const int64_t at = 2 * kStep * i;
        const Tint both = tint(chroma[at], chroma[at + kStep]);
        for (int k = 0; k < 2; ++k) {
            const int32_t sum = brightness(luma[at + k * kStep]);
            uint8_t* pixel = pixels + 8 * i + 4 * k;
            pixel[0] = uint8_t(level(sum + both.red));
            pixel[1] = uint8_t(level(sum + both.green));
            pixel[2] = uint8_t(level(sum + both.blue));
            pixel[3] = 0;
        }
    }
}

}  // namespace edgekd
