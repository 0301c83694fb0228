/* The C ABI of edgekd's kernels: raw pointers, sizes, a caller's workspace, a status code. No global state, no
 * allocation; inputs are not written; every function may be called from any number of threads at once, each with its
 * own workspace. `build_cffi.py` reads the declarations below as they stand. The semantics, to the bit, are those of
 * edgekd/geometry/. */
#ifndef EDGEKD_KERNELS_H
#define EDGEKD_KERNELS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Status codes. */
enum edgekd_status {
    EDGEKD_OK = 0,
    EDGEKD_BAD_ARGUMENT = -1,    /* a null pointer, a size or a value outside its range */
    EDGEKD_SMALL_WORKSPACE = -2, /* less than the matching ..._workspace() says */
    EDGEKD_UNSUPPORTED = -3      /* this machine lacks the requested instructions */
};

/* Which instructions a call may use; all give the same bits. */
enum edgekd_instructions { EDGEKD_BEST = 0, EDGEKD_PLAIN = 1, EDGEKD_AVX2 = 2, EDGEKD_AVX512 = 3, EDGEKD_NEON = 4 };

/* What EDGEKD_BEST means on this machine; and whether it can run these: 1 or 0. */
int32_t edgekd_best_instructions(void);
int32_t edgekd_supports(int32_t instructions);

/* How the pixels of a frame lie in memory. The last two are limited-range BT.601. */
enum edgekd_pixels {
    EDGEKD_GREY = 0,  /* 1 byte a pixel */
    EDGEKD_THREE = 1, /* 3 bytes a pixel, B G R or R G B */
    EDGEKD_FOUR = 2,  /* 4 bytes a pixel; the fourth is ignored */
    EDGEKD_NV12 = 3,  /* a plane of Y; and a plane of U V, each such pair for 2 x 2 pixels */
    EDGEKD_YUYV = 4   /* Y U Y V: 4 bytes for 2 pixels of a row */
};
enum edgekd_values { EDGEKD_FLOAT32 = 0, EDGEKD_FLOAT16 = 1, EDGEKD_UINT8 = 2, EDGEKD_INT8 = 3 };
enum edgekd_layout { EDGEKD_NCHW = 0, EDGEKD_NHWC = 1 }; /* planes (3, height, width), or pixels (height, width, 3) */

/* An image to read. A row's pixels are adjacent; rows may be any number of bytes apart, negative where they are stored
 * bottom up: a crop of a larger frame is read where it lies. Nothing outside the height * width pixels is read. */
typedef struct edgekd_frame {
    const uint8_t* data;   /* first byte of the first row; of NV12: of Y */
    const uint8_t* chroma; /* NV12: first byte of the first row of U V; others: not looked at */
    int64_t row_stride;    /* bytes, of magnitude 2^38 at most */
    int64_t chroma_stride; /* likewise */
    int64_t height;        /* pixels, 1 to 2^24; even for NV12 */
    int64_t width;         /* pixels, 1 to 2^24; even for NV12 and YUYV */
    int32_t pixels;        /* edgekd_pixels */
} edgekd_frame;

/* The network's input to write, all of it: the image goes in the rectangle at (left, top), resized; `pad` around it. */
typedef struct edgekd_canvas {
    void* data;     /* (3, height, width) or (height, width, 3), contiguous, aligned to its values */
    int64_t height; /* pixels, 1 to 2^24, as of the next three */
    int64_t width;
    int64_t new_height; /* the resized image and its place: from edgekd.geometry.place */
    int64_t new_width;
    int64_t left;
    int64_t top;
    int32_t values;     /* edgekd_values */
    int32_t layout;     /* edgekd_layout */
    int32_t swap;       /* not 0: reverse the order of the three channels; NV12 and YUYV are decoded to R G B */
    int32_t pad;        /* grey level, 0..255 */
    float mean[3];      /* in 0..255 units, in the order of the output channels; finite */
    float std[3];       /* likewise; positive, finite and not subnormal, as of `scale` */
    float scale;        /* integers are value / scale + zero_point; of the other types neither is looked at */
    int32_t zero_point; /* in the range of the type */
} edgekd_canvas;

/* Letterbox: resize, pad, order of channels, normalise, quantize, in one pass. frame.width and canvas.new_width say how
 * much workspace.
 *
 * keep_border: not 0: what lies around the image is left as it is, because a call before has written it. */
int64_t edgekd_letterbox_workspace(int64_t width, int64_t new_width);
int32_t edgekd_letterbox(const edgekd_frame* frame, const edgekd_canvas* canvas, int32_t keep_border,
                         int32_t instructions, void* workspace, int64_t workspace_bytes);

/* Candidates of scores (n, classes): rows whose best class scores more than `conf`, or, if `every_class` is not 0, each
 * class of a row that does; by (score descending, row ascending, class ascending).
 *
 * allowed: (classes) bytes, not 0 where a class competes, or null for all. At most `limit` are written to
 * rows, labels, best; their number goes to *count. */
int64_t edgekd_candidates_workspace(int64_t n, int64_t classes, int32_t every_class, int64_t limit);
int32_t edgekd_candidates(const float* scores, int64_t n, int64_t classes, float conf, int32_t every_class,
                          int64_t limit, const uint8_t* allowed, int64_t* rows, int64_t* labels, float* best,
                          int64_t* count, int32_t instructions, void* workspace, int64_t workspace_bytes);

