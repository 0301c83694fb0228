// The NEON intrinsics that the letterbox uses, lane by lane in plain C++, so that its logic runs on any machine. What
// they do is written from Arm's description; a compiler for Arm has the last word.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

template <typename T, int N>
struct Lanes {
    T at[N];
};

using uint8x8_t = Lanes<uint8_t, 8>;
using uint8x16_t = Lanes<uint8_t, 16>;
using uint16x4_t = Lanes<uint16_t, 4>;
using uint16x8_t = Lanes<uint16_t, 8>;
using uint32x2_t = Lanes<uint32_t, 2>;
using uint32x4_t = Lanes<uint32_t, 4>;
using int16x4_t = Lanes<int16_t, 4>;
using int16x8_t = Lanes<int16_t, 8>;
using int32x4_t = Lanes<int32_t, 4>;
using float32x4_t = Lanes<float, 4>;
struct float16x4_t {
    uint16_t at[4];
};
struct uint8x8x2_t {
    uint8x8_t val[2];
};
struct uint8x8x4_t {
    uint8x8_t val[4];
};
struct uint8x16x3_t {
    uint8x16_t val[3];
};
struct uint8x16x4_t {
    uint8x16_t val[4];
};
struct uint16x8x3_t {
    uint16x8_t val[3];
};
struct float32x4x3_t {
    float32x4_t val[3];
};

template <typename R, typename F>
R each(F f) {
    R r;
    for (int i = 0; i < int(sizeof r.at / sizeof r.at[0]); ++i) r.at[i] = f(i);
    return r;
}

template <typename R, typename A>
R same(A a) {
    static_assert(sizeof(R) == sizeof(A), "as many bits");
    R r;
    std::memcpy(&r, &a, sizeof r);
    return r;
}

template <typename R, typename T>
R loaded(const T* p) {
    R r;
    std::memcpy(&r, p, sizeof r);
    return r;
}

template <int kPlanes, typename R, typename T>
R unzipped(const T* p) {
    R r;
    constexpr int kCount = int(sizeof r / sizeof(T));
    for (int i = 0; i < kCount; ++i) r.val[i % kPlanes].at[i / kPlanes] = p[i];
    return r;
}

template <int kPlanes, typename V, typename T>
void zipped(T* p, V v) {
    constexpr int kCount = int(sizeof v / sizeof(T));
    for (int i = 0; i < kCount; ++i) p[i] = v.val[i % kPlanes].at[i / kPlanes];
}

inline uint8x8_t vld1_u8(const uint8_t* p) { return loaded<uint8x8_t>(p); }
inline uint8x16_t vld1q_u8(const uint8_t* p) { return loaded<uint8x16_t>(p); }
inline uint16x8_t vld1q_u16(const uint16_t* p) { return loaded<uint16x8_t>(p); }
inline uint32x4_t vld1q_u32(const uint32_t* p) { return loaded<uint32x4_t>(p); }
inline int32x4_t vld1q_s32(const int32_t* p) { return loaded<int32x4_t>(p); }
inline float32x4_t vld1q_f32(const float* p) { return loaded<float32x4_t>(p); }
inline void vst1q_s32(int32_t* p, int32x4_t v) { std::memcpy(p, &v, sizeof v); }
inline void vst1_u16(uint16_t* p, uint16x4_t v) { std::memcpy(p, &v, sizeof v); }
inline uint8x8x2_t vld2_u8(const uint8_t* p) { return unzipped<2, uint8x8x2_t>(p); }
inline uint8x8x4_t vld4_u8(const uint8_t* p) { return unzipped<4, uint8x8x4_t>(p); }
inline void vst3q_u8(uint8_t* p, uint8x16x3_t v) { zipped<3>(p, v); }
inline void vst3q_u16(uint16_t* p, uint16x8x3_t v) { zipped<3>(p, v); }
inline void vst3q_f32(float* p, float32x4x3_t v) { zipped<3>(p, v); }
inline void vst4q_u8(uint8_t* p, uint8x16x4_t v) { zipped<4>(p, v); }

inline uint8x8_t vdup_n_u8(uint8_t a) {
    return each<uint8x8_t>([&](int) { return a; });
}
inline uint8x16_t vdupq_n_u8(uint8_t a) {
    return each<uint8x16_t>([&](int) { return a; });
}
inline uint16x8_t vdupq_n_u16(uint16_t a) {
    return each<uint16x8_t>([&](int) { return a; });
}
inline int16x8_t vdupq_n_s16(int16_t a) {
    return each<int16x8_t>([&](int) { return a; });
}
inline int32x4_t vdupq_n_s32(int32_t a) {
    return each<int32x4_t>([&](int) { return a; });
}
inline float32x4_t vdupq_n_f32(float a) {
    return each<float32x4_t>([&](int) { return a; });
}
inline uint16x8_t vsetq_lane_u16(uint16_t a, uint16x8_t v, int lane) {
    v.at[lane] = a;
    return v;
}

