// Merge on the host: detections of overlapping tiles become those of the image. A box that the border of its tile cut
// goes if a box of another tile covers it; whole boxes are looked at before cut ones, so the piece never beats the
// whole.
#include "greedy.h"

namespace edgekd {
namespace {

struct CutPieces {
    float iou, iof;
    const int64_t* tiles;  // by place among the leaves
    const uint8_t* cut;
    int64_t tile;

    EDGEKD_INLINE bool over(const Rotated& frame, const Rotated& other) const { return iou_of(frame, other) > iou; }
    EDGEKD_INLINE bool covers(const Rotated& frame, const Rotated& other, float area) const {
        return intersection(frame, other) > iof * area;
    }
    EDGEKD_INLINE bool goes(bool over, bool covered, int64_t place) const {
        return over | (covered & (cut[place] != 0) & (tiles[place] != tile));
    }
};

// As RotatedStep, but the rule knows the tile of the box that stays.
struct MergeStep {
    RotatedForest& forest;
    float iou, iof;
    const int64_t* tiles;
    const uint8_t* cut;
    const int64_t* tile_of;  // by rank

    bool alive(int64_t rank) const { return forest.alive(rank); }
    EDGEKD_INLINE void suppress(int64_t rank, int32_t label) const {
        forest.suppress(rank, label, CutPieces{iou, iof, tiles, cut, tile_of[rank]});
    }
};

struct Request {
    const float* boxes;
    const float* scores;
    const int64_t* labels;
    const int64_t* tiles;
    const uint8_t* cut;
    int64_t n;
    float iou, iof;
    int64_t* keep;
    int64_t* count;
};

struct Memory {
    Scored* items;
    RotatedForest forest;
    int64_t *tile_of, *tiles;
    uint8_t* cut;

    Memory(Workspace& workspace, int64_t n)
        : items(workspace.take<Scored>(n)),
          forest(workspace, n),
          tile_of(workspace.take<int64_t>(n)),
          tiles(workspace.take<int64_t>(forest.width())),
          cut(workspace.take<uint8_t>(forest.width())) {}
};

bool complete(const Request& r) {
    if (!r.boxes || !r.scores || !r.tiles || !r.cut || !r.keep || !r.count || r.n < 0 || r.n > kMaxCount) return false;
    return r.iou >= 0 && r.iou <= 1 && r.iof >= 0 && r.iof <= 1;
}

int64_t merge(const Request& r, int64_t usable, Memory& memory, int32_t chosen) {
    Scored* items = memory.items;
    std::sort(items, items + usable, [&r](const Scored& a, const Scored& b) {
        const bool cut_a = r.cut[a.index], cut_b = r.cut[b.index];
        return cut_a != cut_b ? cut_b : before(a, b);
    });
    const int64_t count = memory.forest.load(r.boxes, items, usable, EDGEKD_IOU, r.iou);
    for (int64_t rank = 0; rank < count; ++rank) memory.tile_of[rank] = r.tiles[items[rank].index];
    for (int64_t place = 0; place < count; ++place) {
        const int64_t index = items[memory.forest.rank_at(place)].index;
        memory.tiles[place] = r.tiles[index];
        memory.cut[place] = r.cut[index];
    }
    const MergeStep step{memory.forest, r.iou, r.iof, memory.tiles, memory.cut, memory.tile_of};
    const int64_t kept = keep(items, count, count, step, chosen);
    std::sort(items, items + kept, before);
    return kept;
}

}  // namespace
}  // namespace edgekd

extern "C" int64_t edgekd_merge_tiles_workspace(int64_t n) {
    if (n < 0 || n > edgekd::kMaxCount) return EDGEKD_BAD_ARGUMENT;
    edgekd::Workspace workspace;
    edgekd::Memory memory(workspace, n);
    return workspace.needed();
}

extern "C" int32_t edgekd_merge_tiles(const float* boxes, const float* scores, const int64_t* labels,
                                      const int64_t* tiles, const uint8_t* cut, int64_t n, float iou, float iof,
                                      int64_t* keep, int64_t* count, int32_t instructions, void* workspace_memory,
                                      int64_t workspace_bytes) {
    const edgekd::Request request{boxes, scores, labels, tiles, cut, n, iou, iof, keep, count};
    if (!edgekd::complete(request)) return EDGEKD_BAD_ARGUMENT;
    const int32_t chosen = edgekd::resolve(instructions);
    if (chosen < 0) return chosen;
    edgekd::Workspace workspace(workspace_memory, workspace_bytes);
    edgekd::Memory memory(workspace, n);
    if (!workspace.fits()) return EDGEKD_SMALL_WORKSPACE;
    const int64_t usable = edgekd::gather_items(scores, labels, n, memory.items);
    if (usable < 0) return EDGEKD_BAD_ARGUMENT;
    *count = edgekd::merge(request, usable, memory, chosen);
    for (int64_t i = 0; i < *count; ++i) keep[i] = memory.items[i].index;
    return EDGEKD_OK;
}
