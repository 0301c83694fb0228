// Suppress on the GPU: the sequence of kernels, on the host.
#include "suppress_job.h"

namespace edgekd {
namespace {

bool possible(const edgekd_suppress_job& job) {
    if (job.batch < 1 || job.batch > 65535 || job.rows < 0 || job.classes < 0) return false;
    if (int64_t(job.rows) * job.classes > kMaxScores) return false;
    const bool upright = job.columns == 4 && job.metric == EDGEKD_IOU;
    const bool rotated = job.columns == 5 && (job.metric == EDGEKD_IOU || job.metric == EDGEKD_PROBIOU);
    return (upright || rotated) && job.max_candidates >= 1 && job.max_candidates <= kMaxCandidates && job.max_det >= 1;
}

bool complete(const edgekd_suppress_job& job) {
    if (!job.boxes || !job.scores || !job.out_count) return false;
    if (!job.out_boxes || !job.out_scores || !job.out_labels) return false;
    return job.iou >= 0 && job.iou <= 1 && job.conf == job.conf && reinterpret_cast<uintptr_t>(job.workspace) % 64 == 0;
}

unsigned blocks(int64_t items, int64_t each) { return unsigned(items < 1 ? 1 : (items + each - 1) / each); }

void queue_filter(const edgekd_suppress_job& job, unsigned batch, void* stream) {
    const dim3 rows(blocks(job.rows, kFilterThreads / lanes_of(job.classes)), batch);
    const dim3 scores(blocks(int64_t(job.rows) * job.classes, kFilterThreads * kScoresEach), batch);
    if (job.every_class && job.half_scores)
        EDGEKD_LAUNCH(edgekd_candidates_every_f16, scores, kFilterThreads, stream, job);
    else if (job.every_class)
        EDGEKD_LAUNCH(edgekd_candidates_every_f32, scores, kFilterThreads, stream, job);
    else if (job.half_scores)
        EDGEKD_LAUNCH(edgekd_candidates_filter_f16, rows, kFilterThreads, stream, job);
    else
        EDGEKD_LAUNCH(edgekd_candidates_filter_f32, rows, kFilterThreads, stream, job);
}

void queue(const edgekd_suppress_job& job, void* stream) {
    const unsigned batch = unsigned(job.batch), words = unsigned(Scratch(job).words);
    EDGEKD_LAUNCH(edgekd_suppress_clear, blocks(batch, kFilterThreads), kFilterThreads, stream, job);
    queue_filter(job, batch, stream);
    EDGEKD_LAUNCH(edgekd_candidates_select, batch, kSelectThreads, stream, job);
    const dim3 strips(words, batch), tiles(words + 1, (words + 1) / 2, batch);
    if (job.columns == 4)
        EDGEKD_LAUNCH(edgekd_nms_shapes_xyxy, strips, kShapeThreads, stream, job);
    else
        EDGEKD_LAUNCH(edgekd_nms_shapes_xywhr, strips, kShapeThreads, stream, job);
    if (job.columns == 4)
        EDGEKD_LAUNCH(edgekd_nms_mask_xyxy, tiles, kMaskThreads, stream, job);
    else if (job.metric == EDGEKD_IOU)
        EDGEKD_LAUNCH(edgekd_nms_mask_xywhr, tiles, kMaskThreads, stream, job);
    else
        EDGEKD_LAUNCH(edgekd_nms_mask_probiou, tiles, kMaskThreads, stream, job);
    EDGEKD_LAUNCH(edgekd_nms_scan, batch, kScanThreads, stream, job);
}

}  // namespace
}  // namespace edgekd

extern "C" __global__ void edgekd_suppress_clear(edgekd_suppress_job job) {
    const int64_t image = int64_t(blockIdx.x) * edgekd::kFilterThreads + threadIdx.x;
    if (image < job.batch) edgekd::Scratch(job).found[image] = 0;
}

extern "C" int64_t edgekd_cuda_suppress_workspace(int32_t batch, int32_t rows, int32_t columns, int32_t classes,
                                                  int32_t every_class, int32_t max_candidates) {
    edgekd_suppress_job job{};
    job.batch = batch, job.rows = rows, job.columns = columns, job.classes = classes;
    job.every_class = every_class, job.max_candidates = max_candidates, job.max_det = 1;
    return edgekd::possible(job) ? edgekd::Scratch(job).bytes : int64_t(EDGEKD_BAD_ARGUMENT);
}

extern "C" int32_t edgekd_cuda_suppress(const edgekd_suppress_job* job, void* stream) {
    if (!job || !edgekd::possible(*job) || !edgekd::complete(*job)) return EDGEKD_BAD_ARGUMENT;
    if (!job->workspace || job->workspace_bytes < edgekd::Scratch(*job).bytes) return EDGEKD_SMALL_WORKSPACE;
    edgekd::forget_errors();
    edgekd::queue(*job, stream);
    return edgekd::launched();
}
