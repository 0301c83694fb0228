// The arithmetic of an anomaly map: float32 at each step, in this order. See edgekd/geometry/regions.py.
#pragma once

#include <cstdint>

#include "device.h"
#include "resample.h"

namespace edgekd {

constexpr int64_t kMaxRadius = int64_t(1) << 14;

// Where an index beyond a border falls: 2 1 | 0 1 2 3 | 2 1, on and on.
EDGEKD_HOST_DEVICE inline int64_t reflect(int64_t index, int64_t size) {
    if (size == 1) return 0;
    const int64_t period = 2 * (size - 1), folded = (index < 0 ? -index : index) % period;
    return folded < size ? folded : period - folded;
}

// What a weight of 2048 parts is as a float: exact.
EDGEKD_HOST_DEVICE inline float share(int32_t weight) { return float(weight) / float(kOne); }

// Two values blended; between them, as long as their difference is finite.
EDGEKD_HOST_DEVICE inline float between(float first, float second, float share) {
    return first + (second - first) * share;
}

}  // namespace edgekd
