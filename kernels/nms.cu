// NMS on the GPU: pairs of ranked boxes are compared in 64 x 64 tiles, into bits; then a block an image walks the bits
// and writes what is kept. Bit c % 64 of mask word (r, c / 64) says that box r, if it is kept, removes box c > r; the
// bit of box r itself says that it does not count. Words left of the diagonal are neither written nor read.
#include "suppress_job.h"

namespace edgekd {
namespace {

// What overlap means: a shape made once from the numbers of a box, and whether two overlap more than a threshold. Most
// pairs are told apart by a comparison or two that leave no doubt, so no bit changes.
struct UprightIou {
    using Shape = Upright;
    static constexpr int kColumns = 4;

    static __device__ Shape shape(const float* box) {
        const Box corners{box[0], box[1], box[2], box[3]};
        return {corners, area(corners)};
    }
    static __device__ bool counts(const Shape& shape) { return edgekd::counts(shape.box); }
    static __device__ bool over(const Shape& a, const Shape& b, float threshold) {
        const bool meet = a.box.x1 < b.box.x2 && b.box.x1 < a.box.x2 && a.box.y1 < b.box.y2 && b.box.y1 < a.box.y2;
        return meet && iou(a.box, a.size, b.box, b.size) > threshold;
    }
};

struct RotatedIou {
    using Shape = Rotated;
    static constexpr int kColumns = 5;

    static __device__ Shape shape(const float* box) { return prepare(box); }
    static __device__ bool counts(const Shape& shape) { return edgekd::counts(shape); }
    static __device__ bool over(const Shape& a, const Shape& b, float threshold) {
        // Areas in a smaller ratio cannot overlap more than the threshold; a little less, for rounding.
        const float least = threshold * (1 - 1e-5f);
        if (a.area < least * b.area || b.area < least * a.area) return false;
        if (fabsf(b.x - a.x) > a.extent_x + b.extent_x || fabsf(b.y - a.y) > a.extent_y + b.extent_y) return false;
        const bool first = is_frame(a, b);
        return iou_of(first ? a : b, first ? b : a) > threshold;
    }
};

struct RotatedProbIou : RotatedIou {
    static __device__ bool over(const Shape& a, const Shape& b, float threshold) {
        const bool first = is_frame(a, b);
        return clamp(probiou_of(first ? a : b, first ? b : a), 0.0f, 1.0f) > threshold;
    }
};

// Shapes by rank, once a box: a rotated one takes a sine and a cosine.
template <typename Metric>
__device__ inline void shapes(const edgekd_suppress_job& job, int64_t image, int64_t rank) {
    const Scratch scratch(job);
    if (rank >= scratch.count[image]) return;
    const Word key = scratch.ranked[image * scratch.limit + rank];
    const auto shape = Metric::shape(job.boxes + (image * job.rows + row_of(key, job)) * Metric::kColumns);
    scratch.shapes_of<typename Metric::Shape>(image)[rank] = shape;
    scratch.classes[image * scratch.limit + rank] = Metric::counts(shape) ? class_of(key, job) : -1;
}

// 64 boxes in shared memory; label -1: the box does not count, or there is none.
template <typename Shape>
struct Strip {
    Shape shapes[kTile];
    int labels[kTile];

    __device__ void load(const Scratch& scratch, int64_t image, int64_t first, int slot) {
        const int64_t rank = first + slot;
        labels[slot] = -1;
        if (rank >= scratch.count[image]) return;
        labels[slot] = scratch.classes[image * scratch.limit + rank];
        shapes[slot] = scratch.shapes_of<Shape>(image)[rank];
    }
};

template <typename Metric>
struct Tile {
    Strip<typename Metric::Shape> rows, columns;

