// Letterbox on the host. A row of the source is resampled across once, into 32-bit sums, planar; two such rows are then
// blended down, rounded, normalised and written. Sums are exact, so the order of the two steps changes no bit.
#include <algorithm>
#include <cstring>

#include "host.h"
#include "resample.h"

#if EDGEKD_HAS_AVX
#include <immintrin.h>
#endif

namespace edgekd {
namespace {

constexpr int64_t kMaxSide = int64_t(1) << 24;

struct Job {
    const uint8_t* image;
    int64_t height, width, channels, row_stride;
    float* out;
    int64_t out_height, out_width, new_height, new_width, left, top;
    bool swap;
    const float* mean;
    const float* std;
    float pad;

    int64_t planes() const { return channels == 1 ? 1 : 3; }
};

// Per column: byte offset of its first pixel and the two weights as one 32-bit pair (low: first tap, high: second tap).
struct Scratch {
    int32_t* offsets;
    uint32_t* weights;
    int32_t* rows[2];
    int64_t pitch;

    Scratch(Workspace& workspace, int64_t new_width) {
        pitch = (new_width + 15) & ~int64_t(15);
        offsets = workspace.take<int32_t>(pitch);
        weights = workspace.take<uint32_t>(pitch);
        rows[0] = workspace.take<int32_t>(3 * pitch);
        rows[1] = workspace.take<int32_t>(3 * pitch);
    }
};

void plan_columns(const Job& job, Scratch& scratch) {
    for (int64_t x = 0; x < job.new_width; ++x) {
        const Tap t = tap(x, job.width, job.new_width);
        scratch.offsets[x] = int32_t(t.first * job.channels);
        scratch.weights[x] = uint32_t(t.weight) << 16 | uint32_t(kOne - t.weight);
    }
}

void across_plain(const Job& job, const Scratch& scratch, const uint8_t* source, int32_t* sums, int64_t begin) {
    const int64_t planes = job.planes(), last = (job.width - 1) * job.channels;
    for (int64_t x = begin; x < job.new_width; ++x) {
        const uint8_t* first = source + scratch.offsets[x];
        const uint8_t* second = scratch.offsets[x] == last ? first : first + job.channels;
        const int32_t weight = int32_t(scratch.weights[x] >> 16);
        for (int64_t c = 0; c < planes; ++c) sums[c * scratch.pitch + x] = blend_across(first[c], second[c], weight);
    }
}

EDGEKD_INLINE void down(const int32_t* upper, const int32_t* lower, int32_t weight, float mean, float std, float* out,
                        int64_t count) {
    for (int64_t x = 0; x < count; ++x) out[x] = normalise(blend_down(upper[x], lower[x], weight), mean, std);
}

void down_plain(const int32_t* upper, const int32_t* lower, int32_t weight, float mean, float std, float* out,
                int64_t count) {
    down(upper, lower, weight, mean, std, out, count);
}

#if EDGEKD_HAS_AVX

EDGEKD_TARGET_AVX2 void down_avx2(const int32_t* upper, const int32_t* lower, int32_t weight, float mean, float std,
                                  float* out, int64_t count) {
    down(upper, lower, weight, mean, std, out, count);
}

EDGEKD_TARGET_AVX2 inline __m128i load_two(const uint8_t* source, int32_t a, int32_t b) {
    const __m128i low = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(source + a));
    return _mm_castps_si128(_mm_loadh_pi(_mm_castsi128_ps(low), reinterpret_cast<const __m64*>(source + b)));
}

// Eight columns a turn: 8 bytes hold both pixels of a column; bytes are spread to 16-bit pairs (first, second) so that one
// multiply-add gives eight sums of one channel. Returns the first column that is left, because 8 bytes may not be read.
template <int kChannels>
EDGEKD_TARGET_AVX2 int64_t across_avx2(const Job& job, const Scratch& scratch, const uint8_t* source, int32_t* sums) {
    const char z = char(0x80), n = kChannels;
    const __m256i spread01 = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, z, n, z, 8, z, char(8 + n), z, 1, z, char(1 + n), z, 9, z, char(9 + n), z));
    const __m256i spread2 = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(2, z, char(2 + n), z, 10, z, char(10 + n), z, z, z, z, z, z, z, z, z));
    const int64_t readable = job.width * kChannels - 8;
    int64_t x = 0;
    for (; x + 8 <= job.new_width && scratch.offsets[x + 7] <= readable; x += 8) {
        const int32_t* at = scratch.offsets + x;
        const __m256i even = _mm256_inserti128_si256(_mm256_castsi128_si256(load_two(source, at[0], at[1])),
                                                     load_two(source, at[4], at[5]), 1);
        const __m256i odd = _mm256_inserti128_si256(_mm256_castsi128_si256(load_two(source, at[2], at[3])),
                                                    load_two(source, at[6], at[7]), 1);
        const __m256i weights = _mm256_load_si256(reinterpret_cast<const __m256i*>(scratch.weights + x));
        const __m256i even01 = _mm256_shuffle_epi8(even, spread01), odd01 = _mm256_shuffle_epi8(odd, spread01);
        const __m256i even2 = _mm256_shuffle_epi8(even, spread2), odd2 = _mm256_shuffle_epi8(odd, spread2);
        const __m256i pairs[3] = {_mm256_unpacklo_epi64(even01, odd01), _mm256_unpackhi_epi64(even01, odd01),
                                  _mm256_unpacklo_epi64(even2, odd2)};
        for (int c = 0; c < 3; ++c)
            _mm256_store_si256(reinterpret_cast<__m256i*>(sums + c * scratch.pitch + x),
                               _mm256_madd_epi16(pairs[c], weights));
    }
    return x;
}

