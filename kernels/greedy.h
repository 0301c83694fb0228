// Greedy suppression over a forest of boxes, and the one loop of it compiled for each set of instructions.
#pragma once

#include "ranking.h"
#include "rotated_forest.h"
#include "upright_forest.h"

namespace edgekd {

struct Overlap {
    float threshold;
    int32_t metric;  // enum edgekd_metric
};

inline bool sound(const Overlap& overlap) {
    return overlap.threshold >= 0 && overlap.threshold <= 1 &&
           (overlap.metric == EDGEKD_IOU || overlap.metric == EDGEKD_PROBIOU);
}

// nms.cc: suppress n items in the order of `before`; `boxes` is indexed by Scored::index. The kept ones move to the
// front of `items`; returns how many, at most `limit`.
int64_t greedy(const float* boxes, Scored* items, int64_t n, const Overlap& overlap, int64_t limit,
               UprightForest& forest, int32_t chosen);
int64_t greedy(const float* boxes, Scored* items, int64_t n, const Overlap& overlap, int64_t limit,
               RotatedForest& forest, int32_t chosen);

// One box after another: what is alive stays and marks what goes because of it.
template <typename Rule>
struct RotatedStep {
    RotatedForest& forest;
    Rule rule;
    bool alive(int64_t rank) const { return forest.alive(rank); }
    EDGEKD_INLINE void suppress(int64_t rank, int32_t label) const { forest.suppress(rank, label, rule); }
};

template <typename Step>
EDGEKD_INLINE int64_t keep_plain(Scored* items, int64_t n, int64_t limit, const Step& step) {
    int64_t kept = 0;
    for (int64_t rank = 0; rank < n && kept < limit; ++rank) {
        if (!step.alive(rank)) continue;
        step.suppress(rank, items[rank].label);
        items[kept++] = items[rank];
    }
    return kept;
}

#if EDGEKD_HAS_AVX
template <typename Step>
EDGEKD_TARGET_AVX2 int64_t keep_avx2(Scored* items, int64_t n, int64_t limit, const Step& step) {
    return keep_plain(items, n, limit, step);
}

template <typename Step>
EDGEKD_TARGET_AVX512 int64_t keep_avx512(Scored* items, int64_t n, int64_t limit, const Step& step) {
    return keep_plain(items, n, limit, step);
}
#endif

template <typename Step>
int64_t keep(Scored* items, int64_t n, int64_t limit, const Step& step, int32_t chosen) {
#if EDGEKD_HAS_AVX
    if (chosen == EDGEKD_AVX512) return keep_avx512(items, n, limit, step);
    if (chosen == EDGEKD_AVX2) return keep_avx2(items, n, limit, step);
#endif
    (void)chosen;
    return keep_plain(items, n, limit, step);
}

}  // namespace edgekd
