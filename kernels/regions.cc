// Anomaly regions on the host, a row of the image at a time: the two rows of the map around it are blurred and
// stretched once each, then blended and compared while they are in the first cache, and the mask's runs are joined.
#include "regions.h"

#include <algorithm>
#include <cstring>

#include "components.h"
#include "geometry.h"
#include "host.h"

#if EDGEKD_HAS_AVX
#include <immintrin.h>
#endif

namespace edgekd {
namespace {

constexpr int64_t kMaxSide = int64_t(1) << 24;
constexpr int64_t kMaxPixels = int64_t(1) << 32;  // so that the number of a component fits Part::parent
constexpr int64_t kVector = 8;                    // columns stretched at once, and floats that may be read behind a row

struct Job {
    const float* map;
    int64_t height, width;
    const float* weights;
    int64_t radius;
    float* out;
    uint8_t* mask;
    int64_t out_height, out_width;
    float threshold;
};

// Per column of the image: its first tap in a row of the map, and the share of the second.
struct Columns {
    int32_t* firsts;
    float* shares;
    int64_t count;
    bool denser;  // than those of the map: then neighbours are at most one tap apart
};

struct Scratch {
    const float** taps;  // 2 * radius + 1 rows, or the same row from 2 * radius + 1 columns on
    float* padded;       // a row blurred down, and its reflections on both sides
    float* blurred;      // a row blurred both ways, and zeros behind it: read, with no weight
    Columns columns;
    float* rows[2];  // blurred and stretched

    Scratch(Workspace& workspace, int64_t width, int64_t radius, int64_t out_width) {
        taps = workspace.take<const float*>(2 * radius + 1);
        padded = workspace.take<float>(width + 2 * radius);
        blurred = workspace.take<float>(width + kVector);
        columns = {workspace.take<int32_t>(out_width), workspace.take<float>(out_width), out_width, width <= out_width};
        rows[0] = workspace.take<float>(out_width);
        rows[1] = workspace.take<float>(out_width);
    }
};

// Add `kPairs` pairs of taps to the sums, the pair `k` away from the middle first.
template <int kPairs>
EDGEKD_INLINE void add_pairs(const float* const* middle, const float* weights, int64_t k, float* EDGEKD_RESTRICT sums,
                             int64_t width) {
    const float *before[kPairs], *after[kPairs];
    for (int i = 0; i < kPairs; ++i) {
        before[i] = middle[i - k];
        after[i] = middle[k - i];
    }
    for (int64_t x = 0; x < width; ++x) {
        float sum = sums[x];
        for (int i = 0; i < kPairs; ++i) sum += weights[k - i] * (before[i][x] + after[i][x]);
        sums[x] = sum;
    }
}

// sums[x] = the weighted sum of middle[-radius..radius][x]; `sums` is none of these rows.
EDGEKD_INLINE void weigh(const float* const* middle, const float* weights, int64_t radius, float* EDGEKD_RESTRICT sums,
                         int64_t width) {
    std::fill(sums, sums + width, 0.0f);
    int64_t k = radius;
    for (; k >= 4; k -= 4) add_pairs<4>(middle, weights, k, sums, width);  // a sum is loaded and stored once for four
    for (; k >= 1; --k) add_pairs<1>(middle, weights, k, sums, width);
    for (int64_t x = 0; x < width; ++x) sums[x] += weights[0] * middle[0][x];
}

EDGEKD_INLINE void across(const float* row, const Columns& columns, float* out, int64_t begin) {
    for (int64_t x = begin; x < columns.count; ++x) {
        const float* first = row + columns.firsts[x];
        out[x] = between(first[0], first[1], columns.shares[x]);
    }
}

EDGEKD_INLINE void down(const float* upper, const float* lower, float share, float threshold,
                        float* EDGEKD_RESTRICT out, uint8_t* EDGEKD_RESTRICT mask, int64_t width) {
    for (int64_t x = 0; x < width; ++x) {
        const float value = between(upper[x], lower[x], share);
        out[x] = value;
        mask[x] = value > threshold;
    }
}

void weigh_plain(const float* const* middle, const float* weights, int64_t radius, float* sums, int64_t width) {
    weigh(middle, weights, radius, sums, width);
}

void across_plain(const float* row, const Columns& columns, float* out) { across(row, columns, out, 0); }

void down_plain(const float* upper, const float* lower, float share, float threshold, float* out, uint8_t* mask,
                int64_t width) {
    down(upper, lower, share, threshold, out, mask, width);
}

#if EDGEKD_HAS_AVX

EDGEKD_TARGET_AVX2 void weigh_avx2(const float* const* middle, const float* weights, int64_t radius, float* sums,
                                   int64_t width) {
    weigh(middle, weights, radius, sums, width);
}

// Where columns are denser than taps, the first taps of eight are among eight neighbours: one load and a permutation.
EDGEKD_TARGET_AVX2 void across_avx2(const float* row, const Columns& columns, float* out) {
    int64_t x = 0;
    for (; columns.denser && x + kVector <= columns.count; x += kVector) {
        const __m256i firsts = _mm256_load_si256(reinterpret_cast<const __m256i*>(columns.firsts + x));
        const __m256i places = _mm256_sub_epi32(firsts, _mm256_set1_epi32(columns.firsts[x]));
        const float* begin = row + columns.firsts[x];
        const __m256 first = _mm256_permutevar8x32_ps(_mm256_loadu_ps(begin), places);
        const __m256 second = _mm256_permutevar8x32_ps(_mm256_loadu_ps(begin + 1), places);
        const __m256 step = _mm256_mul_ps(_mm256_sub_ps(second, first), _mm256_load_ps(columns.shares + x));
        _mm256_store_ps(out + x, _mm256_add_ps(first, step));
    }
    across(row, columns, out, x);
}

EDGEKD_TARGET_AVX2 void down_avx2(const float* upper, const float* lower, float share, float threshold, float* out,
                                  uint8_t* mask, int64_t width) {
    down(upper, lower, share, threshold, out, mask, width);
}

#endif

// The three loops, for one set of instructions.
struct Steps {
    decltype(&weigh_plain) weigh;
    decltype(&across_plain) across;
    decltype(&down_plain) down;
};

Steps steps_for(int32_t chosen) {
#if EDGEKD_HAS_AVX
    if (runs_avx2(chosen)) return {weigh_avx2, across_avx2, down_avx2};
#else
    (void)chosen;
#endif
    return {weigh_plain, across_plain, down_plain};
}

void plan(const Job& job, Scratch& scratch) {
    for (int64_t x = 0; x < job.out_width; ++x) {
        const Tap t = tap(x, job.width, job.out_width);
        scratch.columns.firsts[x] = int32_t(t.first);
        scratch.columns.shares[x] = share(t.weight);
    }
    std::fill(scratch.blurred + job.width, scratch.blurred + job.width + kVector, 0.0f);
}

void blur(const Job& job, const Scratch& scratch, int64_t y, const Steps& steps) {
    const int64_t radius = job.radius, width = job.width;
    const float** middle = scratch.taps + radius;
    float* row = scratch.padded + radius;
    for (int64_t k = -radius; k <= radius; ++k) middle[k] = job.map + reflect(y + k, job.height) * width;
    steps.weigh(middle, job.weights, radius, row, width);
    for (int64_t k = 1; k <= radius; ++k) {
        row[-k] = row[reflect(-k, width)];
        row[width - 1 + k] = row[reflect(width - 1 + k, width)];
    }
    for (int64_t k = -radius; k <= radius; ++k) middle[k] = row + k;
    steps.weigh(middle, job.weights, radius, scratch.blurred, width);
}

void run(const Job& job, Scratch& scratch, Components& components, const Steps& steps) {
    plan(job, scratch);
    int64_t held[2] = {-1, -1};
    for (int64_t y = 0; y < job.out_height; ++y) {
        const Tap t = tap(y, job.height, job.out_height);
        if (held[1] == t.first) {
            std::swap(held[0], held[1]);
            std::swap(scratch.rows[0], scratch.rows[1]);
        }
        const int64_t wanted[2] = {t.first, std::min(t.first + 1, job.height - 1)};
        for (int i = 0; i < 2; ++i) {
            if (held[i] == wanted[i]) continue;
            blur(job, scratch, held[i] = wanted[i], steps);
            steps.across(scratch.blurred, scratch.columns, scratch.rows[i]);
        }
        float* out = job.out + y * job.out_width;
        uint8_t* mask = job.mask + y * job.out_width;
        steps.down(scratch.rows[0], scratch.rows[1], share(t.weight), job.threshold, out, mask, job.out_width);
        components.add(mask, out);
    }
}

bool side(int64_t value) { return value >= 1 && value <= kMaxSide; }

bool image(int64_t height, int64_t width) { return side(height) && side(width) && height * width <= kMaxPixels; }

bool reach(int64_t radius) { return radius >= 0 && radius <= kMaxRadius; }

bool sound(const Job& job) {
    if (!job.map || !job.weights || !job.out || !job.mask || !reach(job.radius)) return false;
    if (!side(job.height) || !side(job.width) || !image(job.out_height, job.out_width)) return false;
    return std::all_of(job.weights, job.weights + job.radius + 1, finite) && job.threshold == job.threshold;
}

}  // namespace
}  // namespace edgekd

