// What suppression passes from step to step: an index with its score and label, and the one order of all steps.
#pragma once

#include <algorithm>
#include <cstdint>

#include "geometry.h"
#include "host.h"

namespace edgekd {

struct Scored {
    float score;  // finite
    int32_t label;
    int64_t index;
};

// Best score first, ties by index. A total order: any sort gives the one result.
inline bool before(const Scored& a, const Scored& b) {
    return a.score > b.score || (a.score == b.score && a.index < b.index);
}

// Move the best `limit` of `n` to the front, sorted; return how many there are.
inline int64_t rank_best(Scored* items, int64_t n, int64_t limit) {
    if (n > limit) {
        std::nth_element(items, items + limit, items + n, before);
        n = limit;
    }
    std::sort(items, items + n, before);
    return n;
}

// candidates.cc: write every row of scores (n, classes) whose best class is over `conf`, by row; return how many.
int64_t pick(const float* scores, int64_t n, int64_t classes, float conf, const uint8_t* allowed, Scored* picked,
             bool avx2);

}  // namespace edgekd
