// Letterbox on the GPU: a block makes a tile of 64 x 16 output pixels. The taps of its columns and rows, with their
// 64-bit divisions, are computed once and shared; each thread then makes four pixels. How values are written
// is asked value by value: all threads answer alike, so no warp divides.
#include "colour.h"
#include "edgekd_cuda.h"
#include "launch.h"
#include "letterbox_checks.h"
#include "resample.h"

namespace edgekd {
namespace {

constexpr int kTileWidth = 64, kTileHeight = 16, kLetterboxThreads = 256;
constexpr int64_t kMaxHeight = int64_t(65535) * kTileHeight;  // CUDA has at most 65535 rows of blocks

struct Taps {
    Tap columns[kTileWidth], rows[kTileHeight];
};

// The levels 0..255 of a pixel's three channels, as the frame has them.
struct Levels {
    int32_t first, second, third;
};

// What a frame shows at a pixel, one struct a way to store pixels.
struct Packed {
    const edgekd_frame& frame;

    __device__ Levels at(int64_t y, int64_t x) const {
        const uint8_t* pixel = frame.data + y * frame.row_stride + x * channels_of(frame.pixels);
        const int64_t next = frame.pixels == EDGEKD_GREY ? 0 : 1;
        return {pixel[0], pixel[next], pixel[2 * next]};
    }
};

__device__ inline Levels decode(int32_t y, int32_t u, int32_t v) {
    const Tint both = tint(u, v);
    const int32_t grey = brightness(y);
    return {level(grey + both.red), level(grey + both.green), level(grey + both.blue)};
}

struct Nv12 {
    const edgekd_frame& frame;

    __device__ Levels at(int64_t y, int64_t x) const {
        const uint8_t* pair = frame.chroma + y / 2 * frame.chroma_stride + x / 2 * 2;
        return decode(frame.data[y * frame.row_stride + x], pair[0], pair[1]);
    }
};

struct Yuyv {
    const edgekd_frame& frame;

    __device__ Levels at(int64_t y, int64_t x) const {
        const uint8_t* pair = frame.data + y * frame.row_stride + x / 2 * 4;
        return decode(pair[x % 2 * 2], pair[1], pair[3]);
    }
};

// Whether an output pixel shows the image.
__device__ inline bool inside(int64_t at, int64_t begin, int64_t size) { return at >= begin && at < begin + size; }

__device__ inline void plan(const edgekd_letterbox_job& job, int64_t left, int64_t top, Taps& taps) {
    const edgekd_canvas& to = job.canvas;
    const int thread = int(threadIdx.x);
    if (thread < kTileWidth && inside(left + thread, to.left, to.new_width))
        taps.columns[thread] = tap(left + thread - to.left, job.frame.width, to.new_width);
    const int row = thread - kTileWidth;
    if (row >= 0 && row < kTileHeight && inside(top + row, to.top, to.new_height))
        taps.rows[row] = tap(top + row - to.top, job.frame.height, to.new_height);
}

template <typename Source>
__device__ inline Levels sample(const edgekd_frame& frame, Tap row, Tap column) {
    const Source source{frame};
    const int64_t below = smaller(row.first + 1, frame.height - 1);
    const int64_t right = smaller(column.first + 1, frame.width - 1);
    const Levels a = source.at(row.first, column.first), b = source.at(row.first, right);
    const Levels c = source.at(below, column.first), d = source.at(below, right);
    const int32_t x = column.weight, y = row.weight;
    return {blend_down(blend_across(a.first, b.first, x), blend_across(c.first, d.first, x), y),
            blend_down(blend_across(a.second, b.second, x), blend_across(c.second, d.second, x), y),
            blend_down(blend_across(a.third, b.third, x), blend_across(c.third, d.third, x), y)};
}

__device__ inline void store(const edgekd_canvas& to, int64_t at, int32_t level, float mean, float std) {
    const float value = normalise(level, mean, std);
    if (to.values == EDGEKD_FLOAT32)
        static_cast<float*>(to.data)[at] = value;
    else if (to.values == EDGEKD_FLOAT16)
        static_cast<uint16_t*>(to.data)[at] = half_bits(value);
    else
        static_cast<uint8_t*>(to.data)[at] = uint8_t(quantize(value, quantization(to)));
}

__device__ inline void store(const edgekd_canvas& to, int64_t y, int64_t x, const Levels& levels) {
    const bool planar = to.layout == EDGEKD_NCHW;
    const int64_t first = (y * to.width + x) * (planar ? 1 : 3), next = planar ? to.height * to.width : 1;
    store(to, first, to.swap ? levels.third : levels.first, to.mean[0], to.std[0]);
    store(to, first + next, levels.second, to.mean[1], to.std[1]);
    store(to, first + 2 * next, to.swap ? levels.first : levels.third, to.mean[2], to.std[2]);
}

template <typename Source>
__device__ inline void letterbox(const edgekd_letterbox_job& job, Taps& taps) {
    const edgekd_canvas& to = job.canvas;
    const int64_t left = int64_t(blockIdx.x) * kTileWidth, top = int64_t(blockIdx.y) * kTileHeight;
    plan(job, left, top, taps);
    __syncthreads();
    const int column = int(threadIdx.x) % kTileWidth;
    const int64_t x = left + column;
    for (int row = int(threadIdx.x) / kTileWidth; row < kTileHeight; row += kLetterboxThreads / kTileWidth) {
        const int64_t y = top + row;
        if (x >= to.width || y >= to.height) break;
        Levels levels{to.pad, to.pad, to.pad};
        if (inside(x, to.left, to.new_width) && inside(y, to.top, to.new_height))
            levels = sample<Source>(job.frame, taps.rows[row], taps.columns[column]);
        store(to, y, x, levels);
    }
}

}  // namespace
}  // namespace edgekd

