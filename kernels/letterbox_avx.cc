// The steps of a letterbox with AVX2; and with AVX-512 the one that gains by it, 7 % of a call.
#include "letterbox_steps.h"

#if EDGEKD_HAS_AVX
#include <immintrin.h>

namespace edgekd {
namespace {

EDGEKD_TARGET_AVX2 inline __m256i load(const void* from) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}

EDGEKD_TARGET_AVX2 inline void store(void* to, __m256i value) { _mm256_storeu_si256(static_cast<__m256i*>(to), value); }

EDGEKD_TARGET_AVX2 inline __m128i load_two(const uint8_t* source, int32_t a, int32_t b) {
    const __m128i low = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(source + a));
    return _mm_castps_si128(_mm_loadh_pi(_mm_castsi128_ps(low), reinterpret_cast<const __m64*>(source + b)));
}

// Eight columns a turn: 8 bytes hold both pixels of a column; bytes are spread to 16-bit pairs (first, second) so that
// one multiply-add gives eight sums of one channel. It stops where 8 bytes may not be read.
template <int kChannels>
EDGEKD_TARGET_AVX2 void across(const Columns& columns, const uint8_t* source, int32_t* sums) {
    const char z = char(0x80), n = kChannels;
    const __m256i spread01 = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, z, n, z, 8, z, char(8 + n), z, 1, z, char(1 + n), z, 9, z, char(9 + n), z));
    const __m256i spread2 = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(2, z, char(2 + n), z, 10, z, char(10 + n), z, z, z, z, z, z, z, z, z));
    const Columns by = columns;  // a copy, which no store to `sums` can change
    const int64_t readable = by.row_bytes - 8;
    int64_t x = 0;
    for (; x + 8 <= by.count && by.offsets[x + 7] <= readable; x += 8) {
        const int32_t* at = by.offsets + x;
        const __m256i even = _mm256_inserti128_si256(_mm256_castsi128_si256(load_two(source, at[0], at[1])),
                                                     load_two(source, at[4], at[5]), 1);
        const __m256i odd = _mm256_inserti128_si256(_mm256_castsi128_si256(load_two(source, at[2], at[3])),
                                                    load_two(source, at[6], at[7]), 1);
        const __m256i weights = load(by.weights + x);
        const __m256i even01 = _mm256_shuffle_epi8(even, spread01), odd01 = _mm256_shuffle_epi8(odd, spread01);
        const __m256i even2 = _mm256_shuffle_epi8(even, spread2), odd2 = _mm256_shuffle_epi8(odd, spread2);
        const __m256i pairs[3] = {_mm256_unpacklo_epi64(even01, odd01), _mm256_unpackhi_epi64(even01, odd01),
                                  _mm256_unpacklo_epi64(even2, odd2)};
        for (int c = 0; c < 3; ++c) store(sums + c * by.pitch + x, _mm256_madd_epi16(pairs[c], weights));
    }
    across_from<kChannels>(x, columns, source, sums);
}

EDGEKD_TARGET_AVX2 inline int32_t load_pair(const uint8_t* source) {
    uint16_t pair;
    std::memcpy(&pair, source, sizeof pair);
    return pair;
}

template <>
EDGEKD_TARGET_AVX2 void across<1>(const Columns& columns, const uint8_t* source, int32_t* sums) {
    const Columns by = columns;
    const int64_t readable = by.row_bytes - 2;
    int64_t x = 0;
    for (; x + 8 <= by.count && by.offsets[x + 7] <= readable; x += 8) {
        const int32_t* at = by.offsets + x;
        __m128i bytes = _mm_cvtsi32_si128(load_pair(source + at[0]));
        bytes = _mm_insert_epi16(bytes, load_pair(source + at[1]), 1);
        bytes = _mm_insert_epi16(bytes, load_pair(source + at[2]), 2);
        bytes = _mm_insert_epi16(bytes, load_pair(source + at[3]), 3);
        bytes = _mm_insert_epi16(bytes, load_pair(source + at[4]), 4);
        bytes = _mm_insert_epi16(bytes, load_pair(source + at[5]), 5);
        bytes = _mm_insert_epi16(bytes, load_pair(source + at[6]), 6);
        bytes = _mm_insert_epi16(bytes, load_pair(source + at[7]), 7);
        store(sums + x, _mm256_madd_epi16(_mm256_cvtepu8_epi16(bytes), load(by.weights + x)));
    }
    across_from<1>(x, columns, source, sums);
}

EDGEKD_TARGET_AVX2 void down_float(const int32_t* upper, const int32_t* lower, int32_t weight, const Channel& channel,
                                   void* values, int64_t count) {
    down_float_from(0, upper, lower, weight, channel, static_cast<float*>(values), count);
}

