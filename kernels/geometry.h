// The maths of boxes, for gcc and nvcc alike. Compiled without floating-point contraction: each step is rounded to
// float32, so that decisions are those of edgekd/geometry/, to the bit.
#pragma once

#include "device.h"

namespace edgekd {

struct Box {
    float x1, y1, x2, y2;
};

EDGEKD_HOST_DEVICE inline float smaller(float a, float b) { return a < b ? a : b; }
EDGEKD_HOST_DEVICE inline float larger(float a, float b) { return a > b ? a : b; }

EDGEKD_HOST_DEVICE inline float area(Box box) { return (box.x2 - box.x1) * (box.y2 - box.y1); }

constexpr float kLargestFloat = 3.402823466e+38f;

EDGEKD_HOST_DEVICE inline bool finite(float value) { return value >= -kLargestFloat && value <= kLargestFloat; }

// A box counts if its sides and its area are positive and finite; with NaN or Inf anywhere it does not.
EDGEKD_HOST_DEVICE inline bool counts(Box box) {
    const float size = area(box);
    return box.x2 - box.x1 > 0 && box.y2 - box.y1 > 0 && size > 0 && size <= kLargestFloat;
}

// Intersection over union of two boxes that count.
EDGEKD_HOST_DEVICE inline float iou(Box a, float area_a, Box b, float area_b) {
    const float width = larger(smaller(a.x2, b.x2) - larger(a.x1, b.x1), 0.0f);
    const float height = larger(smaller(a.y2, b.y2) - larger(a.y1, b.y1), 0.0f);
    const float inter = width * height;
    return inter / ((area_a + area_b) - inter);
}

}  // namespace edgekd
