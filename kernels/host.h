// What every host kernel needs: which instructions to use, and memory out of the caller's workspace.
#pragma once

#include <cstdint>

#include "edgekd_kernels.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define EDGEKD_HAS_AVX2 1
#define EDGEKD_TARGET_AVX2 __attribute__((target("avx2")))
#else
#define EDGEKD_HAS_AVX2 0
#endif

#if defined(__GNUC__)
#define EDGEKD_INLINE inline __attribute__((always_inline))
#else
#define EDGEKD_INLINE inline
#endif

namespace edgekd {

inline bool has_avx2() {
#if EDGEKD_HAS_AVX2
    return __builtin_cpu_supports("avx2") != 0;
#else
    return false;
#endif
}

// Turn a request into EDGEKD_PLAIN or EDGEKD_AVX2, or into an error (negative).
inline int32_t resolve(int32_t instructions) {
    switch (instructions) {
        case EDGEKD_BEST: return has_avx2() ? EDGEKD_AVX2 : EDGEKD_PLAIN;
        case EDGEKD_PLAIN: return EDGEKD_PLAIN;
        case EDGEKD_AVX2: return has_avx2() ? int32_t(EDGEKD_AVX2) : int32_t(EDGEKD_UNSUPPORTED);
        default: return EDGEKD_BAD_ARGUMENT;
    }
}

constexpr int64_t kMaxCount = int64_t(1) << 40;  // no size product below overflows 64 bits

// Hands out aligned pieces of the caller's memory. Made from null it only adds up: so the layout that an op takes and the
// size that its ..._workspace() reports come from the same lines.
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
