// Candidates on the host: almost every row is under the threshold, so the common work is one comparison per score, eight at
// a time; only a row with a score over it is looked at class by class.
#include "ranking.h"

#if EDGEKD_HAS_AVX
#include <immintrin.h>
#endif

namespace edgekd {
namespace {

// The best class of one row; returns whether it is over `conf`. The first of equal scores wins.
inline bool best_class(const float* row, int64_t classes, float conf, const uint8_t* allowed, Scored& best) {
    best.label = -1;
    best.score = conf;
    for (int64_t c = 0; c < classes; ++c) {
        if (row[c] > best.score && row[c] <= kLargestFloat && (!allowed || allowed[c])) {
            best.score = row[c];
            best.label = int32_t(c);
        }
    }
    return best.label >= 0;
}

// Rows [begin, end) one by one, appended at `picked`.
int64_t pick_rows(const float* scores, int64_t begin, int64_t end, int64_t classes, float conf, const uint8_t* allowed,
                  Scored* picked) {
    int64_t count = 0;
    for (int64_t row = begin; row < end; ++row) {
        if (best_class(scores + row * classes, classes, conf, allowed, picked[count])) picked[count++].index = row;
    }
    return count;
}

#if EDGEKD_HAS_AVX

EDGEKD_TARGET_AVX2 inline __m256 over(const float* scores, __m256 conf) {
    return _mm256_cmp_ps(_mm256_loadu_ps(scores), conf, _CMP_GT_OQ);
}

// Whether any of `count` scores is over; count >= 8, the last eight may be looked at twice.
EDGEKD_TARGET_AVX2 inline bool any_over(const float* scores, int64_t count, __m256 conf) {
    __m256 hits = over(scores + count - 8, conf);
    int64_t i = 0;
    for (; i + 32 <= count; i += 32) {
        const __m256 low = _mm256_or_ps(over(scores + i, conf), over(scores + i + 8, conf));
        const __m256 high = _mm256_or_ps(over(scores + i + 16, conf), over(scores + i + 24, conf));
        hits = _mm256_or_ps(hits, _mm256_or_ps(low, high));
    }
    for (; i + 8 <= count; i += 8) hits = _mm256_or_ps(hits, over(scores + i, conf));
    return _mm256_movemask_ps(hits) != 0;
}

// Rows go in groups of at least eight scores: with few classes several rows make one comparison.
EDGEKD_TARGET_AVX2 int64_t pick_avx2(const float* scores, int64_t n, int64_t classes, float conf,
                                     const uint8_t* allowed, Scored* picked) {
    const int64_t group = classes >= 8 ? 1 : 8;
    const __m256 threshold = _mm256_set1_ps(conf);
    int64_t count = 0, row = 0;
    for (; row + group <= n; row += group) {
        if (any_over(scores + row * classes, group * classes, threshold))
            count += pick_rows(scores, row, row + group, classes, conf, allowed, picked + count);
    }
    return count + pick_rows(scores, row, n, classes, conf, allowed, picked + count);
}

#endif

}  // namespace

int64_t pick(const float* scores, int64_t n, int64_t classes, float conf, const uint8_t* allowed, Scored* picked,
             bool avx2) {
#if EDGEKD_HAS_AVX
    if (avx2 && classes > 0) return pick_avx2(scores, n, classes, conf, allowed, picked);
#else
    (void)avx2;
#endif
    return pick_rows(scores, 0, n, classes, conf, allowed, picked);
}

}  // namespace edgekd

extern "C" int64_t edgekd_candidates_workspace(int64_t n) {
    if (n < 0 || n > edgekd::kMaxCount) return EDGEKD_BAD_ARGUMENT;
    edgekd::Workspace workspace;
    workspace.take<edgekd::Scored>(n);
    return workspace.needed();
}

extern "C" int32_t edgekd_candidates(const float* scores, int64_t n, int64_t classes, float conf, int64_t limit,
                                     const uint8_t* allowed, int64_t* rows, int64_t* labels, float* best, int64_t* count,
                                     int32_t instructions, void* workspace_memory, int64_t workspace_bytes) {
    if (!scores || !rows || !labels || !best || !count || limit < 1) return EDGEKD_BAD_ARGUMENT;
    if (n < 0 || n > edgekd::kMaxCount || classes < 0 || classes > INT32_MAX) return EDGEKD_BAD_ARGUMENT;
    const int32_t chosen = edgekd::resolve(instructions);
    if (chosen < 0) return chosen;
    edgekd::Workspace workspace(workspace_memory, workspace_bytes);
    auto* picked = workspace.take<edgekd::Scored>(n);
    if (!workspace.fits()) return EDGEKD_SMALL_WORKSPACE;
    const int64_t found = edgekd::pick(scores, n, classes, conf, allowed, picked, edgekd::runs_avx2(chosen));
    *count = edgekd::rank_best(picked, found, limit);
    for (int64_t i = 0; i < *count; ++i) {
        rows[i] = picked[i].index;
        labels[i] = picked[i].label;
        best[i] = picked[i].score;
    }
    return EDGEKD_OK;
}
