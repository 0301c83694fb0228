// Overlap of every box with every other, on the host: prepared once each, sixteen pairs a pass.
#include "greedy.h"
#include "rotated_lanes.h"

namespace edgekd {
namespace {

constexpr int64_t kLanes = 16;

int64_t padded(int64_t count) { return (count + kLanes - 1) / kLanes * kLanes; }

// Upright boxes side by side.
struct UprightRow {
    using Real = float;
    static constexpr int64_t kColumns = 4;
    float* fields[5];

    UprightRow(Workspace& workspace, int64_t m) {
        for (float*& field : fields) field = workspace.take<float>(padded(m));
    }

    void store(int64_t at, const float* b) {
        const Box box = b ? Box{b[0], b[1], b[2], b[3]} : Box{};
        const float values[5] = {box.x1, box.y1, box.x2, box.y2, counts(box) ? area(box) : 0};
        for (int i = 0; i < 5; ++i) fields[i][at] = values[i];
    }

    struct Query {
        Box box;
        float size;
    };

    static Query query(const float* a) {
        const Box box{a[0], a[1], a[2], a[3]};
        return {box, counts(box) ? area(box) : 0};
    }

    EDGEKD_INLINE float overlap(const Query& q, int64_t j) const {
        const float value = iou(q.box, q.size, {fields[0][j], fields[1][j], fields[2][j], fields[3][j]}, fields[4][j]);
        return (q.size > 0) & (fields[4][j] > 0) ? value : 0;
    }
};

template <typename Number, typename Metric>
struct RotatedRow {
    using Real = Number;
    using Query = RotatedOf<Real>;
    static constexpr int64_t kColumns = 5;
    RotatedLanes<Real> lanes;

    RotatedRow(Workspace& workspace, int64_t m) : lanes(workspace, padded(m)) {}

    void store(int64_t at, const Real* b) { lanes.store(at, b ? prepare(b) : RotatedOf<Real>{}); }
    static Query query(const Real* a) { return prepare(a); }

    EDGEKD_INLINE Real overlap(const Query& q, int64_t j) const {
        const RotatedOf<Real> other = lanes.load(j);
        const bool first = is_frame(q, other);
        const Real value = Metric::of(choose(first, q, other), choose(first, other, q));
        return (q.area > 0) & (other.area > 0) ? value : Real(0);
    }
};

template <typename Row>
EDGEKD_INLINE void rows_plain(const typename Row::Real* a, int64_t n, const Row& row, int64_t m,
                              typename Row::Real* out) {
    for (int64_t i = 0; i < n; ++i) {
        const typename Row::Query query = Row::query(a + Row::kColumns * i);
        for (int64_t first = 0; first < m; first += kLanes) {
            alignas(64) typename Row::Real values[kLanes];
            for (int64_t k = 0; k < kLanes; ++k) values[k] = row.overlap(query, first + k);
            std::copy_n(values, std::min(kLanes, m - first), out + i * m + first);
        }
    }
}

#if EDGEKD_HAS_AVX
template <typename Row>
EDGEKD_TARGET_AVX2 void rows_avx2(const typename Row::Real* a, int64_t n, const Row& row, int64_t m,
                                  typename Row::Real* out) {
    rows_plain(a, n, row, m, out);
}

template <typename Row>
EDGEKD_TARGET_AVX512 void rows_avx512(const typename Row::Real* a, int64_t n, const Row& row, int64_t m,
                                      typename Row::Real* out) {
    rows_plain(a, n, row, m, out);
}
#endif

template <typename Row>
int64_t workspace_for(int64_t m) {
    if (m < 0 || m > kMaxCount) return EDGEKD_BAD_ARGUMENT;
    Workspace workspace;
    Row row(workspace, m);
    return workspace.needed();
}

template <typename Row>
int32_t run(const typename Row::Real* a, int64_t n, const typename Row::Real* b, int64_t m, typename Row::Real* out,
            int32_t instructions, void* memory, int64_t bytes) {
    if (!a || !b || !out || n < 0 || n > kMaxCount || m < 0 || m > kMaxCount) return EDGEKD_BAD_ARGUMENT;
    const int32_t chosen = resolve(instructions);
    if (chosen < 0) return chosen;
    Workspace workspace(memory, bytes);
    Row row(workspace, m);
    if (!workspace.fits()) return EDGEKD_SMALL_WORKSPACE;
    for (int64_t at = 0; at < padded(m); ++at) row.store(at, at < m ? b + Row::kColumns * at : nullptr);
#if EDGEKD_HAS_AVX
    if (chosen == EDGEKD_AVX512) return rows_avx512(a, n, row, m, out), EDGEKD_OK;
    if (chosen == EDGEKD_AVX2) return rows_avx2(a, n, row, m, out), EDGEKD_OK;
#endif
    return rows_plain(a, n, row, m, out), EDGEKD_OK;
}

using ExactRow = RotatedRow<float, ExactIou>;
using ProbRow = RotatedRow<float, ProbIou>;
using Float64Row = RotatedRow<double, ExactIou>;

}  // namespace
}  // namespace edgekd

extern "C" int64_t edgekd_iou_workspace(int64_t m) { return edgekd::workspace_for<edgekd::UprightRow>(m); }

extern "C" int32_t edgekd_iou(const float* a, int64_t n, const float* b, int64_t m, float* out, int32_t instructions,
                              void* workspace, int64_t workspace_bytes) {
    return edgekd::run<edgekd::UprightRow>(a, n, b, m, out, instructions, workspace, workspace_bytes);
}

extern "C" int64_t edgekd_iou_rotated_workspace(int64_t m) { return edgekd::workspace_for<edgekd::ExactRow>(m); }

extern "C" int32_t edgekd_iou_rotated(const float* a, int64_t n, const float* b, int64_t m, int32_t metric, float* out,
                                      int32_t instructions, void* workspace, int64_t workspace_bytes) {
    if (metric == EDGEKD_IOU)
        return edgekd::run<edgekd::ExactRow>(a, n, b, m, out, instructions, workspace, workspace_bytes);
    if (metric == EDGEKD_PROBIOU)
        return edgekd::run<edgekd::ProbRow>(a, n, b, m, out, instructions, workspace, workspace_bytes);
    return EDGEKD_BAD_ARGUMENT;
}

extern "C" int64_t edgekd_iou_rotated_float64_workspace(int64_t m) {
    return edgekd::workspace_for<edgekd::Float64Row>(m);
}

extern "C" int32_t edgekd_iou_rotated_float64(const double* a, int64_t n, const double* b, int64_t m, double* out,
                                              int32_t instructions, void* workspace, int64_t workspace_bytes) {
    return edgekd::run<edgekd::Float64Row>(a, n, b, m, out, instructions, workspace, workspace_bytes);
}