// `blend_down` of eight columns, as float32.
EDGEKD_TARGET_AVX2 inline __m256 eight_levels(const int32_t* upper, const int32_t* lower, __m256i weight) {
    const __m256i above = load(upper), difference = _mm256_sub_epi32(load(lower), above);
    const __m256i whole = _mm256_slli_epi32(above, kCoefficientBits), part = _mm256_mullo_epi32(difference, weight);
    const __m256i half = _mm256_set1_epi32(1 << (2 * kCoefficientBits - 1));
    const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(whole, half), part);
    return _mm256_cvtepi32_ps(_mm256_srai_epi32(sum, 2 * kCoefficientBits));
}

EDGEKD_TARGET_AVX2 void down_half(const int32_t* upper, const int32_t* lower, int32_t weight, const Channel& channel,
                                  void* values, int64_t count) {
    const __m256 mean = _mm256_set1_ps(channel.mean), std = _mm256_set1_ps(channel.std);
    const __m256i weights = _mm256_set1_epi32(weight);
    auto* out = static_cast<uint16_t*>(values);
    int64_t x = 0;
    for (; x + 8 <= count; x += 8) {
        const __m256 centred = _mm256_sub_ps(eight_levels(upper + x, lower + x, weights), mean);
        const __m128i halves = _mm256_cvtps_ph(_mm256_div_ps(centred, std), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + x), halves);
    }
    down_half_from(x, upper, lower, weight, channel, out, count);
}

// The zero point is added after rounding, with saturation, and packing saturates: that is the clamp.
EDGEKD_TARGET_AVX2 void down_quantized(const int32_t* upper, const int32_t* lower, int32_t weight,
                                       const Channel& channel, void* values, int64_t count) {
    const __m256 factor = _mm256_set1_ps(channel.factor), offset = _mm256_set1_ps(channel.offset);
    const __m256i weights = _mm256_set1_epi32(weight), zero_point = _mm256_set1_epi16(int16_t(channel.to.zero_point));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const bool is_signed = channel.to.lowest < 0;
    auto* out = static_cast<uint8_t*>(values);
    int64_t x = 0;
    for (const int64_t end = channel.straight ? count - 32 : -1; x <= end; x += 32) {
        __m256i steps[4];
        for (int k = 0; k < 4; ++k) {
            const __m256 level = eight_levels(upper + x + 8 * k, lower + x + 8 * k, weights);
            steps[k] = _mm256_cvtps_epi32(_mm256_add_ps(_mm256_mul_ps(level, factor), offset));
        }
        const __m256i first = _mm256_adds_epi16(_mm256_packs_epi32(steps[0], steps[1]), zero_point);
        const __m256i second = _mm256_adds_epi16(_mm256_packs_epi32(steps[2], steps[3]), zero_point);
        const __m256i bytes = is_signed ? _mm256_packs_epi16(first, second) : _mm256_packus_epi16(first, second);
        store(out + x, _mm256_permutevar8x32_epi32(bytes, order));
    }
    down_quantized_from(x, upper, lower, weight, channel, out, count);
}

EDGEKD_TARGET_AVX512 void down_float_512(const int32_t* upper, const int32_t* lower, int32_t weight,
                                         const Channel& channel, void* values, int64_t count) {
    down_float_from(0, upper, lower, weight, channel, static_cast<float*>(values), count);
}

// Where each byte of 48, pixels of three values, comes from: out of 16 bytes of its own plane; 0x80: of another plane.
template <int kBytes>
struct Places {
    alignas(16) uint8_t of[3][3][16] = {};

    constexpr Places() {
        for (int i = 0; i < 48; ++i) {
            const int pixel = i / kBytes / 3, plane = i / kBytes % 3;
            for (int c = 0; c < 3; ++c) of[i / 16][c][i % 16] = 0x80;
            of[i / 16][plane][i % 16] = uint8_t(pixel * kBytes + i % kBytes);
        }
    }
};

template <int kBytes>
EDGEKD_TARGET_AVX2 void interleave_of(const uint8_t* planes, int64_t pitch, uint8_t* pixels, int64_t count) {
    static constexpr Places<kBytes> places;
    __m256i place[3][3];
    for (int i = 0; i < 9; ++i) {
        const auto* at = reinterpret_cast<const __m128i*>(places.of[i / 3][i % 3]);
        place[i / 3][i % 3] = _mm256_broadcastsi128_si256(_mm_load_si128(at));
    }
    int64_t at = 0;
    for (; at + 32 <= count * kBytes; at += 32) {
        const __m256i a = load(planes + at), b = load(planes + pitch + at), c = load(planes + 2 * pitch + at);
        for (int k = 0; k < 3; ++k) {
            const __m256i of_a = _mm256_shuffle_epi8(a, place[k][0]), of_b = _mm256_shuffle_epi8(b, place[k][1]);
            const __m256i of_c = _mm256_shuffle_epi8(c, place[k][2]);
            const __m256i abc = _mm256_or_si256(_mm256_or_si256(of_a, of_b), of_c);
            auto* to = reinterpret_cast<__m128i*>(pixels + 3 * at) + k;
            _mm_storeu_si128(to, _mm256_castsi256_si128(abc));
            _mm_storeu_si128(to + 3, _mm256_extracti128_si256(abc, 1));
        }
    }
    interleave_from<kBytes>(at / kBytes, planes, pitch, pixels, count);
}