inline uint16x4_t vget_low_u16(uint16x8_t a) {
    return each<uint16x4_t>([&](int i) { return a.at[i]; });
}
inline uint16x4_t vget_high_u16(uint16x8_t a) {
    return each<uint16x4_t>([&](int i) { return a.at[4 + i]; });
}
inline int16x4_t vget_low_s16(int16x8_t a) {
    return each<int16x4_t>([&](int i) { return a.at[i]; });
}
inline int16x4_t vget_high_s16(int16x8_t a) {
    return each<int16x4_t>([&](int i) { return a.at[4 + i]; });
}
inline uint32x2_t vget_low_u32(uint32x4_t a) {
    return each<uint32x2_t>([&](int i) { return a.at[i]; });
}
inline uint32x2_t vget_high_u32(uint32x4_t a) {
    return each<uint32x2_t>([&](int i) { return a.at[2 + i]; });
}
inline uint32x4_t vcombine_u32(uint32x2_t a, uint32x2_t b) {
    return each<uint32x4_t>([&](int i) { return i < 2 ? a.at[i] : b.at[i - 2]; });
}
inline int16x8_t vcombine_s16(int16x4_t a, int16x4_t b) {
    return each<int16x8_t>([&](int i) { return i < 4 ? a.at[i] : b.at[i - 4]; });
}
inline uint8x16_t vcombine_u8(uint8x8_t a, uint8x8_t b) {
    return each<uint8x16_t>([&](int i) { return i < 8 ? a.at[i] : b.at[i - 8]; });
}

inline uint16x8_t vreinterpretq_u16_u32(uint32x4_t a) { return same<uint16x8_t>(a); }
inline int32x4_t vreinterpretq_s32_u32(uint32x4_t a) { return same<int32x4_t>(a); }
inline int16x8_t vreinterpretq_s16_u16(uint16x8_t a) { return same<int16x8_t>(a); }
inline uint16x4_t vreinterpret_u16_f16(float16x4_t a) { return same<uint16x4_t>(a); }

inline uint16x8_t vextq_u16(uint16x8_t a, uint16x8_t b, int n) {
    return each<uint16x8_t>([&](int i) { return i + n < 8 ? a.at[i + n] : b.at[i + n - 8]; });
}
inline uint32x4_t vzip1q_u32(uint32x4_t a, uint32x4_t b) { return {{a.at[0], b.at[0], a.at[1], b.at[1]}}; }
inline uint32x4_t vzip2q_u32(uint32x4_t a, uint32x4_t b) { return {{a.at[2], b.at[2], a.at[3], b.at[3]}}; }
inline uint8x8_t vzip1_u8(uint8x8_t a, uint8x8_t b) {
    return each<uint8x8_t>([&](int i) { return i % 2 ? b.at[i / 2] : a.at[i / 2]; });
}
inline uint8x8_t vzip2_u8(uint8x8_t a, uint8x8_t b) {
    return each<uint8x8_t>([&](int i) { return i % 2 ? b.at[4 + i / 2] : a.at[4 + i / 2]; });
}
inline uint16x8_t vuzp1q_u16(uint16x8_t a, uint16x8_t b) {
    return each<uint16x8_t>([&](int i) { return i < 4 ? a.at[2 * i] : b.at[2 * i - 8]; });
}
inline uint16x8_t vuzp2q_u16(uint16x8_t a, uint16x8_t b) {
    return each<uint16x8_t>([&](int i) { return i < 4 ? a.at[2 * i + 1] : b.at[2 * i - 7]; });
}

inline uint16x8_t vmovl_u8(uint8x8_t a) {
    return each<uint16x8_t>([&](int i) { return a.at[i]; });
}
inline int32x4_t vmovl_s16(int16x4_t a) {
    return each<int32x4_t>([&](int i) { return a.at[i]; });
}
inline int16x4_t vmovn_s32(int32x4_t a) {
    return each<int16x4_t>([&](int i) { return a.at[i]; });
}
inline uint8x8_t vqmovun_s16(int16x8_t a) {
    return each<uint8x8_t>([&](int i) { return a.at[i] < 0 ? 0 : a.at[i] > 255 ? 255 : a.at[i]; });
}
inline uint8x8_t vqsub_u8(uint8x8_t a, uint8x8_t b) {
    return each<uint8x8_t>([&](int i) { return uint8_t(a.at[i] > b.at[i] ? a.at[i] - b.at[i] : 0); });
}

