// Candidates on the host: almost every row is under the threshold, so the common work is one comparison per score,
// eight at a time; only a row with a score over it is looked at class by class.
#include "ranking.h"

#if EDGEKD_HAS_AVX
#include <immintrin.h>
#endif

namespace edgekd {
namespace {

// Whether a score is a candidate: over the threshold, finite, of a class that competes.
inline bool passes(const Filter& f, float score, int64_t c, float above) {
    return score > above && score <= kLargestFloat && (!f.allowed || f.allowed[c]);
}

// The best class of one row; returns how many items were written, 0 or 1. The first of equal scores wins.
inline int64_t best_class(const Filter& f, int64_t row, Scored* picked) {
    const float* scores = f.scores + row * f.classes;
    Scored best{f.conf, -1, row};
    for (int64_t c = 0; c < f.classes; ++c) {
        if (passes(f, scores[c], c, best.score)) best.score = scores[c], best.label = int32_t(c);
    }
    if (best.label < 0) return 0;
    *picked = best;
    return 1;
}

inline int64_t each_class(const Filter& f, int64_t row, Scored* picked) {
    const float* scores = f.scores + row * f.classes;
    int64_t count = 0;
    for (int64_t c = 0; c < f.classes; ++c) {
        if (passes(f, scores[c], c, f.conf)) picked[count++] = {scores[c], int32_t(c), row};
    }
    return count;
}

// Rows [begin, end) one by one, appended to `count` items at `picked`; returns the new count.
int64_t pick_rows(const Filter& f, int64_t begin, int64_t end, Scored* picked, int64_t count) {
    for (int64_t row = begin; row < end; ++row) {
        count += f.every_class ? each_class(f, row, picked + count) : best_class(f, row, picked + count);
        if (f.every_class && count / 2 >= f.limit) {
            std::nth_element(picked, picked + f.limit, picked + count, before);
            count = f.limit;
        }
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
EDGEKD_TARGET_AVX2 int64_t pick_avx2(const Filter& f, Scored* picked) {
    const int64_t group = f.classes >= 8 ? 1 : 8;
    const __m256 threshold = _mm256_set1_ps(f.conf);
    int64_t count = 0, row = 0;
    for (; row + group <= f.n; row += group) {
        if (any_over(f.scores + row * f.classes, group * f.classes, threshold))
            count = pick_rows(f, row, row + group, picked, count);
    }
    return pick_rows(f, row, f.n, picked, count);
}

#endif

}  // namespace

int64_t pick(const Filter& filter, Scored* picked, bool avx2) {
    int64_t count = 0;
#if EDGEKD_HAS_AVX
    count = avx2 && filter.classes > 0 ? pick_avx2(filter, picked) : pick_rows(filter, 0, filter.n, picked, 0);
#else
    (void)avx2;
    count = pick_rows(filter, 0, filter.n, picked, 0);
#endif
    return rank_best(picked, count, filter.limit);
}

}  // namespace edgekd

extern "C" int64_t edgekd_candidates_workspace(int64_t n, int64_t classes, int32_t every_class, int64_t limit) {
    if (n < 0 || n > edgekd::kMaxCount || classes < 0 || classes > INT32_MAX || limit < 1) return EDGEKD_BAD_ARGUMENT;
    edgekd::Workspace workspace;
    workspace.take<edgekd::Scored>(edgekd::Filter::room(n, classes, every_class != 0, limit));
    return workspace.needed();
}

extern "C" int32_t edgekd_candidates(const float* scores, int64_t n, int64_t classes, float conf, int32_t every_class,
                                     int64_t limit, const uint8_t* allowed, int64_t* rows, int64_t* labels, float* best,
                                     int64_t* count, int32_t instructions, void* workspace_memory,
                                     int64_t workspace_bytes) {
    const edgekd::Filter filter{scores, n, classes, conf, allowed, every_class != 0, limit};
    if (!filter.sound() || !rows || !labels || !best || !count) return EDGEKD_BAD_ARGUMENT;
    const int32_t chosen = edgekd::resolve(instructions);
    if (chosen < 0) return chosen;
    edgekd::Workspace workspace(workspace_memory, workspace_bytes);
    auto* picked = workspace.take<edgekd::Scored>(edgekd::Filter::room(n, classes, filter.every_class, limit));
    if (!workspace.fits()) return EDGEKD_SMALL_WORKSPACE;
    *count = edgekd::pick(filter, picked, edgekd::runs_avx2(chosen));
    for (int64_t i = 0; i < *count; ++i) {
        rows[i] = picked[i].index;
        labels[i] = picked[i].label;
        best[i] = picked[i].score;
    }
    return EDGEKD_OK;
}