EDGEKD_TARGET_AVX2 void interleave(const uint8_t* planes, int64_t pitch, int64_t bytes, uint8_t* pixels,
                                   int64_t count) {
    if (bytes == 1) interleave_of<1>(planes, pitch, pixels, count);
    if (bytes == 2) interleave_of<2>(planes, pitch, pixels, count);
    if (bytes == 4) interleave_of<4>(planes, pitch, pixels, count);
}

// Eight pixels of 32-bit sums as bytes R, G, B, 0: packing with saturation is the clamp.
EDGEKD_TARGET_AVX2 inline __m256i pixels_of(__m256i luma, __m256i red, __m256i green, __m256i blue) {
    red = _mm256_srai_epi32(_mm256_add_epi32(luma, red), kColourBits);
    green = _mm256_srai_epi32(_mm256_add_epi32(luma, green), kColourBits);
    blue = _mm256_srai_epi32(_mm256_add_epi32(luma, blue), kColourBits);
    const __m256i planes = _mm256_packus_epi16(_mm256_packs_epi32(red, green), _mm256_packs_epi32(blue, blue));
    const char z = char(0x80);
    const __m128i order = _mm_setr_epi8(0, 4, 8, z, 1, 5, 9, z, 2, 6, 10, z, 3, 7, 11, z);
    return _mm256_shuffle_epi8(planes, _mm256_broadcastsi128_si256(order));
}

EDGEKD_TARGET_AVX2 inline __m256i times(__m256i value, int32_t factor) {
    return _mm256_mullo_epi32(value, _mm256_set1_epi32(factor));
}

EDGEKD_TARGET_AVX2 inline __m256i brightness_of(__m256i y) {
    return times(_mm256_max_epi32(_mm256_sub_epi32(y, _mm256_set1_epi32(16)), _mm256_setzero_si256()), kBrightness);
}

// Eight pairs of pixels; every argument holds one value, 0..255, of each pair. See `tint` for the arithmetic.
EDGEKD_TARGET_AVX2 inline void store_pairs(__m256i left, __m256i right, __m256i u, __m256i v, uint8_t* pixels) {
    const __m256i middle = _mm256_set1_epi32(128), half = _mm256_set1_epi32(kHalf);
    u = _mm256_sub_epi32(u, middle);
    v = _mm256_sub_epi32(v, middle);
    const __m256i red = _mm256_add_epi32(times(v, kRedOfV), half);
    const __m256i green = _mm256_add_epi32(_mm256_add_epi32(times(u, kGreenOfU), times(v, kGreenOfV)), half);
    const __m256i blue = _mm256_add_epi32(times(u, kBlueOfU), half);
    const __m256i lefts = pixels_of(brightness_of(left), red, green, blue);
    const __m256i rights = pixels_of(brightness_of(right), red, green, blue);
    const __m256i first = _mm256_unpacklo_epi32(lefts, rights), second = _mm256_unpackhi_epi32(lefts, rights);
    store(pixels, _mm256_permute2x128_si256(first, second, 0x20));
    store(pixels + 32, _mm256_permute2x128_si256(first, second, 0x31));
}

EDGEKD_TARGET_AVX2 inline __m256i byte_of(__m256i words, int byte) {
    return _mm256_and_si256(_mm256_srli_epi32(words, 8 * byte), _mm256_set1_epi32(255));
}

// Eight 16-bit words of 16 bytes, each spread to 32 bits.
EDGEKD_TARGET_AVX2 inline __m256i load_words(const uint8_t* from) {
    return _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}

EDGEKD_TARGET_AVX2 void from_nv12(const uint8_t* luma, const uint8_t* chroma, uint8_t* pixels, int64_t pairs) {
    int64_t i = 0;
    for (; i + 8 <= pairs; i += 8) {
        const __m256i y = load_words(luma + 2 * i), uv = load_words(chroma + 2 * i);
        store_pairs(byte_of(y, 0), byte_of(y, 1), byte_of(uv, 0), byte_of(uv, 1), pixels + 8 * i);
    }
    from_yuv_from<1>(i, luma, chroma, pixels, pairs);
}

EDGEKD_TARGET_AVX2 void from_yuyv(const uint8_t* luma, const uint8_t* chroma, uint8_t* pixels, int64_t pairs) {
    int64_t i = 0;
    for (; i + 8 <= pairs; i += 8) {
        const __m256i words = load(luma + 4 * i);
        store_pairs(byte_of(words, 0), byte_of(words, 2), byte_of(words, 1), byte_of(words, 3), pixels + 8 * i);
    }
    from_yuv_from<2>(i, luma, chroma, pixels, pairs);
}

}  // namespace

const Steps kAvx2Steps = {across<1>,      across<3>,  across<4>, down_float, down_half,
                          down_quantized, interleave, from_nv12, from_yuyv};
const Steps kAvx512Steps = {across<1>,      across<3>,  across<4>, down_float_512, down_half,
                            down_quantized, interleave, from_nv12, from_yuyv};

}  // namespace edgekd
#endif
