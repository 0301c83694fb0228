// Rotated boxes in a tree of their upright bounds. What may overlap is gathered from the leaves until sixteen are
// together, then one pass computes all their overlaps: most leaves hold one or two that meet.
//
// A rule says which of them go: `over(frame, other)` for a pair, `covers(frame, other, area)` for the pair and the area
// of the box in question, both for sixteen at a time; then `goes(over, covers, place)` for the box at a place of the
// leaves.
#pragma once

#include "box_tree.h"
#include "ranking.h"
#include "rotated_lanes.h"

namespace edgekd {

template <typename Metric>
struct MoreThan {
    float threshold;
    EDGEKD_INLINE bool over(const Rotated& frame, const Rotated& other) const {
        return Metric::of(frame, other) > threshold;
    }
    EDGEKD_INLINE bool covers(const Rotated&, const Rotated&, float) const { return false; }
    EDGEKD_INLINE bool goes(bool over, bool, int64_t) const { return over; }
};

class RotatedForest {
public:
    RotatedForest(Workspace& workspace, int64_t capacity)
        : tree_(workspace, capacity), lanes_(workspace, tree_.width()) {}

    // Take in the boxes (.., 5) of `items`, best first; drop the items whose box does not count; return how many are
    // left.
    int64_t load(const float* boxes, Scored* items, int64_t n, int32_t metric, float threshold) {
        const float reach = metric == EDGEKD_PROBIOU ? probiou_reach(threshold) : 0;
        int64_t count = 0;
        for (int64_t i = 0; i < n; ++i) {
            const Rotated box = prepare(boxes + 5 * items[i].index);
            if (!counts(box)) continue;
            tree_.boxes()[count] = metric == EDGEKD_PROBIOU ? bounds(box, reach) : bounds(box);
            items[count++] = items[i];
        }
        tree_.build(count, [items](int64_t rank) { return items[rank].label; });
        for (int64_t at = 0; at < tree_.width(); ++at) {
            lanes_.store(at, at < count ? prepare(boxes + 5 * items[tree_.rank_at(at)].index) : Rotated{});
        }
        return count;
    }

    // Skip pairs whose areas differ more than this: IoU cannot exceed the ratio. A little less, for rounding.
    void skip_ratios_below(float ratio) { least_ratio_ = ratio * (1 - 1e-5f); }

    bool alive(int64_t rank) const { return tree_.alive(rank); }

    int64_t width() const { return tree_.width(); }
    int64_t rank_at(int64_t place) const { return tree_.rank_at(place); }

    // Mark every box of this label that goes, by the rule, because the box of `rank` stays; and that one as done.
    template <typename Rule>
    EDGEKD_INLINE void suppress(int64_t rank, int32_t label, const Rule& rule) {
        const int64_t position = tree_.position(rank);
        Gatherer<Rule> gatherer{*this, rule, tree_.boxes()[rank], lanes_.load(position), label, {}, 0};
        tree_.alive()[position] = 0;
        tree_.visit(tree_.boxes()[rank], label, gatherer);
        if (gatherer.count > 0) gatherer.flush(gatherer.count);
    }

private:
    static constexpr int64_t kLanes = BoxTree::kFan;

    // Upright bounds, wider than rounding: boxes whose bounds stay apart have overlap 0 by the first test of
    // `intersection`.
    static Box bounds(const Rotated& box) {
        const float x = slack(box.x, box.extent_x), y = slack(box.y, box.extent_y);
        return {(box.x - box.extent_x) - x, (box.y - box.extent_y) - y, (box.x + box.extent_x) + x,
                (box.y + box.extent_y) + y};
    }

    // Gaussians reach farther: |dx| < reach * (sigma_x of one + sigma_x of the other) where the distance is below the
    // bar.
    static Box bounds(const Rotated& box, float reach) {
        const float x = reach * std::sqrt((box.extent_x * box.extent_x) / 3 + std::numeric_limits<float>::min());
        const float y = reach * std::sqrt((box.extent_y * box.extent_y) / 3 + std::numeric_limits<float>::min());
        const float dx = x + slack(box.x, x), dy = y + slack(box.y, y);
        return {box.x - dx, box.y - dy, box.x + dx, box.y + dy};
    }

    // 2^-21 of the numbers at hand: four roundings of them, more than `bounds` and `apart` make together.
    static float slack(float centre, float extent) {
        return (std::fabs(centre) + extent) * 4.76837158e-7f + std::numeric_limits<float>::min();
    }

    // Twice the root of the Bhattacharyya distance at which ProbIoU is `threshold`, a little more; infinite at 0.
    static float probiou_reach(float threshold) {
        const double rest = 1.0 - double(threshold);
        const double coefficient = 1.0 - rest * rest;
        return coefficient > 0 ? float(2.01 * std::sqrt(1e-6 - std::log(coefficient)))
                               : std::numeric_limits<float>::infinity();
    }

    template <typename Rule>
    struct Gatherer {
        RotatedForest& forest;
        const Rule& rule;
        Box box;
        Rotated query;
        int32_t label;
        int64_t places[2 * kLanes];
        int64_t count;

        EDGEKD_INLINE void operator()(int64_t first) {
            int32_t meets[kLanes];
            forest.tree_.leaves().meet(first, box, label, meets);
            const int32_t* alive = forest.tree_.alive() + first;
            const float* areas = forest.lanes_.areas() + first;
            const float least = forest.least_ratio_ * query.area, ratio = forest.least_ratio_;
            for (int64_t i = 0; i < kLanes; ++i)
                meets[i] &= alive[i] & (areas[i] >= least) & (query.area >= ratio * areas[i]);
            for (int64_t i = 0; i < kLanes; ++i) {
                places[count] = first + i;
                count += meets[i];
            }
            if (count >= kLanes) flush(kLanes);
        }

        // Decide the last `n` gathered.
        EDGEKD_INLINE void flush(int64_t n) {
            alignas(64) float lanes[kRotatedFields][kLanes];
            int32_t over[kLanes], covered[kLanes];
            const int64_t* at = places + (count - n);
            for (int f = 0; f < kRotatedFields; ++f) {
                for (int64_t i = 0; i < kLanes; ++i) lanes[f][i] = forest.lanes_.fields[f][at[i < n ? i : 0]];
            }
            for (int64_t i = 0; i < kLanes; ++i) {
                const Rotated other = RotatedLanes<float>::load_lane<float>(lanes, i);
                const bool first = is_frame(query, other);
                const Rotated frame = choose(first, query, other), rest = choose(first, other, query);
                over[i] = rule.over(frame, rest);
                covered[i] = rule.covers(frame, rest, other.area);
            }
            int32_t* alive = forest.tree_.alive();
            for (int64_t i = 0; i < n; ++i) alive[at[i]] &= ~-int32_t(rule.goes(over[i], covered[i], at[i]));
            count -= n;
        }
    };

    BoxTree tree_;
    RotatedLanes<float> lanes_;  // by place among the leaves
    float least_ratio_ = 0;
};

}  // namespace edgekd
