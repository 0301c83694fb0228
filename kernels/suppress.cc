// Suppress on the host: candidates, NMS by label, gather; one call from a network's output to its detections.
#include "greedy.h"

namespace edgekd {
namespace {

struct Request {
    const float* boxes;
    int64_t columns;
    const float* scores;
    int64_t n, classes;
    float conf;
    Overlap overlap;
    int64_t max_candidates, max_det;
    const uint8_t* allowed;
    float* out_boxes;
    float* out_scores;
    int64_t* out_labels;
    int64_t* count;
};

bool sound(const Request& r) {
    if (!r.boxes || !r.scores || !r.out_boxes || !r.out_scores || !r.out_labels || !r.count) return false;
    if (r.n < 0 || r.n > kMaxCount || r.classes < 0 || r.classes > INT32_MAX) return false;
    return sound(r.overlap) && r.max_candidates >= 1 && r.max_det >= 1;
}

template <typename Forest>
int32_t run(const Request& r, int32_t instructions, void* memory, int64_t bytes) {
    if (!sound(r)) return EDGEKD_BAD_ARGUMENT;
    const int32_t chosen = resolve(instructions);
    if (chosen < 0) return chosen;
    Workspace workspace(memory, bytes);
    auto* items = workspace.take<Scored>(r.n);
    Forest forest(workspace, std::min(r.n, r.max_candidates));
    if (!workspace.fits()) return EDGEKD_SMALL_WORKSPACE;
    int64_t found = pick(r.scores, r.n, r.classes, r.conf, r.allowed, items, runs_avx2(chosen));
    found = rank_best(items, found, r.max_candidates);
    *r.count = greedy(r.boxes, items, found, r.overlap, r.max_det, forest, chosen);
    for (int64_t i = 0; i < *r.count; ++i) {
        std::copy_n(r.boxes + r.columns * items[i].index, r.columns, r.out_boxes + r.columns * i);
        r.out_scores[i] = items[i].score;
        r.out_labels[i] = items[i].label;
    }
    return EDGEKD_OK;
}

template <typename Forest>
int64_t workspace_for(int64_t n, int64_t max_candidates) {
    if (n < 0 || n > kMaxCount || max_candidates < 1) return EDGEKD_BAD_ARGUMENT;
    Workspace workspace;
    workspace.take<Scored>(n);
    Forest forest(workspace, std::min(n, max_candidates));
    return workspace.needed();
}

}  // namespace
}  // namespace edgekd

extern "C" int64_t edgekd_suppress_workspace(int64_t n, int64_t columns, int64_t max_candidates) {
    if (columns == 4) return edgekd::workspace_for<edgekd::UprightForest>(n, max_candidates);
    if (columns == 5) return edgekd::workspace_for<edgekd::RotatedForest>(n, max_candidates);
    return EDGEKD_BAD_ARGUMENT;
}

extern "C" int32_t edgekd_suppress(const float* boxes, int64_t columns, const float* scores, int64_t n, int64_t classes,
                                   float conf, float iou, int32_t metric, int64_t max_candidates, int64_t max_det,
                                   const uint8_t* allowed, float* out_boxes, float* out_scores, int64_t* out_labels,
                                   int64_t* count, int32_t instructions, void* workspace, int64_t workspace_bytes) {
    const edgekd::Request request{boxes,   columns,   scores,     n,          classes, conf, {iou, metric}, max_candidates, max_det,
                                  allowed, out_boxes, out_scores, out_labels, count};
    if (columns == 4 && metric == EDGEKD_IOU)
        return edgekd::run<edgekd::UprightForest>(request, instructions, workspace, workspace_bytes);
    if (columns == 5) return edgekd::run<edgekd::RotatedForest>(request, instructions, workspace, workspace_bytes);
    return EDGEKD_BAD_ARGUMENT;
}
