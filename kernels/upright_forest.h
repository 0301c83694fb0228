// Upright boxes in a tree: marks all that one of them suppresses, sixteen at a time.
#pragma once

#include "box_tree.h"
#include "ranking.h"

namespace edgekd {

class UprightForest {
public:
    UprightForest(Workspace& workspace, int64_t capacity)
        : tree_(workspace, capacity), areas_(workspace.take<float>(tree_.width())) {}

    // Take in the boxes (.., 4) of `items`, best first; drop the items whose box does not count; return how many are
    // left.
    int64_t load(const float* boxes, Scored* items, int64_t n) {
        int64_t count = 0;
        for (int64_t i = 0; i < n; ++i) {
            const float* at = boxes + 4 * items[i].index;
            const Box box{at[0], at[1], at[2], at[3]};
            if (!counts(box)) continue;
            tree_.boxes()[count] = box;
            items[count++] = items[i];
        }
        tree_.build(count, [items](int64_t rank) { return items[rank].label; });
        for (int64_t at = 0; at < count; ++at) areas_[at] = area(tree_.boxes()[tree_.rank_at(at)]);
        std::fill(areas_ + count, areas_ + tree_.width(), 0.0f);
        return count;
    }

    bool alive(int64_t rank) const { return tree_.alive(rank); }

    // Mark every box of this label that overlaps the box of `rank` more than `threshold`, itself included.
    EDGEKD_INLINE void suppress(int64_t rank, int32_t label, float threshold) {
        const Box box = tree_.boxes()[rank];
        Marker marker{tree_.leaves(), areas_, tree_.alive(), box, area(box), label, threshold};
        tree_.visit(box, label, marker);
    }

private:
    struct Marker {
        const BoxTree::Level& leaves;
        const float* areas;
        int32_t* alive;
        Box box;
        float size;
        int32_t label;
        float threshold;

        EDGEKD_INLINE void operator()(int64_t first) const {
            const float *x1 = leaves.x1 + first, *y1 = leaves.y1 + first;
            const float *x2 = leaves.x2 + first, *y2 = leaves.y2 + first, *sizes = areas + first;
            const int32_t* labels = leaves.lowest + first;
            int32_t* living = alive + first;
            for (int64_t i = 0; i < BoxTree::kFan; ++i) {
                const float overlap = iou(box, size, {x1[i], y1[i], x2[i], y2[i]}, sizes[i]);
                living[i] &= ~-int32_t((overlap > threshold) & (labels[i] == label));
            }
        }
    };

    BoxTree tree_;
    float* areas_;  // by place among the leaves
};

}  // namespace edgekd
