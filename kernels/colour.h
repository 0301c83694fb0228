// Camera frames to RGB, for gcc and nvcc alike: BT.601, limited range, in integers of 20 fractional bits. See
// geometry.yuv_to_rgb; OpenCV's cvtColor has the same coefficients.
#pragma once

#include <cstdint>

#include "device.h"

namespace edgekd {

constexpr int kColourBits = 20;
constexpr int32_t kHalf = 1 << (kColourBits - 1);
constexpr int32_t kBrightness = 1220542, kRedOfV = 1673527, kBlueOfU = 2116026;
constexpr int32_t kGreenOfU = -409993, kGreenOfV = -852492;

// What a block's U and V add to its pixels, with the half that rounds.
struct Tint {
    int32_t red, green, blue;
};

EDGEKD_HOST_DEVICE inline Tint tint(int32_t u, int32_t v) {
    u -= 128;
    v -= 128;
    return {kRedOfV * v + kHalf, kGreenOfU * u + kGreenOfV * v + kHalf, kBlueOfU * u + kHalf};
}

EDGEKD_HOST_DEVICE inline int32_t brightness(int32_t y) { return (y > 16 ? y - 16 : 0) * kBrightness; }

// The sum of the two as a level 0..255; its magnitude is below 2^30.
EDGEKD_HOST_DEVICE inline int32_t level(int32_t sum) {
    const int32_t whole = (sum > 0 ? sum : 0) >> kColourBits;
    return whole < 255 ? whole : 255;
}

}  // namespace edgekd
