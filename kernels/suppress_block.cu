// Suppress as one kernel, a block an image: the same steps on the same workspace, one after another. A TensorRT plugin
// holds one kernel, whose parameters are inputs, integers and outputs. Slower than suppress.cu, which has many blocks.
#include <cstring>

#include "suppress_job.h"

namespace edgekd {
namespace {

constexpr int kBlockThreads = kSelectThreads;
static_assert(kBlockThreads == kScanThreads, "the steps share one block");

template <typename Metric>
struct Shared {
    Selection selection;
    Tile<Metric> tile;
    Walk walk;
};

template <typename Metric>
__device__ inline void run_all(const edgekd_suppress_job& job, Shared<Metric>& shared) {
    const Scratch scratch(job);
    const int64_t thread = threadIdx.x, threads = int64_t(job.rows) * lanes_of(job.classes);
    if (thread == 0) scratch.found[0] = 0;
    __syncthreads();
    for (int64_t first = 0; first < threads; first += kBlockThreads) filter<float>(job, 0, first + thread);
    __syncthreads();
    select(job, 0, shared.selection);
    __syncthreads();
    const int64_t n = scratch.count[0];
    for (int64_t rank = thread; rank < n; rank += kBlockThreads) shapes<Metric>(job, 0, rank);
    __syncthreads();
    for (int64_t row = 0; row * kTile < n; ++row) {
        for (int64_t column = row; column * kTile < n; ++column) {
            mask<Metric, kBlockThreads>(job, 0, row, column, shared.tile);
            __syncthreads();  // before the next strips are loaded
        }
    }
    scan(job, 0, shared.walk);
}

// The job of this block's image.
template <typename Metric>
__device__ inline edgekd_suppress_job job_of(const float* boxes, const float* scores, int32_t rows, int32_t classes,
                                             int32_t max_candidates, int32_t max_det, int32_t conf, int32_t iou,
                                             int32_t* out_count, float* out_boxes, float* out_scores,
                                             int32_t* out_labels, void* workspace) {
    constexpr int kColumns = Metric::kColumns;
    const int64_t image = blockIdx.x;
    edgekd_suppress_job job{};
    job.batch = 1, job.rows = rows, job.columns = kColumns, job.classes = classes;
    job.max_candidates = max_candidates, job.max_det = max_det;
    job.conf = __uint_as_float(uint32_t(conf)), job.iou = __uint_as_float(uint32_t(iou));
    job.boxes = boxes + image * rows * kColumns;
    job.scores = scores + image * rows * classes;
    job.out_count = out_count + image;
    job.out_boxes = out_boxes + image * max_det * kColumns;
    job.out_scores = out_scores + image * max_det;
    job.out_labels = out_labels + image * max_det;
    job.workspace = static_cast<char*>(workspace) + image * Scratch(job).bytes;
    return job;
}

bool block_possible(const edgekd_suppress_job& job) {
    const bool plain = !job.half_scores && !job.every_class && !job.allowed && job.metric == EDGEKD_IOU;
    return plain && possible(job) && complete(job);
}

int64_t block_bytes(const edgekd_suppress_job& job) {
    edgekd_suppress_job one = job;
    one.batch = 1;
    return Scratch(one).bytes * job.batch;
}

}  // namespace
}  // namespace edgekd

extern "C" __global__ void __launch_bounds__(edgekd::kBlockThreads)
    edgekd_suppress_block_xyxy(const float* boxes, const float* scores, int32_t rows, int32_t classes,
                               int32_t max_candidates, int32_t max_det, int32_t conf, int32_t iou, int32_t* out_count,
                               float* out_boxes, float* out_scores, int32_t* out_labels, void* workspace) {
    __shared__ edgekd::Shared<edgekd::UprightIou> shared;
    edgekd::run_all(edgekd::job_of<edgekd::UprightIou>(boxes, scores, rows, classes, max_candidates, max_det, conf, iou,
                                                       out_count, out_boxes, out_scores, out_labels, workspace),
                    shared);
}

extern "C" __global__ void __launch_bounds__(edgekd::kBlockThreads)
    edgekd_suppress_block_xywhr(const float* boxes, const float* scores, int32_t rows, int32_t classes,
                                int32_t max_candidates, int32_t max_det, int32_t conf, int32_t iou, int32_t* out_count,
                                float* out_boxes, float* out_scores, int32_t* out_labels, void* workspace) {
    __shared__ edgekd::Shared<edgekd::RotatedIou> shared;
    edgekd::run_all(edgekd::job_of<edgekd::RotatedIou>(boxes, scores, rows, classes, max_candidates, max_det, conf, iou,
                                                       out_count, out_boxes, out_scores, out_labels, workspace),
                    shared);
}

extern "C" int32_t edgekd_cuda_suppress_block(const edgekd_suppress_job* job, void* stream) {
    if (!job || !edgekd::block_possible(*job)) return EDGEKD_BAD_ARGUMENT;
    if (!job->workspace || job->workspace_bytes < edgekd::block_bytes(*job)) return EDGEKD_SMALL_WORKSPACE;
    int32_t conf, iou;
    std::memcpy(&conf, &job->conf, sizeof conf);
    std::memcpy(&iou, &job->iou, sizeof iou);
    const float* scores = static_cast<const float*>(job->scores);
    const unsigned batch = unsigned(job->batch);
    edgekd::forget_errors();
    if (job->columns == 4)
        EDGEKD_LAUNCH(edgekd_suppress_block_xyxy, batch, edgekd::kBlockThreads, stream, job->boxes, scores, job->rows,
                      job->classes, job->max_candidates, job->max_det, conf, iou, job->out_count, job->out_boxes,
                      job->out_scores, job->out_labels, job->workspace);
    else
        EDGEKD_LAUNCH(edgekd_suppress_block_xywhr, batch, edgekd::kBlockThreads, stream, job->boxes, scores, job->rows,
                      job->classes, job->max_candidates, job->max_det, conf, iou, job->out_count, job->out_boxes,
                      job->out_scores, job->out_labels, job->workspace);
    return edgekd::launched();
}
