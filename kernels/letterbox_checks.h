// What a frame and a canvas may hold, on the host and on the GPU; and what follows from their types.
#pragma once

#include <cmath>
#include <cstdint>

#include "device.h"
#include "edgekd_kernels.h"
#include "resample.h"

namespace edgekd {

constexpr int64_t kMaxSide = int64_t(1) << 24, kMaxStride = int64_t(1) << 38;

inline int64_t bytes_of_value(int32_t values) {
    return values == EDGEKD_FLOAT32 ? 4 : values == EDGEKD_FLOAT16 ? 2 : 1;
}

// Bytes from one interleaved pixel to the next: a decoded camera frame has four.
EDGEKD_HOST_DEVICE inline int64_t channels_of(int32_t pixels) {
    return pixels == EDGEKD_GREY ? 1 : pixels == EDGEKD_THREE ? 3 : 4;
}

inline bool quantizes(int32_t values) { return values == EDGEKD_UINT8 || values == EDGEKD_INT8; }

EDGEKD_HOST_DEVICE inline Quantization quantization(const edgekd_canvas& canvas) {
    const bool is_signed = canvas.values == EDGEKD_INT8;
    return {canvas.scale, canvas.zero_point, is_signed ? -128 : 0, is_signed ? 127 : 255};
}

inline bool side(int64_t value) { return value >= 1 && value <= kMaxSide; }

inline bool stride(int64_t value) { return value >= -kMaxStride && value <= kMaxStride; }

inline bool divisor(float value) { return std::isnormal(value) && value > 0; }

inline bool sound(const edgekd_frame& frame) {
    if (!frame.data || !side(frame.height) || !side(frame.width) || !stride(frame.row_stride)) return false;
    if (frame.pixels < EDGEKD_GREY || frame.pixels > EDGEKD_YUYV) return false;
    if (frame.pixels == EDGEKD_GREY || frame.pixels == EDGEKD_THREE || frame.pixels == EDGEKD_FOUR) return true;
    if (frame.width % 2 != 0) return false;
    return frame.pixels == EDGEKD_YUYV || (frame.height % 2 == 0 && frame.chroma && stride(frame.chroma_stride));
}

inline bool placed(const edgekd_canvas& canvas) {
    for (const int64_t value : {canvas.height, canvas.width, canvas.new_height, canvas.new_width}) {
        if (!side(value)) return false;
    }
    if (canvas.left < 0 || canvas.top < 0 || canvas.left > kMaxSide || canvas.top > kMaxSide) return false;
    return canvas.left + canvas.new_width <= canvas.width && canvas.top + canvas.new_height <= canvas.height;
}

inline bool sound(const edgekd_canvas& canvas) {
    if (canvas.values < EDGEKD_FLOAT32 || canvas.values > EDGEKD_INT8) return false;
    if (canvas.layout != EDGEKD_NCHW && canvas.layout != EDGEKD_NHWC) return false;
    if (!canvas.data || reinterpret_cast<intptr_t>(canvas.data) % bytes_of_value(canvas.values) != 0) return false;
    if (!placed(canvas) || canvas.pad < 0 || canvas.pad > 255) return false;
    for (int c = 0; c < 3; ++c) {
        if (!std::isfinite(canvas.mean[c]) || !divisor(canvas.std[c])) return false;
    }
    if (!quantizes(canvas.values)) return true;
    const Quantization to = quantization(canvas);
    return divisor(to.scale) && to.zero_point >= to.lowest && to.zero_point <= to.highest;
}

}  // namespace edgekd