extern "C" __global__ void __launch_bounds__(edgekd::kLetterboxThreads)
    edgekd_letterbox_packed(edgekd_letterbox_job job) {
    __shared__ edgekd::Taps taps;
    edgekd::letterbox<edgekd::Packed>(job, taps);
}

extern "C" __global__ void __launch_bounds__(edgekd::kLetterboxThreads)
    edgekd_letterbox_nv12(edgekd_letterbox_job job) {
    __shared__ edgekd::Taps taps;
    edgekd::letterbox<edgekd::Nv12>(job, taps);
}

extern "C" __global__ void __launch_bounds__(edgekd::kLetterboxThreads)
    edgekd_letterbox_yuyv(edgekd_letterbox_job job) {
    __shared__ edgekd::Taps taps;
    edgekd::letterbox<edgekd::Yuyv>(job, taps);
}

namespace edgekd {
namespace {

unsigned tiles(int64_t pixels, int64_t each) { return unsigned((pixels + each - 1) / each); }

void queue(const edgekd_letterbox_job& job, void* stream) {
    const dim3 grid(tiles(job.canvas.width, kTileWidth), tiles(job.canvas.height, kTileHeight));
    const int32_t pixels = job.frame.pixels;
    if (pixels == EDGEKD_NV12)
        EDGEKD_LAUNCH(edgekd_letterbox_nv12, grid, kLetterboxThreads, stream, job);
    else if (pixels == EDGEKD_YUYV)
        EDGEKD_LAUNCH(edgekd_letterbox_yuyv, grid, kLetterboxThreads, stream, job);
    else
        EDGEKD_LAUNCH(edgekd_letterbox_packed, grid, kLetterboxThreads, stream, job);
}

}  // namespace
}  // namespace edgekd

extern "C" int32_t edgekd_cuda_letterbox(const edgekd_letterbox_job* job, void* stream) {
    if (!job || !edgekd::sound(job->frame) || !edgekd::sound(job->canvas)) return EDGEKD_BAD_ARGUMENT;
    if (job->canvas.height > edgekd::kMaxHeight) return EDGEKD_BAD_ARGUMENT;
    edgekd::forget_errors();
    edgekd::queue(*job, stream);
    return edgekd::launched();
}
