// A packed tree of bounding boxes, sixteen to a node: what makes suppression cost follow overlaps instead of N squared.
//
// Boxes are sorted by label and then along a Z-order curve of their centres; sixteen neighbours form a node with a
// bounding box and a range of labels, sixteen nodes form a node of the next level, and so on. A node that does not meet
// a box is skipped with everything below it. Skipping changes no result: boxes that do not meet have no intersection.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "geometry.h"
#include "host.h"

namespace edgekd {

class BoxTree {
public:
    static constexpr int64_t kFan = 16;
    static constexpr int kMaxDepth = 12;  // 16^12 boxes

    // Take room for `capacity` boxes.
    BoxTree(Workspace& workspace, int64_t capacity) {
        keys_ = workspace.take<Key>(capacity);
        boxes_ = workspace.take<Box>(capacity);
        positions_ = workspace.take<int64_t>(capacity);
        width_ = padded(std::max<int64_t>(capacity, 1));
        alive_ = workspace.take<int32_t>(width_);
        int64_t total = 0;
        for (int64_t count = capacity;; count = (count + kFan - 1) / kFan) {
            total += padded(std::max<int64_t>(count, 1));
            if (count <= kFan) break;
        }
        floats_ = workspace.take<float>(4 * total);
        labels_ = workspace.take<int32_t>(2 * total);
    }

    // Boxes by rank, to be written before `build`; each must count.
    Box* boxes() { return boxes_; }

    // Index `n` boxes; `label_of(rank)` gives their labels.
    template <typename LabelOf>
    void build(int64_t n, LabelOf label_of) {
        for (int64_t rank = 0; rank < n; ++rank) keys_[rank] = {key(boxes_[rank], label_of(rank)), rank};
        std::sort(keys_, keys_ + n);
        float* floats = floats_;
        int32_t* labels = labels_;
        depth_ = 0;
        for (int64_t count = n;; count = (count + kFan - 1) / kFan) {
            Level& level = levels_[depth_++];
            level.take(floats, labels, padded(std::max<int64_t>(count, 1)));
            if (depth_ == 1)
                fill_leaves(n, label_of);
            else
                fill_nodes(levels_[depth_ - 2], level, count);
            if (count <= kFan) break;
        }
    }

    bool alive(int64_t rank) const { return alive_[positions_[rank]] != 0; }

    // Where the box of a rank lies among the leaves, which have room for `width()` boxes, and which rank lies at a
    // place.
    int64_t position(int64_t rank) const { return positions_[rank]; }
    int64_t rank_at(int64_t position) const { return keys_[position].rank; }
    int64_t width() const { return width_; }

    // The leaves: bounding boxes side by side, labels, and 1 or 0 for alive.
    struct Level {
        float *x1, *y1, *x2, *y2;
        int32_t *lowest, *highest;  // labels

        // Which of the sixteen from `first` on meet the box and may hold the label.
        EDGEKD_INLINE void meet(int64_t first, Box box, int32_t label, int32_t* meets) const {
            const float *left = x1 + first, *upper = y1 + first, *right = x2 + first, *lower = y2 + first;
            const int32_t *low = lowest + first, *high = highest + first;
            for (int64_t i = 0; i < kFan; ++i) {
                meets[i] = (left[i] < box.x2) & (right[i] > box.x1) & (upper[i] < box.y2) & (lower[i] > box.y1) &
                           (low[i] <= label) & (high[i] >= label);
            }
        }

    private:
        friend class BoxTree;

        void take(float*& floats, int32_t*& labels, int64_t width) {
            x1 = floats, y1 = x1 + width, x2 = y1 + width, y2 = x2 + width;
            floats = y2 + width;
            lowest = labels, highest = labels + width;
            labels = highest + width;
        }

        void set(int64_t at, Box box, int32_t low, int32_t high) {
            x1[at] = box.x1, y1[at] = box.y1, x2[at] = box.x2, y2[at] = box.y2;
            lowest[at] = low, highest[at] = high;
        }

