// The steps of a letterbox as the compiler makes them.
#include "letterbox_steps.h"

namespace edgekd {
namespace {

template <int kChannels>
void across(const Columns& columns, const uint8_t* source, int32_t* sums) {
    across_from<kChannels>(0, columns, source, sums);
}

void down_float(const int32_t* upper, const int32_t* lower, int32_t weight, const Channel& channel, void* values,
                int64_t count) {
    down_float_from(0, upper, lower, weight, channel, static_cast<float*>(values), count);
}

void down_half(const int32_t* upper, const int32_t* lower, int32_t weight, const Channel& channel, void* values,
               int64_t count) {
    down_half_from(0, upper, lower, weight, channel, static_cast<uint16_t*>(values), count);
}

void down_quantized(const int32_t* upper, const int32_t* lower, int32_t weight, const Channel& channel, void* values,
                    int64_t count) {
    down_quantized_from(0, upper, lower, weight, channel, static_cast<uint8_t*>(values), count);
}

void interleave(const uint8_t* planes, int64_t pitch, int64_t bytes, uint8_t* pixels, int64_t count) {
    if (bytes == 1) interleave_from<1>(0, planes, pitch, pixels, count);
    if (bytes == 2) interleave_from<2>(0, planes, pitch, pixels, count);
    if (bytes == 4) interleave_from<4>(0, planes, pitch, pixels, count);
}

template <int kStep>
void from_yuv(const uint8_t* luma, const uint8_t* chroma, uint8_t* pixels, int64_t pairs) {
    from_yuv_from<kStep>(0, luma, chroma, pixels, pairs);
}

}  // namespace

const Steps kPlainSteps = {across<1>,      across<3>,  across<4>,   down_float, down_half,
                           down_quantized, interleave, from_yuv<1>, from_yuv<2>};

}  // namespace edgekd
