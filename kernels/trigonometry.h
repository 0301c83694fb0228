// Sine, cosine and exponential from products and sums alone: those of two mathematical libraries differ in the last
// bit. See edgekd/geometry/rotated.py.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "device.h"

namespace edgekd {

constexpr double kMaxAngle = 1048576.0;  // radians

// Of an angle in radians; beyond kMaxAngle, or not finite, it counts as 0.
EDGEKD_HOST_DEVICE inline void sin_cos(double angle, double& sine, double& cosine) {
    const double x = angle >= -kMaxAngle && angle <= kMaxAngle ? angle : 0.0;
    const double quarters = std::floor(x * 0.6366197723675814 + 0.5);
    const double rest = (x - quarters * (6746518852.0 / 4294967296.0)) - quarters * 6.077100506506192e-11;
    const double square = rest * rest;
    double s = -1.0 / 1307674368000.0;
    s = s * square + 1.0 / 6227020800.0;
    s = s * square + -1.0 / 39916800.0;
    s = s * square + 1.0 / 362880.0;
    s = s * square + -1.0 / 5040.0;
    s = s * square + 1.0 / 120.0;
    s = s * square + -1.0 / 6.0;
    double c = 1.0 / 20922789888000.0;
    c = c * square + -1.0 / 87178291200.0;
    c = c * square + 1.0 / 479001600.0;
    c = c * square + -1.0 / 3628800.0;
    c = c * square + 1.0 / 40320.0;
    c = c * square + -1.0 / 720.0;
    c = c * square + 1.0 / 24.0;
    c = c * square + -1.0 / 2.0;
    s = rest + rest * (square * s);
    c = 1.0 + square * c;
    const double turn = quarters - 4.0 * std::floor(quarters * 0.25);
    const bool swapped = turn == 1.0 || turn == 3.0;
    sine = swapped ? c : s;
    cosine = swapped ? s : c;
    if (turn >= 2.0) sine = -sine;
    if (turn == 1.0 || turn == 2.0) cosine = -cosine;
}

// exp(-x) for x >= 0; 0 from 87 on and for NaN.
EDGEKD_HOST_DEVICE inline float exp_negative(float x) {
    const bool near = x < 87.0f;
    x = near ? x : 0.0f;
    const float halvings = std::floor(x * 1.4426950408889634f + 0.5f);
    const float rest = (x - halvings * 0.693359375f) - halvings * -2.1219444005469058e-4f;
    float value = -1.0f / 5040.0f;
    value = value * rest + 1.0f / 720.0f;
    value = value * rest + -1.0f / 120.0f;
    value = value * rest + 1.0f / 24.0f;
    value = value * rest + -1.0f / 6.0f;
    value = value * rest + 0.5f;
    value = value * rest + -1.0f;
    value = value * rest + 1.0f;
    const int32_t bits = (127 - int32_t(halvings)) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return near ? value * power : 0.0f;
}

}  // namespace edgekd
