// NMS on the host: boxes in the order of their scores, each one that is still alive is kept and marks what it overlaps.
#include "greedy.h"

namespace edgekd {
namespace {

struct UprightStep {
    UprightForest& forest;
    float threshold;
    bool alive(int64_t rank) const { return forest.alive(rank); }
    EDGEKD_INLINE void suppress(int64_t rank, int32_t label) const { forest.suppress(rank, label, threshold); }
};

}  // namespace

int64_t greedy(const float* boxes, Scored* items, int64_t n, const Overlap& overlap, int64_t limit,
               UprightForest& forest, int32_t chosen) {
    const int64_t count = forest.load(boxes, items, n);
    return keep(items, count, limit, UprightStep{forest, overlap.threshold}, chosen);
}

int64_t greedy(const float* boxes, Scored* items, int64_t n, const Overlap& overlap, int64_t limit,
               RotatedForest& forest, int32_t chosen) {
    const int64_t count = forest.load(boxes, items, n, overlap.metric, overlap.threshold);
    if (overlap.metric == EDGEKD_PROBIOU)
        return keep(items, count, limit, RotatedStep<MoreThan<ProbIou>>{forest, {overlap.threshold}}, chosen);
    forest.skip_ratios_below(overlap.threshold);
    return keep(items, count, limit, RotatedStep<MoreThan<ExactIou>>{forest, {overlap.threshold}}, chosen);
}

namespace {

struct Request {
    const float* boxes;
    const float* scores;
    const int64_t* labels;
    int64_t n;
    Overlap overlap;
    int64_t limit;
    int64_t* keep;
    int64_t* count;
};

bool sound(const Request& r) {
    return r.boxes && r.scores && r.keep && r.count && r.n >= 0 && r.n <= kMaxCount && r.limit >= 1 && sound(r.overlap);
}

template <typename Forest>
int32_t run(const Request& r, int32_t instructions, void* memory, int64_t bytes) {
    if (!sound(r)) return EDGEKD_BAD_ARGUMENT;
    const int32_t chosen = resolve(instructions);
    if (chosen < 0) return chosen;
    Workspace workspace(memory, bytes);
    auto* items = workspace.take<Scored>(r.n);
    Forest forest(workspace, r.n);
    if (!workspace.fits()) return EDGEKD_SMALL_WORKSPACE;
    int64_t usable = gather_items(r.scores, r.labels, r.n, items);
    if (usable < 0) return EDGEKD_BAD_ARGUMENT;
    usable = rank_best(items, usable, r.n);
    *r.count = greedy(r.boxes, items, usable, r.overlap, r.limit, forest, chosen);
    for (int64_t i = 0; i < *r.count; ++i) r.keep[i] = items[i].index;
    return EDGEKD_OK;
}

template <typename Forest>
int64_t workspace_for(int64_t n) {
    if (n < 0 || n > kMaxCount) return EDGEKD_BAD_ARGUMENT;
    Workspace workspace;
    workspace.take<Scored>(n);
    Forest forest(workspace, n);
    return workspace.needed();
}

}  // namespace
}  // namespace edgekd

extern "C" int64_t edgekd_nms_workspace(int64_t n) { return edgekd::workspace_for<edgekd::UprightForest>(n); }

extern "C" int64_t edgekd_nms_rotated_workspace(int64_t n) { return edgekd::workspace_for<edgekd::RotatedForest>(n); }

extern "C" int32_t edgekd_nms(const float* boxes, const float* scores, const int64_t* labels, int64_t n, float iou,
                              int64_t limit, int64_t* keep, int64_t* count, int32_t instructions, void* workspace,
                              int64_t workspace_bytes) {
    const edgekd::Request request{boxes, scores, labels, n, {iou, EDGEKD_IOU}, limit, keep, count};
    return edgekd::run<edgekd::UprightForest>(request, instructions, workspace, workspace_bytes);
}

extern "C" int32_t edgekd_nms_rotated(const float* boxes, const float* scores, const int64_t* labels, int64_t n,
                                      float iou, int32_t metric, int64_t limit, int64_t* keep, int64_t* count,
                                      int32_t instructions, void* workspace, int64_t workspace_bytes) {
    const edgekd::Request request{boxes, scores, labels, n, {iou, metric}, limit, keep, count};
    return edgekd::run<edgekd::RotatedForest>(request, instructions, workspace, workspace_bytes);
}
