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

// Best score first, ties by index, then by label. A total order: any sort gives the one result.
inline bool before(const Scored& a, const Scored& b) {
    if (a.score != b.score) return a.score > b.score;
    return a.index < b.index || (a.index == b.index && a.label < b.label);
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

// What is looked for in scores (n, classes): rows whose best class is over `conf`, or every class over it.
struct Filter {
    const float* scores;
    int64_t n, classes;
    float conf;
    const uint8_t* allowed;  // (classes), 0 where a class does not compete; null: all do
    bool every_class;
    int64_t limit;  // how many are wanted at most

    bool sound() const {
        return scores && n >= 0 && n <= kMaxCount && classes >= 0 && classes <= INT32_MAX && limit >= 1;
    }

    // Items that `pick` may have at hand: with every class, twice the limit, thinned out whenever that many are
    // reached.
    static int64_t room(int64_t n, int64_t classes, bool every_class, int64_t limit) {
        if (!every_class) return n;
        const int64_t all = classes > 0 && n > kMaxCount / classes ? kMaxCount : n * classes;
        return limit < (all - classes) / 2 ? 2 * limit + classes : all;
    }
};

// candidates.cc: write the best `limit` candidates in the order of `before`; return how many.
int64_t pick(const Filter& filter, Scored* picked, bool avx2);

}  // namespace edgekd