EDGEKD_TARGET_AVX2 inline int32_t load_pair(const uint8_t* source) {
    uint16_t pair;
    std::memcpy(&pair, source, sizeof pair);
    return pair;
}

template <>
EDGEKD_TARGET_AVX2 int64_t across_avx2<1>(const Job& job, const Scratch& scratch, const uint8_t* source, int32_t* sums) {
    const int64_t readable = job.width - 2;
    int64_t x = 0;
    for (; x + 8 <= job.new_width && scratch.offsets[x + 7] <= readable; x += 8) {
        const int32_t* at = scratch.offsets + x;
        __m128i bytes = _mm_cvtsi32_si128(load_pair(source + at[0]));
        bytes = _mm_insert_epi16(bytes, load_pair(source + at[1]), 1);
        bytes = _mm_insert_epi16(bytes, load_pair(source + at[2]), 2);
        bytes = _mm_insert_epi16(bytes, load_pair(source + at[3]), 3);
        bytes = _mm_insert_epi16(bytes, load_pair(source + at[4]), 4);
        bytes = _mm_insert_epi16(bytes, load_pair(source + at[5]), 5);
        bytes = _mm_insert_epi16(bytes, load_pair(source + at[6]), 6);
        bytes = _mm_insert_epi16(bytes, load_pair(source + at[7]), 7);
        const __m256i weights = _mm256_load_si256(reinterpret_cast<const __m256i*>(scratch.weights + x));
        const __m256i total = _mm256_madd_epi16(_mm256_cvtepu8_epi16(bytes), weights);
        _mm256_store_si256(reinterpret_cast<__m256i*>(sums + x), total);
    }
    return x;
}

#endif

void across(const Job& job, const Scratch& scratch, int64_t row, int32_t* sums, bool avx2) {
    const uint8_t* source = job.image + row * job.row_stride;
    int64_t begin = 0;
#if EDGEKD_HAS_AVX
    if (avx2 && job.channels == 3) begin = across_avx2<3>(job, scratch, source, sums);
    if (avx2 && job.channels == 4) begin = across_avx2<4>(job, scratch, source, sums);
    if (avx2 && job.channels == 1) begin = across_avx2<1>(job, scratch, source, sums);
#else
    (void)avx2;
#endif
    across_plain(job, scratch, source, sums, begin);
}

// Write rows [begin, end) of the border, or the border left and right of the image in them.
void pad_rows(const Job& job, int64_t begin, int64_t end, int64_t inner_begin, int64_t inner_end) {
    for (int64_t c = 0; c < 3; ++c) {
        const float value = (job.pad - job.mean[c]) / job.std[c];
        for (int64_t y = begin; y < end; ++y) {
            float* row = job.out + (c * job.out_height + y) * job.out_width;
            std::fill(row, row + inner_begin, value);
            std::fill(row + inner_end, row + job.out_width, value);
        }
    }
}

