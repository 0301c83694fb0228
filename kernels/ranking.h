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

// Take in the n boxes whose score is finite, with their labels (null: all 0); -1 if a label is not in int32's range.
inline int64_t gather_items(const float* scores, const int64_t* labels, int64_t n, Scored* items) {
    int64_t usable = 0;
    for (int64_t i = 0; i < n; ++i) {
        const int64_t label = labels ? labels[i] : 0;
        if (label < INT32_MIN || label > INT32_MAX) return -1;
        if (finite(scores[i])) items[usable++] = {scores[i], int32_t(label), i};
    }
    return usable;
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
