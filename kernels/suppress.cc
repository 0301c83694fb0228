// Suppress on the host: candidates, NMS by label, gather; one call from a network's output to its detections.
#include "greedy.h"

namespace edgekd {
namespace {

struct Request {
    const float* boxes;
    int64_t columns;
    Filter filter;
    Overlap overlap;
    int64_t max_det;
    float* out_boxes;
    float* out_scores;
    int64_t* out_labels;
    int64_t* count;
};

bool sound(const Request& r) {
    return r.boxes && r.out_boxes && r.out_scores && r.out_labels && r.count && r.max_det >= 1 && r.filter.sound() &&
           sound(r.overlap);
}

struct Room {
    int64_t items, boxes;
    Room(int64_t n, int64_t classes, bool every_class, int64_t limit)
        : items(Filter::room(n, classes, every_class, limit)), boxes(std::min(items, limit)) {}
};

template <typename Forest>
int32_t run(const Request& r, int32_t instructions, void* memory, int64_t bytes) {
    if (!sound(r)) return EDGEKD_BAD_ARGUMENT;
    const int32_t chosen = resolve(instructions);
    if (chosen < 0) return chosen;
    const Filter& f = r.filter;
    const Room room(f.n, f.classes, f.every_class, f.limit);
    Workspace workspace(memory, bytes);
    auto* items = workspace.take<Scored>(room.items);
    Forest forest(workspace, room.boxes);
    if (!workspace.fits()) return EDGEKD_SMALL_WORKSPACE;
    const int64_t found = pick(f, items, runs_avx2(chosen));
    *r.count = greedy(r.boxes, items, found, r.overlap, r.max_det, forest, chosen);
    for (int64_t i = 0; i < *r.count; ++i) {
        std::copy_n(r.boxes + r.columns * items[i].index, r.columns, r.out_boxes + r.columns * i);
        r.out_scores[i] = items[i].score;
        r.out_labels[i] = items[i].label;
    }
    return EDGEKD_OK;
}

template <typename Forest>
int64_t workspace_for(const Room& room) {
    Workspace workspace;
    workspace.take<Scored>(room.items);
    Forest forest(workspace, room.boxes);
    return workspace.needed();
}

}  // namespace
}  // namespace edgekd

extern "C" int64_t edgekd_suppress_workspace(int64_t n, int64_t columns, int64_t classes, int32_t every_class,
                                             int64_t max_candidates) {
    if (n < 0 || n > edgekd::kMaxCount || classes < 0 || classes > INT32_MAX || max_candidates < 1)
        return EDGEKD_BAD_ARGUMENT;
    const edgekd::Room room(n, classes, every_class != 0, max_candidates);
    if (columns == 4) return edgekd::workspace_for<edgekd::UprightForest>(room);
    if (columns == 5) return edgekd::workspace_for<edgekd::RotatedForest>(room);
    return EDGEKD_BAD_ARGUMENT;
}

extern "C" int32_t edgekd_suppress(const float* boxes, int64_t columns, const float* scores, int64_t n, int64_t classes,
                                   float conf, int32_t every_class, float iou, int32_t metric, int64_t max_candidates,
                                   int64_t max_det, const uint8_t* allowed, float* out_boxes, float* out_scores,
                                   int64_t* out_labels, int64_t* count, int32_t instructions, void* workspace,
                                   int64_t workspace_bytes) {
    const edgekd::Filter filter{scores, n, classes, conf, allowed, every_class != 0, max_candidates};
    const edgekd::Request request{boxes,     columns,    filter,     {iou, metric}, max_det,
                                  out_boxes, out_scores, out_labels, count};
    if (columns == 4 && metric == EDGEKD_IOU)
        return edgekd::run<edgekd::UprightForest>(request, instructions, workspace, workspace_bytes);
    if (columns == 5) return edgekd::run<edgekd::RotatedForest>(request, instructions, workspace, workspace_bytes);
    return EDGEKD_BAD_ARGUMENT;
}