        // An empty place: meets nothing.
        void clear(int64_t at) {
            const float inf = std::numeric_limits<float>::infinity();
            set(at, {inf, inf, -inf, -inf}, std::numeric_limits<int32_t>::max(), std::numeric_limits<int32_t>::min());
        }
    };

    const Level& leaves() const { return levels_[0]; }
    int32_t* alive() { return alive_; }

    // Call `leaf(first)` for each sixteen leaves whose node meets the box and may hold the label.
    template <typename Leaf>
    EDGEKD_INLINE void visit(Box box, int32_t label, Leaf& leaf) const {
        struct {
            int level;
            int64_t node;
        } pending[kMaxDepth * kFan];
        int count = 0;
        pending[count++] = {depth_ - 1, 0};
        while (count > 0) {
            const int at = pending[--count].level;
            const int64_t first = pending[count].node * kFan;
            if (at == 0) {
                leaf(first);
                continue;
            }
            int32_t meets[kFan];
            levels_[at].meet(first, box, label, meets);
            for (int64_t i = 0; i < kFan; ++i) {
                if (meets[i]) pending[count++] = {at - 1, first + i};
            }
        }
    }

private:
    struct Key {
        uint64_t key;
        int64_t rank;
        bool operator<(const Key& other) const { return key < other.key || (key == other.key && rank < other.rank); }
    };

    static int64_t padded(int64_t count) { return (count + kFan - 1) / kFan * kFan; }

    // The upper half of a float's bits, in an order that follows its value: fine where the numbers are small, and no
    // single far-away box makes it coarse for the others.
    static uint32_t coarse(float value) {
        uint32_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        return (bits >> 31 ? ~bits : bits | 0x80000000u) >> 16;
    }

    // Put a zero between each two of the 16 bits.
    static uint32_t spread(uint32_t bits) {
        bits = (bits | bits << 8) & 0x00FF00FFu;
        bits = (bits | bits << 4) & 0x0F0F0F0Fu;
        bits = (bits | bits << 2) & 0x33333333u;
        return (bits | bits << 1) & 0x55555555u;
    }

    static uint64_t key(Box box, int32_t label) {
        const uint32_t curve = spread(coarse(box.x1 + box.x2)) | spread(coarse(box.y1 + box.y2)) << 1;
        return uint64_t(uint32_t(label)) << 32 | curve;
    }

    template <typename LabelOf>
    void fill_leaves(int64_t n, LabelOf label_of) {
        Level& leaves = levels_[0];
        for (int64_t at = 0; at < n; ++at) {
            const int64_t rank = keys_[at].rank;
            const int32_t label = label_of(rank);
            leaves.set(at, boxes_[rank], label, label);
            alive_[at] = 1;
            positions_[rank] = at;
        }
        for (int64_t at = n; at < padded(std::max<int64_t>(n, 1)); ++at) {
            leaves.clear(at);
            alive_[at] = 0;
        }
    }

    static void fill_nodes(const Level& below, Level& level, int64_t count) {
        for (int64_t node = 0; node < padded(count); ++node) {
            level.clear(node);
            if (node >= count) continue;
            for (int64_t child = node * kFan; child < (node + 1) * kFan; ++child) {
                level.x1[node] = smaller(below.x1[child], level.x1[node]);
                level.y1[node] = smaller(below.y1[child], level.y1[node]);
                level.x2[node] = larger(below.x2[child], level.x2[node]);
                level.y2[node] = larger(below.y2[child], level.y2[node]);
                level.lowest[node] = std::min(below.lowest[child], level.lowest[node]);
                level.highest[node] = std::max(below.highest[child], level.highest[node]);
            }
        }
    }

    Key* keys_;
    Box* boxes_;
    int64_t width_;
    int64_t* positions_;  // rank -> place among the leaves
    int32_t* alive_;      // 1 or 0
    float* floats_;
    int32_t* labels_;
    Level levels_[kMaxDepth];
    int depth_ = 0;
};

}  // namespace edgekd