void run(const Job& job, Scratch& scratch, bool avx2) {
    plan_columns(job, scratch);
    int64_t held[2] = {-1, -1};
    for (int64_t y = 0; y < job.new_height; ++y) {
        const Tap t = tap(y, job.height, job.new_height);
        if (held[1] == t.first) {
            std::swap(held[0], held[1]);
            std::swap(scratch.rows[0], scratch.rows[1]);
        }
        const int64_t wanted[2] = {t.first, t.weight == 0 ? t.first : t.first + 1};
        for (int i = 0; i < (t.weight == 0 ? 1 : 2); ++i) {
            if (held[i] != wanted[i]) across(job, scratch, held[i] = wanted[i], scratch.rows[i], avx2);
        }
        for (int64_t c = 0; c < 3; ++c) {
            const int64_t plane = job.channels == 1 ? 0 : job.swap ? 2 - c : c;
            const int32_t* upper = scratch.rows[0] + plane * scratch.pitch;
            const int32_t* lower = t.weight == 0 ? upper : scratch.rows[1] + plane * scratch.pitch;
            float* out = job.out + (c * job.out_height + job.top + y) * job.out_width + job.left;
#if EDGEKD_HAS_AVX
            if (avx2) {
                down_avx2(upper, lower, t.weight, job.mean[c], job.std[c], out, job.new_width);
                continue;
            }
#endif
            down_plain(upper, lower, t.weight, job.mean[c], job.std[c], out, job.new_width);
        }
    }
    pad_rows(job, 0, job.top, job.out_width, job.out_width);
    pad_rows(job, job.top, job.top + job.new_height, job.left, job.left + job.new_width);
    pad_rows(job, job.top + job.new_height, job.out_height, job.out_width, job.out_width);
}

bool side(int64_t value) { return value >= 1 && value <= kMaxSide; }

bool sound(const Job& job) {
    if (!job.image || !job.out || !job.mean || !job.std) return false;
    if (job.channels != 1 && job.channels != 3 && job.channels != 4) return false;
    if (!side(job.height) || !side(job.width) || !side(job.out_height) || !side(job.out_width)) return false;
    if (!side(job.new_height) || !side(job.new_width) || job.left < 0 || job.top < 0) return false;
    if (job.left + job.new_width > job.out_width || job.top + job.new_height > job.out_height) return false;
    return job.std[0] > 0 && job.std[1] > 0 && job.std[2] > 0 && job.pad >= 0 && job.pad <= 255;
}

}  // namespace
}  // namespace edgekd

extern "C" int64_t edgekd_letterbox_workspace(int64_t new_width) {
    if (!edgekd::side(new_width)) return EDGEKD_BAD_ARGUMENT;
    edgekd::Workspace workspace;
    edgekd::Scratch scratch(workspace, new_width);
    return workspace.needed();
}

extern "C" int32_t edgekd_letterbox(const uint8_t* image, int64_t height, int64_t width, int64_t channels,
                                    int64_t row_stride, float* out, int64_t out_height, int64_t out_width,
                                    int64_t new_height, int64_t new_width, int64_t left, int64_t top, int32_t swap,
                                    const float* mean, const float* std, int32_t pad, int32_t instructions,
                                    void* workspace_memory, int64_t workspace_bytes) {
    const edgekd::Job job{image,      height,    width, channels, row_stride, out,  out_height, out_width,
                          new_height, new_width, left,  top,      swap != 0,  mean, std,        float(pad)};
    if (!edgekd::sound(job)) return EDGEKD_BAD_ARGUMENT;
    const int32_t chosen = edgekd::resolve(instructions);
    if (chosen < 0) return chosen;
    edgekd::Workspace workspace(workspace_memory, workspace_bytes);
    edgekd::Scratch scratch(workspace, new_width);
    if (!workspace.fits()) return EDGEKD_SMALL_WORKSPACE;
    edgekd::run(job, scratch, edgekd::runs_avx2(chosen));
    return EDGEKD_OK;
}
