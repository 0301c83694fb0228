// NMS on the host: boxes in the order of their scores, each one that is still alive is kept and marks what it overlaps.
#include <limits>

#include "box_tree.h"
#include "ranking.h"

namespace edgekd {
namespace {

EDGEKD_INLINE int64_t keep_greedily(Scored* items, int64_t n, float threshold, int64_t limit, BoxTree& tree) {
    int64_t kept = 0;
    for (int64_t rank = 0; rank < n && kept < limit; ++rank) {
        if (!tree.alive(rank)) continue;
        tree.suppress(rank, items[rank].label, threshold);
        items[kept++] = items[rank];
    }
    return kept;
}

int64_t keep_plain(Scored* items, int64_t n, float threshold, int64_t limit, BoxTree& tree) {
    return keep_greedily(items, n, threshold, limit, tree);
}

#if EDGEKD_HAS_AVX
EDGEKD_TARGET_AVX2 int64_t keep_avx2(Scored* items, int64_t n, float threshold, int64_t limit, BoxTree& tree) {
    return keep_greedily(items, n, threshold, limit, tree);
}
#endif

inline Box load(const float* boxes, int64_t index) {
    return {boxes[4 * index], boxes[4 * index + 1], boxes[4 * index + 2], boxes[4 * index + 3]};
}

}  // namespace

int64_t greedy(const float* boxes, Scored* items, int64_t n, float threshold, int64_t limit, BoxTree& tree, bool avx2) {
    int64_t count = 0;
    for (int64_t i = 0; i < n; ++i) {
        const Box box = load(boxes, items[i].index);
        if (!counts(box)) continue;
        tree.boxes()[count] = box;
        items[count++] = items[i];
    }
    tree.build(count, [items](int64_t rank) { return items[rank].label; });
#if EDGEKD_HAS_AVX
    if (avx2) return keep_avx2(items, count, threshold, limit, tree);
#else
    (void)avx2;
#endif
    return keep_plain(items, count, threshold, limit, tree);
}

}  // namespace edgekd

extern "C" int64_t edgekd_nms_workspace(int64_t n) {
    if (n < 0 || n > edgekd::kMaxCount) return EDGEKD_BAD_ARGUMENT;
    edgekd::Workspace workspace;
    workspace.take<edgekd::Scored>(n);
    edgekd::BoxTree tree(workspace, n);
    return workspace.needed();
}

extern "C" int32_t edgekd_nms(const float* boxes, const float* scores, const int64_t* labels, int64_t n, float iou,
                              int64_t limit, int64_t* keep, int64_t* count, int32_t instructions,
                              void* workspace_memory, int64_t workspace_bytes) {
    if (!boxes || !scores || !keep || !count || n < 0 || n > edgekd::kMaxCount || limit < 1) return EDGEKD_BAD_ARGUMENT;
    if (!(iou >= 0 && iou <= 1)) return EDGEKD_BAD_ARGUMENT;
    const int32_t chosen = edgekd::resolve(instructions);
    if (chosen < 0) return chosen;
    edgekd::Workspace workspace(workspace_memory, workspace_bytes);
    auto* items = workspace.take<edgekd::Scored>(n);
    edgekd::BoxTree tree(workspace, n);
    if (!workspace.fits()) return EDGEKD_SMALL_WORKSPACE;
    int64_t usable = 0;
    for (int64_t i = 0; i < n; ++i) {
        const int64_t label = labels ? labels[i] : 0;
        if (label < std::numeric_limits<int32_t>::min() || label > std::numeric_limits<int32_t>::max())
            return EDGEKD_BAD_ARGUMENT;
        if (edgekd::finite(scores[i])) items[usable++] = {scores[i], int32_t(label), i};
    }
    usable = edgekd::rank_best(items, usable, n);
    *count = edgekd::greedy(boxes, items, usable, iou, limit, tree, edgekd::runs_avx2(chosen));
    for (int64_t i = 0; i < *count; ++i) keep[i] = items[i].index;
    return EDGEKD_OK;
}
