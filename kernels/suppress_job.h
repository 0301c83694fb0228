// What the kernels of suppress pass from one to the next: keys, shapes, and the pieces of the workspace.
#pragma once

#include <cstdint>

#include "edgekd_cuda.h"
#include "geometry.h"
#include "launch.h"
#include "rotated.h"

namespace edgekd {

using Word = unsigned long long;  // the 64-bit type of CUDA's atomics and shuffles

constexpr int kTile = 64;  // boxes to a mask word
constexpr int kMaxCandidates = 4096;
constexpr int kMaxWords = kMaxCandidates / kTile;
constexpr unsigned kWarp = 0xFFFFFFFFu;  // every lane takes part in every exchange
constexpr Word kNone = ~Word(0);         // after every key

constexpr int64_t kMaxScores = (int64_t(1) << 32) - 1;  // of an image: the lower half of a key says which one it is

constexpr int kFilterThreads = 256, kScoresEach = 4, kSelectThreads = 512, kShapeThreads = kTile, kMaskThreads = 256;
constexpr int kScanThreads = 512;

// How many threads share a row: about four scores each, and neighbours read neighbours.
__host__ __device__ inline int lanes_of(int classes) {
    int lanes = 1;
    while (lanes < 32 && lanes * 8 <= classes) lanes *= 2;
    return lanes;
}

// A key is smaller where a score is higher, then where `index`, row * classes + class, is lower: one comparison gives
// the order of ranking.h, and the key says which row and class it is of. The two zeros are equal.
__device__ inline Word key_of(float score, uint32_t index) {
    const uint32_t bits = score == 0 ? 0 : __float_as_uint(score);
    const uint32_t ascending = bits >> 31 ? ~bits : bits | 0x80000000u;
    return Word(~ascending) << 32 | index;
}

__device__ inline uint32_t index_of(Word key) { return uint32_t(key); }
__device__ inline int64_t row_of(Word key, const edgekd_suppress_job& job) {
    return index_of(key) / uint32_t(job.classes);
}
__device__ inline int32_t class_of(Word key, const edgekd_suppress_job& job) {
    return int32_t(index_of(key) % uint32_t(job.classes));
}

__device__ inline float widen(float value) { return value; }

// IEEE half to float, exactly. What is not finite comes out as NaN: it is never selected, and never written.
__device__ inline float widen(uint16_t half) {
    if ((half & 0x7C00u) == 0x7C00u) return __uint_as_float(0x7FC00000u);
    const float magnitude = __uint_as_float(uint32_t(half & 0x7FFFu) << 13) * 0x1p112f;
    return half >> 15 ? -magnitude : magnitude;
}

// An upright box as suppression wants it; a rotated one is that of rotated.h.
struct Upright {
    Box box;
    float size;
};

// The workspace, piece by piece; computed by whoever needs it, so that a kernel takes nothing but the job.
struct Scratch {
    int64_t most;          // candidates of an image
    int64_t limit, words;  // boxes that reach the suppression, at most; mask words to a box
    uint32_t* found;       // (batch) candidates
    int32_t* count;        // (batch) of them, those that reach the suppression
    Word* keys;            // (batch, most) of candidates, in no order
    Word* ranked;          // (batch, limit) keys of the best, in order
    int32_t* classes;      // (batch, limit) by rank
    char* shapes;          // (batch, limit) by rank
    Word* mask;            // (batch, limit, words): see nms.cu
    int64_t bytes;

    __host__ __device__ explicit Scratch(const edgekd_suppress_job& job) : bytes(0) {
        const int64_t batch = job.batch, rows = job.rows;
        most = job.every_class ? rows * job.classes : rows;
        limit = most < job.max_candidates ? most : job.max_candidates;
        limit = limit < 1 ? 1 : limit;
        words = (limit + kTile - 1) / kTile;
        char* memory = static_cast<char*>(job.workspace);
        found = take<uint32_t>(memory, batch);
        count = take<int32_t>(memory, batch);
        keys = take<Word>(memory, batch * most);
        ranked = take<Word>(memory, batch * limit);
        classes = take<int32_t>(memory, batch * limit);
        const int64_t shape_bytes = job.columns == 5 ? sizeof(Rotated) : sizeof(Upright);
        shapes = take<char>(memory, batch * limit * shape_bytes);
        mask = take<Word>(memory, batch * limit * words);
    }

    template <typename Shape>
    __device__ Shape* shapes_of(int64_t image) const {
        return reinterpret_cast<Shape*>(shapes) + image * limit;
    }

private:
    template <typename T>
    __host__ __device__ T* take(char* memory, int64_t count) {
        char* piece = memory == nullptr ? nullptr : memory + bytes;
        bytes += (count * int64_t(sizeof(T)) + 63) & ~int64_t(63);
        return reinterpret_cast<T*>(piece);
    }
};

}  // namespace edgekd

// Their launches are tabled in edgekd_cuda.h.
extern "C" {
__global__ void edgekd_suppress_clear(edgekd_suppress_job job);
__global__ void edgekd_candidates_filter_f32(edgekd_suppress_job job);
__global__ void edgekd_candidates_filter_f16(edgekd_suppress_job job);
__global__ void edgekd_candidates_every_f32(edgekd_suppress_job job);
__global__ void edgekd_candidates_every_f16(edgekd_suppress_job job);
__global__ void edgekd_candidates_select(edgekd_suppress_job job);
__global__ void edgekd_nms_shapes_xyxy(edgekd_suppress_job job);
__global__ void edgekd_nms_shapes_xywhr(edgekd_suppress_job job);
__global__ void edgekd_nms_mask_xyxy(edgekd_suppress_job job);
__global__ void edgekd_nms_mask_xywhr(edgekd_suppress_job job);
__global__ void edgekd_nms_mask_probiou(edgekd_suppress_job job);
__global__ void edgekd_nms_scan(edgekd_suppress_job job);
}
