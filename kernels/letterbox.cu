// Letterbox on the GPU: a block makes a tile of 64 x 16 output pixels. The taps of its columns and rows, with their
// 64-bit divisions, are computed once and shared; each thread then makes four pixels, three planes each.
#include "edgekd_cuda.h"
#include "launch.h"
#include "resample.h"

namespace edgekd {
namespace {

constexpr int kTileWidth = 64, kTileHeight = 16, kLetterboxThreads = 256;
constexpr int32_t kMaxSide = 1 << 24, kMaxHeight = 65535 * kTileHeight;  // CUDA has at most 65535 rows of blocks

struct Taps {
    Tap columns[kTileWidth], rows[kTileHeight];
};

// Rows of adjacent pixels, one byte a channel. Another format is another struct with `at`: the value of network channel
// `plane` (before `swap`) at a pixel, 0..255.
struct PackedBytes {
    const uint8_t* image;
    int64_t row_stride, channels;

    __device__ int32_t at(int64_t y, int64_t x, int plane) const {
        return image[y * row_stride + x * channels + (channels == 1 ? 0 : plane)];
    }
};

// Whether an output pixel shows the image.
__device__ inline bool inside(int64_t at, int64_t begin, int64_t size) { return at >= begin && at < begin + size; }

__device__ inline void plan(const edgekd_letterbox_job& job, int64_t left, int64_t top, Taps& taps) {
    const int thread = int(threadIdx.x);
    if (thread < kTileWidth && inside(left + thread, job.left, job.new_width))
        taps.columns[thread] = tap(left + thread - job.left, job.width, job.new_width);
    const int row = thread - kTileWidth;
    if (row >= 0 && row < kTileHeight && inside(top + row, job.top, job.new_height))
        taps.rows[row] = tap(top + row - job.top, job.height, job.new_height);
}

template <typename Source>
__device__ inline int32_t sample(const edgekd_letterbox_job& job, const Source& source, Tap row, Tap column,
                                 int plane) {
    const int64_t below = row.first + 1 < job.height ? row.first + 1 : row.first;
    const int64_t right = column.first + 1 < job.width ? column.first + 1 : column.first;
    const int32_t upper = blend_across(source.at(row.first, column.first, plane), source.at(row.first, right, plane),
                                       column.weight);
    const int32_t lower = blend_across(source.at(below, column.first, plane), source.at(below, right, plane),
                                       column.weight);
    return blend_down(upper, lower, row.weight);
}

template <typename Source>
__device__ inline void letterbox(const edgekd_letterbox_job& job, const Source& source, Taps& taps) {
    const int64_t left = int64_t(blockIdx.x) * kTileWidth, top = int64_t(blockIdx.y) * kTileHeight;
    plan(job, left, top, taps);
    __syncthreads();
    const int column = int(threadIdx.x) % kTileWidth;
    const int64_t x = left + column, plane_size = int64_t(job.out_height) * job.out_width;
    for (int row = int(threadIdx.x) / kTileWidth; row < kTileHeight; row += kLetterboxThreads / kTileWidth) {
        const int64_t y = top + row;
        if (x >= job.out_width || y >= job.out_height) break;
        const bool shows = inside(x, job.left, job.new_width) && inside(y, job.top, job.new_height);
        for (int c = 0; c < 3; ++c) {
            const int plane = job.swap ? 2 - c : c;
            const int32_t value = shows ? sample(job, source, taps.rows[row], taps.columns[column], plane) : job.pad;
            job.out[c * plane_size + y * job.out_width + x] = normalise(value, job.mean[c], job.std[c]);
        }
    }
}

bool side(int32_t value) { return value >= 1 && value <= kMaxSide; }

bool sound(const edgekd_letterbox_job& job) {
    if (!job.image || !job.out || (job.channels != 1 && job.channels != 3 && job.channels != 4)) return false;
    if (!side(job.height) || !side(job.width) || !side(job.out_height) || !side(job.out_width)) return false;
    if (!side(job.new_height) || !side(job.new_width) || job.left < 0 || job.top < 0) return false;
    if (job.out_height > kMaxHeight) return false;
    if (job.new_width > job.out_width - job.left || job.new_height > job.out_height - job.top) return false;
    return job.std[0] > 0 && job.std[1] > 0 && job.std[2] > 0 && job.pad >= 0 && job.pad <= 255;
}

}  // namespace
}  // namespace edgekd

extern "C" __global__ void __launch_bounds__(edgekd::kLetterboxThreads) edgekd_letterbox_u8(edgekd_letterbox_job job) {
    __shared__ edgekd::Taps taps;
    edgekd::letterbox(job, edgekd::PackedBytes{job.image, job.row_stride, job.channels}, taps);
}

extern "C" int32_t edgekd_cuda_letterbox(const edgekd_letterbox_job* job, void* stream) {
    if (!job || !edgekd::sound(*job)) return EDGEKD_BAD_ARGUMENT;
    const dim3 grid(unsigned(job->out_width + edgekd::kTileWidth - 1) / edgekd::kTileWidth,
                    unsigned(job->out_height + edgekd::kTileHeight - 1) / edgekd::kTileHeight);
    EDGEKD_LAUNCH(edgekd_letterbox_u8, grid, edgekd::kLetterboxThreads, stream, *job);
    return edgekd::launched();
}
