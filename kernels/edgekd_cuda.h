/* The C ABI of edgekd's CUDA kernels: what edgekd_kernels.h computes on the host, for a batch, on a stream. Raw device
 * pointers, sizes, a caller's workspace, a status code. No allocation, no global state, no synchronisation: a call only
 * queues kernels whose launch does not depend on the data, so a CUDA graph may capture it. To the bit, the results are
 * those of edgekd/geometry/.
 *
 * Every kernel of an operation takes the operation's job, whole and by value, as its only parameter (but for those of
 * edgekd_cuda_suppress_block). So a fatbin (build_fatbin.py) may be used without these functions: pack the struct,
 * launch the kernels below by name, in order. Whoever does so makes sure of the ranges himself: kernels check nothing.
 */
#ifndef EDGEKD_CUDA_H
#define EDGEKD_CUDA_H

#include <stdint.h>

#include "edgekd_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One more status beside those of edgekd_kernels.h: CUDA refused a launch. What cudaGetLastError would have told of the
 * calls before is lost. */
enum edgekd_cuda_status { EDGEKD_CUDA_FAILED = -4 };

/* Suppress: per image, candidates of its scores, NMS by label on their boxes, the first `max_det`; always padded.
 *
 * Candidates are the rows whose best class scores more than `conf`; or, if `every_class` is not 0, each class of a row
 * that does, in an order of (score descending, row ascending, class ascending).
 *
 * Ranges: batch 1..65535; rows, classes >= 0, and rows * classes < 2^32; columns 4 (metric EDGEKD_IOU only) or 5;
 *   max_candidates 1..4096; max_det >= 1; iou 0..1; conf not NaN; workspace on 64 bytes; no pointer null but `allowed`.
 *
 * kernel                                           grid                                     block
 * edgekd_suppress_clear                            ceil(batch / 256)                        256
 * edgekd_candidates_filter_f32 or _f16             max(1, ceil(rows / (256 / L))), batch    256
 *   or, for every class,
 * edgekd_candidates_every_f32 or _f16              max(1, ceil(scores / 1024)), batch       256
 * edgekd_candidates_select                         batch                                    512
 * edgekd_nms_shapes_xyxy or _xywhr                 W, batch                                 64
 * edgekd_nms_mask_xyxy, _xywhr or _probiou         W + 1, ceil(W / 2), batch                256
 * edgekd_nms_scan                                  batch                                    512
 *
 * scores = rows * classes. L, the threads that share a row: the largest power of two <= classes / 4, within 1..32.
 * W: ceil(limit / 64), with limit = max(1, min(most, max_candidates)), where `most` is how many candidates an image can
 * have: rows, or scores for every class.
 *
 * The workspace holds, for an image, 8 bytes for each of `most`: the best are known when all have been seen. And for
 * each of `limit` 32 bytes, 52 where boxes are rotated, and W * 8. With 8400 rows, 80 classes and 1000 candidates that
 * is 0.23 MB an image, and 5.5 MB for every class. */
struct edgekd_suppress_job {
    const float* boxes;     /* (batch, rows, columns): xyxy, or xywhr */
    const void* scores;     /* (batch, rows, classes): float, or IEEE half where `half_scores` is not 0 */
    const uint8_t* allowed; /* (classes), not 0 where a class competes, or null for all */
    int32_t* out_count;     /* (batch) */
    float* out_boxes;       /* (batch, max_det, columns), then zeros */
    float* out_scores;      /* (batch, max_det), then zeros */
    int32_t* out_labels;    /* (batch, max_det), then -1 */
    void* workspace;
    int64_t workspace_bytes;
    int32_t batch, rows, columns, classes, half_scores, every_class, metric, max_candidates, max_det;
    float conf, iou;
};
int64_t edgekd_cuda_suppress_workspace(int32_t batch, int32_t rows, int32_t columns, int32_t classes,
                                       int32_t every_class, int32_t max_candidates);
int32_t edgekd_cuda_suppress(const struct edgekd_suppress_job* job, void* stream);

/* The same in one kernel, for those who can launch but one, as a TensorRT plugin: float32 scores, a row's best class,
 * `allowed` null, metric EDGEKD_IOU. The workspace is that of one image, once for each of the batch.
 *
 * kernel                                           grid                                     block
 * edgekd_suppress_block_xyxy or _xywhr             batch                                    512
 *
 * Unlike the others it takes its parameters one by one, each 32-bit integer by value, thresholds as the bits of a
 * float: boxes, scores, rows, classes, max_candidates, max_det, conf, iou, out_count, out_boxes, out_scores,
 * out_labels, workspace. */
int32_t edgekd_cuda_suppress_block(const struct edgekd_suppress_job* job, void* stream);

/* Letterbox of one image: see edgekd_letterbox. `frame.data`, `frame.chroma` and `canvas.data` are on the device; the
 *   ranges are those of edgekd_frame and edgekd_canvas, but canvas.height is at most 65535 * 16.
 *
 * kernel                                      grid                                                block
 * edgekd_letterbox_packed, _nv12 or _yuyv     ceil(canvas.width / 64), ceil(canvas.height / 16)   256
 *
 * _packed: grey, three and four bytes a pixel. */
struct edgekd_letterbox_job {
    struct edgekd_frame frame;
    struct edgekd_canvas canvas;
};
int32_t edgekd_cuda_letterbox(const struct edgekd_letterbox_job* job, void* stream);

#ifdef __cplusplus
}
#endif

#endif
