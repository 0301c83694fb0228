// Prepared rotated boxes side by side, field by field, as vector instructions want them.
#pragma once

#include "host.h"
#include "rotated.h"

namespace edgekd {

constexpr int kRotatedFields = 10;

template <typename Real>
struct RotatedLanes {
    Real* fields[kRotatedFields];

    RotatedLanes(Workspace& workspace, int64_t count) {
        for (Real*& field : fields) field = workspace.take<Real>(count);
    }

    void store(int64_t at, const RotatedOf<Real>& box) {
        const Real values[kRotatedFields] = {box.x,   box.y,        box.half_w,   box.half_h, box.cos,
                                             box.sin, box.extent_x, box.extent_y, box.area,   box.angle};
        for (int i = 0; i < kRotatedFields; ++i) fields[i][at] = values[i];
    }

    EDGEKD_INLINE RotatedOf<Real> load(int64_t at) const { return load_lane<Real>(fields, at); }

    // From anything that is indexed by field, then by place.
    template <typename Number, typename Fields>
    static EDGEKD_INLINE RotatedOf<Number> load_lane(const Fields& f, int64_t at) {
        return {f[0][at], f[1][at], f[2][at], f[3][at], f[4][at], f[5][at], f[6][at], f[7][at], f[8][at], f[9][at]};
    }

    Real* areas() const { return fields[8]; }
};

// One of two boxes, field by field, so that it becomes a blend of lanes.
template <typename Real>
EDGEKD_INLINE RotatedOf<Real> choose(bool first, const RotatedOf<Real>& a, const RotatedOf<Real>& b) {
    return {first ? a.x : b.x,
            first ? a.y : b.y,
            first ? a.half_w : b.half_w,
            first ? a.half_h : b.half_h,
            first ? a.cos : b.cos,
            first ? a.sin : b.sin,
            first ? a.extent_x : b.extent_x,
            first ? a.extent_y : b.extent_y,
            first ? a.area : b.area,
            first ? a.angle : b.angle};
}

// What overlap means.
struct ExactIou {
    template <typename Real>
    static EDGEKD_INLINE Real of(const RotatedOf<Real>& frame, const RotatedOf<Real>& other) {
        return iou_of(frame, other);
    }
};

struct ProbIou {
    static EDGEKD_INLINE float of(const Rotated& frame, const Rotated& other) {
        return clamp(probiou_of(frame, other), 0.0f, 1.0f);
    }
};

}  // namespace edgekd