inline uint16x8_t vandq_u16(uint16x8_t a, uint16x8_t b) {
    return each<uint16x8_t>([&](int i) { return uint16_t(a.at[i] & b.at[i]); });
}
inline uint16x8_t vshrq_n_u16(uint16x8_t a, int n) {
    return each<uint16x8_t>([&](int i) { return uint16_t(a.at[i] >> n); });
}
inline int32x4_t vshrq_n_s32(int32x4_t a, int n) {
    return each<int32x4_t>([&](int i) { return a.at[i] >> n; });
}
inline int32x4_t vrshrq_n_s32(int32x4_t a, int n) {
    return each<int32x4_t>([&](int i) { return int32_t((int64_t(a.at[i]) + (int64_t(1) << (n - 1))) >> n); });
}
inline int32x4_t vshlq_n_s32(int32x4_t a, int n) {
    return each<int32x4_t>([&](int i) { return int32_t(uint32_t(a.at[i]) << n); });
}
inline int16x8_t vsubq_s16(int16x8_t a, int16x8_t b) {
    return each<int16x8_t>([&](int i) { return int16_t(a.at[i] - b.at[i]); });
}
inline int32x4_t vsubq_s32(int32x4_t a, int32x4_t b) {
    return each<int32x4_t>([&](int i) { return int32_t(uint32_t(a.at[i]) - uint32_t(b.at[i])); });
}
inline int32x4_t vaddq_s32(int32x4_t a, int32x4_t b) {
    return each<int32x4_t>([&](int i) { return int32_t(uint32_t(a.at[i]) + uint32_t(b.at[i])); });
}
inline int32x4_t vmulq_n_s32(int32x4_t a, int32_t n) {
    return each<int32x4_t>([&](int i) { return int32_t(uint32_t(a.at[i]) * uint32_t(n)); });
}
inline int32x4_t vmlaq_n_s32(int32x4_t a, int32x4_t b, int32_t n) { return vaddq_s32(a, vmulq_n_s32(b, n)); }
inline uint32x4_t vmull_u16(uint16x4_t a, uint16x4_t b) {
    return each<uint32x4_t>([&](int i) { return uint32_t(a.at[i]) * b.at[i]; });
}
inline uint32x4_t vmlal_u16(uint32x4_t a, uint16x4_t b, uint16x4_t c) {
    return each<uint32x4_t>([&](int i) { return a.at[i] + uint32_t(b.at[i]) * c.at[i]; });
}
inline uint32x4_t vmull_lane_u16(uint16x4_t a, uint16x4_t b, int lane) {
    return each<uint32x4_t>([&](int i) { return uint32_t(a.at[i]) * b.at[lane]; });
}
inline uint32x4_t vmlal_lane_u16(uint32x4_t a, uint16x4_t b, uint16x4_t c, int lane) {
    return each<uint32x4_t>([&](int i) { return a.at[i] + uint32_t(b.at[i]) * c.at[lane]; });
}

inline float32x4_t vsubq_f32(float32x4_t a, float32x4_t b) {
    return each<float32x4_t>([&](int i) { return a.at[i] - b.at[i]; });
}
inline float32x4_t vdivq_f32(float32x4_t a, float32x4_t b) {
    return each<float32x4_t>([&](int i) { return a.at[i] / b.at[i]; });
}
inline float32x4_t vcvtq_f32_s32(int32x4_t a) {
    return each<float32x4_t>([&](int i) { return float(a.at[i]); });
}

// Rounds to even in double, where multiples of the last bit of a half are exact.
inline uint16_t to_half(float value) {
    const double magnitude = std::fabs(double(value));
    const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
    if (magnitude >= 65520) return uint16_t(sign | 0x7c00);
    const int exponent = magnitude < 1.0 / 16384 ? -14 : std::ilogb(magnitude);
    const double units = std::nearbyint(std::ldexp(magnitude, 10 - exponent));
    return uint16_t(sign | (uint32_t(units) + (uint32_t(exponent + 14) << 10)));
}
inline float16x4_t vcvt_f16_f32(float32x4_t a) {
    return each<float16x4_t>([&](int i) { return to_half(a.at[i]); });
}