    __device__ bool removes(int r, int c, float threshold) const {
        if (rows.labels[r] < 0 || rows.labels[r] != columns.labels[c]) return false;
        return Metric::over(rows.shapes[r], columns.shapes[c], threshold);
    }
};

// The tile of this block, on or right of the diagonal: rows y and W - 1 - y of tiles together have W + 1 of them, one
// row of blocks. Returns false for a block without work: the row in the middle of an odd number is there only once.
__device__ inline bool place(int64_t words, int64_t& row, int64_t& column) {
    row = blockIdx.y, column = row + blockIdx.x;
    if (column < words) return true;
    column -= row + 1;  // counts from the diagonal, W - 1 - y ... W - 1, in the other row
    row = words - 1 - row;
    return row != int64_t(blockIdx.y);
}

// A warp takes a box of the row strip at a time, a lane two of the column strip. The whole block takes part.
template <typename Metric, int Threads>
__device__ inline void mask(const edgekd_suppress_job& job, int64_t image, int64_t row, int64_t column,
                            Tile<Metric>& tile) {
    const Scratch scratch(job);
    const int64_t n = scratch.count[image];
    const int thread = int(threadIdx.x), lane = thread % 32;
    if (thread < kTile)
        tile.rows.load(scratch, image, row * kTile, thread);
    else if (thread < 2 * kTile)
        tile.columns.load(scratch, image, column * kTile, thread - kTile);
    __syncthreads();
    for (int r = thread / 32; r < kTile && row * kTile + r < n; r += Threads / 32) {
        Word word = 0;
        for (int half = 0; half < 2; ++half) {
            const int c = half * 32 + lane;
            bool bit;
            if (row == column && c <= r)
                bit = c == r && tile.rows.labels[r] < 0;
            else
                bit = tile.removes(r, c, job.iou);
            word |= Word(__ballot_sync(kWarp, bit)) << (32 * half);
        }
        if (lane == 0) scratch.mask[(image * scratch.limit + row * kTile + r) * scratch.words + column] = word;
    }
}

// The tile of this block, if there is work for it.
template <typename Metric>
__device__ inline void mask_placed(const edgekd_suppress_job& job, Tile<Metric>& tile) {
    const Scratch scratch(job);
    const int64_t image = blockIdx.z;
    int64_t row, column;
    if (place(scratch.words, row, column) && column * kTile < scratch.count[image])
        mask<Metric, kMaskThreads>(job, image, row, column, tile);
}

struct Walk {
    Word removed[kMaxWords], kept[kMaxWords], diagonal[kTile];
    int before[kMaxWords];  // boxes kept in earlier words
    int total;
};

// Decide on 64 boxes in order: the one step that cannot be parallel.
__device__ inline void decide(Walk& shared, int64_t word, int64_t n, int limit) {
    const int64_t left = n - word * kTile;
    Word alive = ~shared.removed[word], kept = 0;
    if (left < kTile) alive &= (Word(1) << left) - 1;
    int total = shared.total;
    shared.before[word] = total;
#pragma unroll 16
    for (int i = 0; i < kTile; ++i) {
        const Word row = shared.diagonal[i], bit = Word(1) << i;
        if ((alive & ~row & bit) == 0 || total >= limit) continue;  // a box that does not count removes only itself
        kept |= bit;
        alive &= ~row;
        ++total;
    }
    shared.kept[word] = kept;
    shared.total = total;
}

// Mark what the boxes kept in `word` remove from the words after it; 64 threads a box, so that reads are in one piece.
__device__ inline void spread(const Scratch& scratch, const Word* mask, Walk& shared, int64_t word, int64_t words) {
    const int64_t later = word + 1 + threadIdx.x % kTile;
    if (later >= words) return;
    Word removed = 0;
#pragma unroll
    for (int i = int(threadIdx.x) / kTile; i < kTile; i += kScanThreads / kTile) {
        if (shared.kept[word] >> i & 1) removed |= mask[(word * kTile + i) * scratch.words + later];
    }
    if (removed) atomicOr(&shared.removed[later], removed);
}

__device__ inline float score_at(const edgekd_suppress_job& job, int64_t at) {
    return job.half_scores ? widen(static_cast<const uint16_t*>(job.scores)[at])
                           : static_cast<const float*>(job.scores)[at];
}

__device__ inline void write(const edgekd_suppress_job& job, const Scratch& scratch, int64_t image, int64_t rank,
                             int64_t place) {
    const Word key = scratch.ranked[image * scratch.limit + rank];
    const int64_t row = image * job.rows + row_of(key, job);
    const int32_t label = class_of(key, job);
    const int64_t out = image * job.max_det + place;
    for (int i = 0; i < job.columns; ++i) job.out_boxes[out * job.columns + i] = job.boxes[row * job.columns + i];
    job.out_scores[out] = score_at(job, row * job.classes + label);
    job.out_labels[out] = label;
}

__device__ inline void pad(const edgekd_suppress_job& job, int64_t out) {
    for (int i = 0; i < job.columns; ++i) job.out_boxes[out * job.columns + i] = 0;
    job.out_scores[out] = 0;
    job.out_labels[out] = -1;
}

__device__ inline void scan(const edgekd_suppress_job& job, int64_t image, Walk& shared) {
    const Scratch scratch(job);
    const int64_t n = scratch.count[image], words = (n + kTile - 1) / kTile;
    const Word* mask = scratch.mask + image * scratch.limit * scratch.words;
    const int64_t thread = threadIdx.x;
    if (thread < kMaxWords) shared.removed[thread] = shared.kept[thread] = 0;
    if (thread == 0) shared.total = 0;
    __syncthreads();
    for (int64_t word = 0; word < words && shared.total < job.max_det; ++word) {
        const int64_t rank = word * kTile + thread;
        if (thread < kTile) shared.diagonal[thread] = rank < n ? mask[rank * scratch.words + word] : 0;
        __syncthreads();
        if (thread == 0) decide(shared, word, n, job.max_det);
        __syncthreads();
        spread(scratch, mask, shared, word, words);  // read after the first barrier of the next turn
    }
    for (int64_t rank = thread; rank < n; rank += kScanThreads) {
        const Word kept = shared.kept[rank / kTile], bit = Word(1) << rank % kTile;
        if (kept & bit) write(job, scratch, image, rank, shared.before[rank / kTile] + __popcll(kept & (bit - 1)));
    }
    for (int64_t i = shared.total + thread; i < job.max_det; i += kScanThreads) pad(job, image * job.max_det + i);
    if (thread == 0) job.out_count[image] = shared.total;
}

}  // namespace
}  // namespace edgekd