extern "C" int64_t edgekd_regions_workspace(int64_t width, int64_t radius, int64_t out_height, int64_t out_width) {
    if (!edgekd::side(width) || !edgekd::reach(radius) || !edgekd::image(out_height, out_width))
        return EDGEKD_BAD_ARGUMENT;
    edgekd::Workspace workspace;
    edgekd::Scratch scratch(workspace, width, radius, out_width);
    edgekd::Components components(workspace, out_height, out_width);
    return workspace.needed();
}

extern "C" int32_t edgekd_regions(const float* map, int64_t height, int64_t width, const float* weights, int64_t radius,
                                  float* out_map, uint8_t* out_mask, int64_t out_height, int64_t out_width,
                                  float threshold, int64_t min_area, int64_t limit, float* boxes, int64_t* areas,
                                  float* peaks, int64_t* count, int32_t instructions, void* workspace_memory,
                                  int64_t workspace_bytes) {
    const edgekd::Job job{map, height, width, weights, radius, out_map, out_mask, out_height, out_width, threshold};
    if (!edgekd::sound(job) || !boxes || !areas || !peaks || !count || min_area < 0 || limit < 1)
        return EDGEKD_BAD_ARGUMENT;
    const int32_t chosen = edgekd::resolve(instructions);
    if (chosen < 0) return chosen;
    edgekd::Workspace workspace(workspace_memory, workspace_bytes);
    edgekd::Scratch scratch(workspace, width, radius, out_width);
    edgekd::Components components(workspace, out_height, out_width);
    if (!workspace.fits()) return EDGEKD_SMALL_WORKSPACE;
    edgekd::run(job, scratch, components, edgekd::steps_for(chosen));
    components.clear_small(min_area, out_mask);
    *count = components.rank(min_area, limit);
    for (int64_t i = 0; i < *count; ++i) {
        const edgekd::Part& part = components[i];
        const int32_t box[4] = {part.left, part.top, part.right, part.bottom};
        std::copy(box, box + 4, boxes + 4 * i);
        areas[i] = part.area;
        peaks[i] = part.peak;
    }
    return EDGEKD_OK;
}
