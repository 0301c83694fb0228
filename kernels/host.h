// What every host kernel needs: which instructions to use, and memory out of the caller's workspace.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "edgekd_kernels.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define EDGEKD_HAS_AVX 1
#define EDGEKD_TARGET_AVX2 __attribute__((target("avx2,f16c")))
#define EDGEKD_TARGET_AVX512 __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,prefer-vector-width=512")))
#else
#define EDGEKD_HAS_AVX 0
#endif

#if defined(__aarch64__) && defined(__ARM_NEON) && !defined(__ARM_BIG_ENDIAN)
#define EDGEKD_HAS_NEON 1
#else
#define EDGEKD_HAS_NEON 0
#endif

#if defined(__GNUC__)
#define EDGEKD_INLINE inline __attribute__((always_inline))
#define EDGEKD_RESTRICT __restrict__
#else
#define EDGEKD_INLINE inline
#define EDGEKD_RESTRICT
#endif

namespace edgekd {

#if EDGEKD_HAS_AVX
// Conversion to half, which no processor with AVX2 lacks, but a virtual machine may hide. Read once: the instruction
// that asks is slow in a virtual machine, and __builtin_cpu_supports knows the name only since GCC 11.
extern const bool kHasF16c;
#endif

inline bool has(int32_t instructions) {
    switch (instructions) {
        case EDGEKD_PLAIN:
            return true;
#if EDGEKD_HAS_AVX
        case EDGEKD_AVX2:
            return __builtin_cpu_supports("avx2") && kHasF16c;
        case EDGEKD_AVX512:
            return kHasF16c && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                   __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
#endif
#if EDGEKD_HAS_NEON
        case EDGEKD_NEON:
            return true;
#endif
        default:
            return false;
    }
}

// Turn a request into what will run, or into an error (negative).
inline int32_t resolve(int32_t instructions) {
    if (instructions < EDGEKD_BEST || instructions > EDGEKD_NEON) return EDGEKD_BAD_ARGUMENT;
    if (instructions != EDGEKD_BEST) return has(instructions) ? instructions : int32_t(EDGEKD_UNSUPPORTED);
    for (const int32_t best : {EDGEKD_AVX512, EDGEKD_AVX2, EDGEKD_NEON}) {
        if (has(best)) return best;
    }
    return EDGEKD_PLAIN;
}

// Code for AVX2 runs where AVX-512 was asked for too: a kernel need not have both.
inline bool runs_avx2(int32_t chosen) { return chosen == EDGEKD_AVX2 || chosen == EDGEKD_AVX512; }

constexpr int64_t kMaxCount = int64_t(1) << 40;  // no size product below overflows 64 bits

// Hands out aligned pieces of the caller's memory. Made from null it only adds up: so the layout that an op takes and
// the size that its ..._workspace() reports come from the same lines.
class Workspace {
public:
    static constexpr int64_t kAlign = 64;

    Workspace() = default;
    Workspace(void* memory, int64_t bytes) : memory_(static_cast<char*>(memory)), bytes_(bytes) {
        used_ = -reinterpret_cast<intptr_t>(memory) & (kAlign - 1);
    }

    template <typename T>
    T* take(int64_t count) {
        char* piece = memory_ == nullptr ? nullptr : memory_ + used_;
        used_ += (count * int64_t(sizeof(T)) + kAlign - 1) & ~(kAlign - 1);
        return reinterpret_cast<T*>(piece);
    }

    bool fits() const { return memory_ != nullptr && used_ <= bytes_; }
    int64_t needed() const { return used_ + kAlign; }

private:
    char* memory_ = nullptr;
    int64_t bytes_ = 0;
    int64_t used_ = 0;
};

}  // namespace edgekd