/* NMS: exact greedy suppression of boxes (n, 4) xyxy, by label inside the comparison, strict iou, ties by index.
 *
 * labels: (n), each in int32's range, or null: all of one. At most `limit` indices are written to `keep`, best score
 * first; their number goes to *count. */
int64_t edgekd_nms_workspace(int64_t n);
int32_t edgekd_nms(const float* boxes, const float* scores, const int64_t* labels, int64_t n, float iou, int64_t limit,
                   int64_t* keep, int64_t* count, int32_t instructions, void* workspace, int64_t workspace_bytes);

/* The same of rotated boxes (n, 5): centre x, centre y, w, h, angle in radians clockwise. `metric` says what is
 * compared with `iou`. */
enum edgekd_metric { EDGEKD_IOU = 0, EDGEKD_PROBIOU = 1 };
int64_t edgekd_nms_rotated_workspace(int64_t n);
int32_t edgekd_nms_rotated(const float* boxes, const float* scores, const int64_t* labels, int64_t n, float iou,
                           int32_t metric, int64_t limit, int64_t* keep, int64_t* count, int32_t instructions,
                           void* workspace, int64_t workspace_bytes);

/* Suppress: candidates of scores (n, classes), NMS by label on their boxes (n, columns), the first `max_det`.
 *
 * columns: 4, upright, metric EDGEKD_IOU only; or 5, rotated. Only the boxes of candidates are read.
 * out_boxes (max_det, columns), out_scores (max_det), out_labels (max_det). */
int64_t edgekd_suppress_workspace(int64_t n, int64_t columns, int64_t classes, int32_t every_class,
                                  int64_t max_candidates);
int32_t edgekd_suppress(const float* boxes, int64_t columns, const float* scores, int64_t n, int64_t classes,
                        float conf, int32_t every_class, float iou, int32_t metric, int64_t max_candidates,
                        int64_t max_det, const uint8_t* allowed, float* out_boxes, float* out_scores,
                        int64_t* out_labels, int64_t* count, int32_t instructions, void* workspace,
                        int64_t workspace_bytes);

/* Merge of overlapping tiles: rotated boxes (n, 5) in pixels of the whole image, each found in tile tiles[i], cut[i]
 * not 0 where the border of its tile may have cut it. Whole boxes come before cut ones, then by score. A box goes if
 * one that stays, of its label, overlaps it by more than `iou`; a cut one also if one of another tile covers more than
 * `iof` of its area. All kept indices are written to `keep` (n), best score first. */
int64_t edgekd_merge_tiles_workspace(int64_t n);
int32_t edgekd_merge_tiles(const float* boxes, const float* scores, const int64_t* labels, const int64_t* tiles,
                           const uint8_t* cut, int64_t n, float iou, float iof, int64_t* keep, int64_t* count,
                           int32_t instructions, void* workspace, int64_t workspace_bytes);

/* Overlap of each of n rotated boxes with each of m: out (n, m). float64 for evaluation, IoU only. */
int64_t edgekd_iou_rotated_workspace(int64_t m);
int32_t edgekd_iou_rotated(const float* a, int64_t n, const float* b, int64_t m, int32_t metric, float* out,
                           int32_t instructions, void* workspace, int64_t workspace_bytes);
int64_t edgekd_iou_rotated_float64_workspace(int64_t m);
int32_t edgekd_iou_rotated_float64(const double* a, int64_t n, const double* b, int64_t m, double* out,
                                   int32_t instructions, void* workspace, int64_t workspace_bytes);

/* The same of upright boxes (n, 4) and (m, 4) xyxy. */
int64_t edgekd_iou_workspace(int64_t m);
int32_t edgekd_iou(const float* a, int64_t n, const float* b, int64_t m, float* out, int32_t instructions,
                   void* workspace, int64_t workspace_bytes);

/* Regions: an anomaly map (height, width) -> blurred, resized to (out_height, out_width), > threshold, 8-connected
 * components by (peak descending, first pixel in raster order).
 *
 * weights: (radius + 1) finite values of a symmetric blur, the middle one first; {1}, radius 0: none. radius: 0..2^14.
 * out_map, out_mask: (out_height, out_width), at most 2^32 pixels; they overlap neither each other nor `map`. The mask
 *   is 1 where a pixel is above the threshold, in a component of at least `min_area` pixels; else 0.
 * At most `limit` components are written to boxes (limit, 4), areas, peaks; their number goes to *count. */
int64_t edgekd_regions_workspace(int64_t width, int64_t radius, int64_t out_height, int64_t out_width);
int32_t edgekd_regions(const float* map, int64_t height, int64_t width, const float* weights, int64_t radius,
                       float* out_map, uint8_t* out_mask, int64_t out_height, int64_t out_width, float threshold,
                       int64_t min_area, int64_t limit, float* boxes, int64_t* areas, float* peaks, int64_t* count,
                       int32_t instructions, void* workspace, int64_t workspace_bytes);

#ifdef __cplusplus
}
#endif

#endif
