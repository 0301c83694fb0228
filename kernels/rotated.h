// The maths of rotated boxes, for gcc and nvcc alike: operation by operation that of edgekd/geometry/rotated.py, which
// says why it is right. Compiled without contraction, so that decisions are the same to the bit on every chip.
#pragma once

#include <cmath>

#include "geometry.h"
#include "trigonometry.h"

namespace edgekd {

template <typename Real>
struct RotatedOf {
    Real x, y, half_w, half_h, cos, sin;
    Real extent_x, extent_y;  // half sides of the upright box around it
    Real area;                // 0: does not count
    Real angle;               // only to put equal boxes in an order
};

using Rotated = RotatedOf<float>;

// Between low and high; NaN becomes low.
template <typename Real>
EDGEKD_HOST_DEVICE inline Real clamp(Real value, Real low, Real high) {
    return value > low ? (value < high ? value : high) : low;
}

// A box (x, y, w, h, angle in radians clockwise); it counts if its area is not 0 afterwards.
template <typename Real>
EDGEKD_HOST_DEVICE inline RotatedOf<Real> prepare(const Real* xywhr) {
    const Real largest = sizeof(Real) == 4 ? Real(kLargestFloat) : Real(1.7976931348623157e308);
    const Real x = xywhr[0], y = xywhr[1], w = xywhr[2], h = xywhr[3], angle = xywhr[4], area = w * h;
    double sine, cosine;
    sin_cos(double(angle), sine, cosine);
    RotatedOf<Real> box{x, y, Real(0.5) * w, Real(0.5) * h, Real(cosine), Real(sine), 0, 0, 0, angle};
    box.extent_x = std::fabs(box.half_w * box.cos) + std::fabs(box.half_h * box.sin);
    box.extent_y = std::fabs(box.half_w * box.sin) + std::fabs(box.half_h * box.cos);
    const bool counts = std::fabs(x) <= largest && std::fabs(y) <= largest && w > 0 && h > 0 && w <= largest &&
                        h <= largest && area > 0 && area <= largest && std::fabs(angle) <= Real(kMaxAngle);
    box.area = counts ? area : Real(0);
    return box;
}

template <typename Real>
EDGEKD_HOST_DEVICE inline bool counts(const RotatedOf<Real>& box) {
    return box.area > 0;
}

// Whether `a` is the frame of the pair: the larger one, equal ones by their numbers, so that (a, b) and (b, a) agree.
template <typename Real>
EDGEKD_HOST_DEVICE inline bool is_frame(const RotatedOf<Real>& a, const RotatedOf<Real>& b) {
    bool first = a.area > b.area, tied = a.area == b.area;
    first |= tied & (a.x < b.x), tied &= a.x == b.x;
    first |= tied & (a.y < b.y), tied &= a.y == b.y;
    first |= tied & (a.half_w < b.half_w), tied &= a.half_w == b.half_w;
    first |= tied & (a.half_h < b.half_h), tied &= a.half_h == b.half_h;
    first |= tied & (a.angle < b.angle), tied &= a.angle == b.angle;
    return first | tied;
}

// The integral of the line from p to q, clamped to +-half_h, over the x of it within +-half_w.
template <typename Real>
EDGEKD_HOST_DEVICE inline Real under(Real px, Real py, Real qx, Real qy, Real half_w, Real half_h) {
    const Real begin = clamp(px, -half_w, half_w), end = clamp(qx, -half_w, half_w);
    const Real run = qx - px, rise = qy - py;
    const Real per_run = Real(1) / (run == 0 ? Real(1) : run);
    const Real y_begin = py + rise * clamp((begin - px) * per_run, Real(0), Real(1));
    const Real y_end = py + rise * clamp((end - px) * per_run, Real(0), Real(1));
    const Real low = clamp(y_begin, -half_h, half_h), high = clamp(y_end, -half_h, half_h);
    const Real climb = y_end - y_begin;
    const Real per_climb = Real(1) / (climb == 0 ? Real(1) : climb);
    const Real share = clamp(((low - y_begin) + (high - y_begin)) * per_climb, Real(0), Real(2));
    return (end - begin) * (high + Real(0.5) * share * (low - high));
}

template <typename Real>
struct Relative {
    Real x, y, cos, sin;  // of the other box in the coordinates of the frame
};

template <typename Real>
EDGEKD_HOST_DEVICE inline Relative<Real> relative(const RotatedOf<Real>& frame, const RotatedOf<Real>& other) {
    const Real dx = other.x - frame.x, dy = other.y - frame.y;
    return {dx * frame.cos + dy * frame.sin, dy * frame.cos - dx * frame.sin,
            frame.cos * other.cos + frame.sin * other.sin, frame.cos * other.sin - frame.sin * other.cos};
}

// Whether a line parallel to a side of one box, or to an axis, has the boxes on its two sides.
template <typename Real>
EDGEKD_HOST_DEVICE inline bool apart(const RotatedOf<Real>& frame, const RotatedOf<Real>& other,
                                     const Relative<Real>& r) {
    const Real c = std::fabs(r.cos), s = std::fabs(r.sin);
    const Real along = r.cos * r.x + r.sin * r.y, across = r.cos * r.y - r.sin * r.x;
    return (std::fabs(other.x - frame.x) > frame.extent_x + other.extent_x) |
           (std::fabs(other.y - frame.y) > frame.extent_y + other.extent_y) |
           (std::fabs(r.x) >= frame.half_w + (c * other.half_w + s * other.half_h)) |
           (std::fabs(r.y) >= frame.half_h + (s * other.half_w + c * other.half_h)) |
           (std::fabs(along) >= other.half_w + (c * frame.half_w + s * frame.half_h)) |
           (std::fabs(across) >= other.half_h + (s * frame.half_w + c * frame.half_h));
}

// The area that two boxes that count have in common: the sum over the edges of `other` of what lies under each.
template <typename Real>
EDGEKD_HOST_DEVICE inline Real intersection(const RotatedOf<Real>& frame, const RotatedOf<Real>& other) {
    const Relative<Real> r = relative(frame, other);
    const Real ux = r.cos * other.half_w, uy = r.sin * other.half_w;
    const Real vx = -(r.sin * other.half_h), vy = r.cos * other.half_h;
    const Real x0 = (r.x - ux) - vx, x1 = (r.x + ux) - vx, x2 = (r.x + ux) + vx, x3 = (r.x - ux) + vx;
    const Real y0 = (r.y - uy) - vy, y1 = (r.y + uy) - vy, y2 = (r.y + uy) + vy, y3 = (r.y - uy) + vy;
    const Real w = frame.half_w, h = frame.half_h;
    const Real sum = (under(x0, y0, x1, y1, w, h) + under(x1, y1, x2, y2, w, h)) +
                     (under(x2, y2, x3, y3, w, h) + under(x3, y3, x0, y0, w, h));
    const Real least = frame.area < other.area ? frame.area : other.area, inter = std::fabs(sum);
    return apart(frame, other, r) ? Real(0) : inter < least ? inter : least;
}

constexpr float kLeastDeterminant = 1e-30f;

// 1 - sqrt(1 - exp(-BD)), BD the Bhattacharyya distance of Gaussians with the variances of the boxes; float32 only.
EDGEKD_HOST_DEVICE inline float probiou_of(const Rotated& frame, const Rotated& other) {
    const Relative<float> r = relative(frame, other);
    const float along = r.cos * r.x + r.sin * r.y, across = r.cos * r.y - r.sin * r.x;
    const float ww = frame.half_w * frame.half_w, hh = frame.half_h * frame.half_h;
    const float other_ww = other.half_w * other.half_w, other_hh = other.half_h * other.half_h;
    const float cc = r.cos * r.cos, ss = r.sin * r.sin;
    const float turned = ww * (other_ww * ss + other_hh * cc) + hh * (other_ww * cc + other_hh * ss);
    const float determinant = (ww * hh + other_ww * other_hh) + turned;
    const float form =
        (hh * (r.x * r.x) + ww * (r.y * r.y)) + (other_hh * (along * along) + other_ww * (across * across));
    const float sizes = (frame.half_w * frame.half_h) * (other.half_w * other.half_h);
    const float shape = std::sqrt((4.0f * sizes) / determinant);
    const float rest = 1.0f - exp_negative(0.75f * (form / determinant)) * shape;
    const float value = 1.0f - std::sqrt(rest < 0.0f ? 0.0f : rest);
    return determinant >= kLeastDeterminant ? value : 0.0f;
}

// The overlap as reported: in [0, 1], NaN is 0.
template <typename Real>
EDGEKD_HOST_DEVICE inline Real iou_of(const RotatedOf<Real>& frame, const RotatedOf<Real>& other) {
    const Real inter = intersection(frame, other);
    return clamp(inter / ((frame.area + other.area) - inter), Real(0), Real(1));
}

// Both in either order; 0 where one does not count.
template <typename Real>
EDGEKD_HOST_DEVICE inline Real iou(const RotatedOf<Real>& a, const RotatedOf<Real>& b) {
    if (!counts(a) || !counts(b)) return 0;
    return is_frame(a, b) ? iou_of(a, b) : iou_of(b, a);
}

EDGEKD_HOST_DEVICE inline float probiou(const Rotated& a, const Rotated& b) {
    if (!counts(a) || !counts(b)) return 0;
    return clamp(is_frame(a, b) ? probiou_of(a, b) : probiou_of(b, a), 0.0f, 1.0f);
}

}  // namespace edgekd