extern "C" __global__ void __launch_bounds__(edgekd::kShapeThreads) edgekd_nms_shapes_xyxy(edgekd_suppress_job job) {
    edgekd::shapes<edgekd::UprightIou>(job, blockIdx.y, int64_t(blockIdx.x) * edgekd::kShapeThreads + threadIdx.x);
}

extern "C" __global__ void __launch_bounds__(edgekd::kShapeThreads) edgekd_nms_shapes_xywhr(edgekd_suppress_job job) {
    edgekd::shapes<edgekd::RotatedIou>(job, blockIdx.y, int64_t(blockIdx.x) * edgekd::kShapeThreads + threadIdx.x);
}

extern "C" __global__ void __launch_bounds__(edgekd::kMaskThreads) edgekd_nms_mask_xyxy(edgekd_suppress_job job) {
    __shared__ edgekd::Tile<edgekd::UprightIou> tile;
    edgekd::mask_placed(job, tile);
}

extern "C" __global__ void __launch_bounds__(edgekd::kMaskThreads) edgekd_nms_mask_xywhr(edgekd_suppress_job job) {
    __shared__ edgekd::Tile<edgekd::RotatedIou> tile;
    edgekd::mask_placed(job, tile);
}

extern "C" __global__ void __launch_bounds__(edgekd::kMaskThreads) edgekd_nms_mask_probiou(edgekd_suppress_job job) {
    __shared__ edgekd::Tile<edgekd::RotatedProbIou> tile;
    edgekd::mask_placed(job, tile);
}

extern "C" __global__ void __launch_bounds__(edgekd::kScanThreads) edgekd_nms_scan(edgekd_suppress_job job) {
    __shared__ edgekd::Walk shared;
    edgekd::scan(job, blockIdx.x, shared);
}
