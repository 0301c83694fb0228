// The steps of a letterbox with NEON, which on AArch64 is always there: of plain loops the compiler makes it by itself.
#include "letterbox_steps.h"

#if EDGEKD_HAS_NEON
#include <arm_neon.h>

namespace edgekd {
namespace {

// One column: 8 bytes hold both of its pixels. The weights of two columns are four lanes. Returns sums of the channels.
template <int kChannels, int kColumn>
inline uint32x4_t blend_column(const uint8_t* pixels, uint16x4_t weights) {
    const uint16x8_t both = vmovl_u8(vld1_u8(pixels));
    const uint16x4_t first = vget_low_u16(both), second = vget_low_u16(vextq_u16(both, both, kChannels));
    const uint32x4_t sum = vmull_lane_u16(first, weights, 2 * kColumn);
    return vmlal_lane_u16(sum, second, weights, 2 * kColumn + 1);
}

// Four columns a turn, turned from columns of channels to channels of columns. It stops where 8 bytes may not be read.
template <int kChannels>
void across(const Columns& columns, const uint8_t* source, int32_t* sums) {
    const int64_t readable = columns.row_bytes - 8;
    int64_t x = 0;
    for (; x + 4 <= columns.count && columns.offsets[x + 3] <= readable; x += 4) {
        const int32_t* at = columns.offsets + x;
        const uint16x8_t weights = vreinterpretq_u16_u32(vld1q_u32(columns.weights + x));
        const uint16x4_t weights01 = vget_low_u16(weights), weights23 = vget_high_u16(weights);
        const uint32x4_t a = blend_column<kChannels, 0>(source + at[0], weights01);
        const uint32x4_t b = blend_column<kChannels, 1>(source + at[1], weights01);
        const uint32x4_t c = blend_column<kChannels, 0>(source + at[2], weights23);
        const uint32x4_t d = blend_column<kChannels, 1>(source + at[3], weights23);
        const uint32x4_t ab01 = vzip1q_u32(a, b), cd01 = vzip1q_u32(c, d);
        const uint32x4_t ab2 = vzip2q_u32(a, b), cd2 = vzip2q_u32(c, d);
        const uint32x4_t planes[3] = {vcombine_u32(vget_low_u32(ab01), vget_low_u32(cd01)),
                                      vcombine_u32(vget_high_u32(ab01), vget_high_u32(cd01)),
                                      vcombine_u32(vget_low_u32(ab2), vget_low_u32(cd2))};
        for (int k = 0; k < 3; ++k) vst1q_s32(sums + k * columns.pitch + x, vreinterpretq_s32_u32(planes[k]));
    }
    across_from<kChannels>(x, columns, source, sums);
}

inline uint16_t load_pair(const uint8_t* source) {
    uint16_t pair;
    std::memcpy(&pair, source, sizeof pair);
    return pair;
}

// Eight columns a turn; a column is a lane of two bytes.
template <>
void across<1>(const Columns& columns, const uint8_t* source, int32_t* sums) {
    const int64_t readable = columns.row_bytes - 2;
    int64_t x = 0;
    for (; x + 8 <= columns.count && columns.offsets[x + 7] <= readable; x += 8) {
        const int32_t* at = columns.offsets + x;
        uint16x8_t pairs = vdupq_n_u16(load_pair(source + at[0]));
        pairs = vsetq_lane_u16(load_pair(source + at[1]), pairs, 1);
        pairs = vsetq_lane_u16(load_pair(source + at[2]), pairs, 2);
        pairs = vsetq_lane_u16(load_pair(source + at[3]), pairs, 3);
        pairs = vsetq_lane_u16(load_pair(source + at[4]), pairs, 4);
        pairs = vsetq_lane_u16(load_pair(source + at[5]), pairs, 5);
        pairs = vsetq_lane_u16(load_pair(source + at[6]), pairs, 6);
        pairs = vsetq_lane_u16(load_pair(source + at[7]), pairs, 7);
        const uint16x8_t first = vandq_u16(pairs, vdupq_n_u16(255)), second = vshrq_n_u16(pairs, 8);
        const uint16x8_t weights0123 = vreinterpretq_u16_u32(vld1q_u32(columns.weights + x));
        const uint16x8_t weights4567 = vreinterpretq_u16_u32(vld1q_u32(columns.weights + x + 4));
        const uint16x8_t of_first = vuzp1q_u16(weights0123, weights4567);
        const uint16x8_t of_second = vuzp2q_u16(weights0123, weights4567);
        const uint32x4_t low = vmlal_u16(vmull_u16(vget_low_u16(first), vget_low_u16(of_first)), vget_low_u16(second),
                                         vget_low_u16(of_second));
        const uint32x4_t high = vmlal_u16(vmull_u16(vget_high_u16(first), vget_high_u16(of_first)),
                                          vget_high_u16(second), vget_high_u16(of_second));
        vst1q_s32(sums + x, vreinterpretq_s32_u32(low));
        vst1q_s32(sums + x + 4, vreinterpretq_s32_u32(high));
    }
    across_from<1>(x, columns, source, sums);
}

void down_float(const int32_t* upper, const int32_t* lower, int32_t weight, const Channel& channel, void* values,
                int64_t count) {
    down_float_from(0, upper, lower, weight, channel, static_cast<float*>(values), count);
}

void down_half(const int32_t* upper, const int32_t* lower, int32_t weight, const Channel& channel, void* values,
               int64_t count) {
    const float32x4_t mean = vdupq_n_f32(channel.mean), std = vdupq_n_f32(channel.std);
    auto* out = static_cast<uint16_t*>(values);
    int64_t x = 0;
    for (; x + 4 <= count; x += 4) {
        const int32x4_t above = vld1q_s32(upper + x), difference = vsubq_s32(vld1q_s32(lower + x), above);
        const int32x4_t sum = vmlaq_n_s32(vshlq_n_s32(above, kCoefficientBits), difference, weight);
        const float32x4_t level = vcvtq_f32_s32(vrshrq_n_s32(sum, 2 * kCoefficientBits));  // rounds half up
        const float16x4_t half = vcvt_f16_f32(vdivq_f32(vsubq_f32(level, mean), std));
        vst1_u16(out + x, vreinterpret_u16_f16(half));
    }
    down_half_from(x, upper, lower, weight, channel, out, count);
}

void down_quantized(const int32_t* upper, const int32_t* lower, int32_t weight, const Channel& channel, void* values,
                    int64_t count) {
    down_quantized_from(0, upper, lower, weight, channel, static_cast<uint8_t*>(values), count);
}

void interleave_bytes(const uint8_t* planes, int64_t pitch, uint8_t* pixels, int64_t count) {
    int64_t x = 0;
    for (; x + 16 <= count; x += 16) {
        const uint8_t* at = planes + x;
        vst3q_u8(pixels + 3 * x, uint8x16x3_t{{vld1q_u8(at), vld1q_u8(at + pitch), vld1q_u8(at + 2 * pitch)}});
    }
    interleave_from<1>(x, planes, pitch, pixels, count);
}

void interleave_halves(const uint8_t* planes, int64_t pitch, uint8_t* pixels, int64_t count) {
    int64_t x = 0;
    for (; x + 8 <= count; x += 8) {
        const auto* at = reinterpret_cast<const uint16_t*>(planes) + x;
        const uint16x8x3_t values{{vld1q_u16(at), vld1q_u16(at + pitch / 2), vld1q_u16(at + pitch)}};
        vst3q_u16(reinterpret_cast<uint16_t*>(pixels) + 3 * x, values);
    }
    interleave_from<2>(x, planes, pitch, pixels, count);
}

void interleave_floats(const uint8_t* planes, int64_t pitch, uint8_t* pixels, int64_t count) {
    int64_t x = 0;
    for (; x + 4 <= count; x += 4) {
        const auto* at = reinterpret_cast<const float*>(planes) + x;
        const float32x4x3_t values{{vld1q_f32(at), vld1q_f32(at + pitch / 4), vld1q_f32(at + pitch / 2)}};
        vst3q_f32(reinterpret_cast<float*>(pixels) + 3 * x, values);
    }
    interleave_from<4>(x, planes, pitch, pixels, count);
}

void interleave(const uint8_t* planes, int64_t pitch, int64_t bytes, uint8_t* pixels, int64_t count) {
    if (bytes == 1) interleave_bytes(planes, pitch, pixels, count);
    if (bytes == 2) interleave_halves(planes, pitch, pixels, count);
    if (bytes == 4) interleave_floats(planes, pitch, pixels, count);
}

// Eight 32-bit lanes.
struct Eight {
    int32x4_t low, high;
};

inline Eight widen(int16x8_t values) { return {vmovl_s16(vget_low_s16(values)), vmovl_s16(vget_high_s16(values))}; }

inline Eight widen(uint8x8_t values) { return widen(vreinterpretq_s16_u16(vmovl_u8(values))); }

inline Eight brightness_of(uint8x8_t y) {
    const Eight over = widen(vqsub_u8(y, vdup_n_u8(16)));
    return {vmulq_n_s32(over.low, kBrightness), vmulq_n_s32(over.high, kBrightness)};
}

// a * factor_a + b * factor_b + half: see `tint`.
inline Eight tint_of(const Eight& a, int32_t factor_a, const Eight& b, int32_t factor_b) {
    const int32x4_t half = vdupq_n_s32(kHalf);
    return {vmlaq_n_s32(vmlaq_n_s32(half, a.low, factor_a), b.low, factor_b),
            vmlaq_n_s32(vmlaq_n_s32(half, a.high, factor_a), b.high, factor_b)};
}

// Narrowing with saturation is the clamp.
inline uint8x8_t levels_of(const Eight& luma, const Eight& tint) {
    const int16x4_t low = vmovn_s32(vshrq_n_s32(vaddq_s32(luma.low, tint.low), kColourBits));
    const int16x4_t high = vmovn_s32(vshrq_n_s32(vaddq_s32(luma.high, tint.high), kColourBits));
    return vqmovun_s16(vcombine_s16(low, high));
}

inline uint8x16_t alternate(uint8x8_t left, uint8x8_t right) {
    return vcombine_u8(vzip1_u8(left, right), vzip2_u8(left, right));
}

// Eight pairs of pixels; every argument holds one value of each pair.
inline void store_pairs(uint8x8_t left, uint8x8_t right, uint8x8_t u, uint8x8_t v, uint8_t* pixels) {
    const int16x8_t middle = vdupq_n_s16(128);
    const Eight cb = widen(vsubq_s16(vreinterpretq_s16_u16(vmovl_u8(u)), middle));
    const Eight cr = widen(vsubq_s16(vreinterpretq_s16_u16(vmovl_u8(v)), middle));
    const Eight red = tint_of(cr, kRedOfV, cb, 0), green = tint_of(cb, kGreenOfU, cr, kGreenOfV);
    const Eight blue = tint_of(cb, kBlueOfU, cr, 0), lefts = brightness_of(left), rights = brightness_of(right);
    vst4q_u8(pixels, uint8x16x4_t{{alternate(levels_of(lefts, red), levels_of(rights, red)),
                                   alternate(levels_of(lefts, green), levels_of(rights, green)),
                                   alternate(levels_of(lefts, blue), levels_of(rights, blue)), vdupq_n_u8(0)}});
}

void from_nv12(const uint8_t* luma, const uint8_t* chroma, uint8_t* pixels, int64_t pairs) {
    int64_t i = 0;
    for (; i + 8 <= pairs; i += 8) {
        const uint8x8x2_t y = vld2_u8(luma + 2 * i), uv = vld2_u8(chroma + 2 * i);
        store_pairs(y.val[0], y.val[1], uv.val[0], uv.val[1], pixels + 8 * i);
    }
    from_yuv_from<1>(i, luma, chroma, pixels, pairs);
}

void from_yuyv(const uint8_t* luma, const uint8_t* chroma, uint8_t* pixels, int64_t pairs) {
    int64_t i = 0;
    for (; i + 8 <= pairs; i += 8) {
        const uint8x8x4_t both = vld4_u8(luma + 4 * i);
        store_pairs(both.val[0], both.val[2], both.val[1], both.val[3], pixels + 8 * i);
    }
    from_yuv_from<2>(i, luma, chroma, pixels, pairs);
}

}  // namespace

const Steps kNeonSteps = {across<1>,      across<3>,  across<4>, down_float, down_half,
                          down_quantized, interleave, from_nv12, from_yuyv};

}  // namespace edgekd
#endif
