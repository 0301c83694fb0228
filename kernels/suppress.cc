// Suppress on the host: candidates, NMS by label, gather; one call from a network's output to its detections.
#include "box_tree.h"
#include "ranking.h"

namespace edgekd {
namespace {

bool sound(int64_t n, int64_t classes, float iou, int64_t max_candidates, int64_t max_det) {
    if (n < 0 || n > kMaxCount || classes < 0 || classes > INT32_MAX) return false;
    return iou >= 0 && iou <= 1 && max_candidates >= 1 && max_det >= 1;
}

}  // namespace
}  // namespace edgekd

extern "C" int64_t edgekd_suppress_workspace(int64_t n, int64_t max_candidates) {
    if (n < 0 || n > edgekd::kMaxCount || max_candidates < 1) return EDGEKD_BAD_ARGUMENT;
    edgekd::Workspace workspace;
    workspace.take<edgekd::Scored>(n);
    edgekd::BoxTree tree(workspace, std::min(n, max_candidates));
    return workspace.needed();
}

extern "C" int32_t edgekd_suppress(const float* boxes, const float* scores, int64_t n, int64_t classes, float conf,
                                   float iou, int64_t max_candidates, int64_t max_det, const uint8_t* allowed,
                                   float* out_boxes, float* out_scores, int64_t* out_labels, int64_t* count,
                                   int32_t instructions, void* workspace_memory, int64_t workspace_bytes) {
    if (!boxes || !scores || !out_boxes || !out_scores || !out_labels || !count) return EDGEKD_BAD_ARGUMENT;
    if (!edgekd::sound(n, classes, iou, max_candidates, max_det)) return EDGEKD_BAD_ARGUMENT;
    const int32_t chosen = edgekd::resolve(instructions);
    if (chosen < 0) return chosen;
    const bool avx2 = edgekd::runs_avx2(chosen);
    edgekd::Workspace workspace(workspace_memory, workspace_bytes);
    auto* items = workspace.take<edgekd::Scored>(n);
    edgekd::BoxTree tree(workspace, std::min(n, max_candidates));
    if (!workspace.fits()) return EDGEKD_SMALL_WORKSPACE;
    int64_t found = edgekd::pick(scores, n, classes, conf, allowed, items, avx2);
    found = edgekd::rank_best(items, found, max_candidates);
    *count = edgekd::greedy(boxes, items, found, iou, max_det, tree, avx2);
    for (int64_t i = 0; i < *count; ++i) {
        std::copy_n(boxes + 4 * items[i].index, 4, out_boxes + 4 * i);
        out_scores[i] = items[i].score;
        out_labels[i] = items[i].label;
    }
    return EDGEKD_OK;
}
