// What the .cu files need of CUDA, for g++: so that they are tested where there is no GPU. The threads of a block are
// fibers, switched at barriers (fibers.h, fast), or with -DEDGEKD_EMULATE_THREADS real threads (threads.h), so that
// ThreadSanitizer sees their races. Blocks run one after another. Both orders can be shuffled: see `order`.
//
// Stricter than a GPU: a thread that leaves early while others wait, two different barriers met at once, or a warp
// exchange without all 32 lanes ends the process with a message. Laxer: an exchange orders memory as __syncwarp does.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(EDGEKD_EMULATE_THREADS)
#include "threads.h"
#else
#include "fibers.h"
#endif

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned columns = 1, unsigned rows = 1, unsigned layers = 1) : x(columns), y(rows), z(layers) {}
};

inline dim3 blockIdx, blockDim, gridDim;
#define threadIdx (dim3(emulation::thread(), 0, 0))

namespace emulation {

// How each launch orders blocks and threads; 0: as numbered.
inline uint32_t order = 0;

inline unsigned common_divisor(unsigned a, unsigned b) { return b == 0 ? a : common_divisor(b, a % b); }

// A permutation of 0 .. n - 1 drawn from `order`: start somewhere, go on by a step that meets everything.
struct Shuffled {
    unsigned n, start, step;
    explicit Shuffled(unsigned count) : n(count), start(0), step(1) {
        if (order == 0) return;
        order = (order * 1664525u + 1013904223u) | 1u;
        start = order / 65536 % n, step = order / 256 % n;
        while (common_divisor(n, step) != 1) step = (step + 1) % n;
    }
    unsigned operator[](unsigned i) const { return unsigned((start + uint64_t(step) * i) % n); }
};

// Told of each launch, if set.
inline void (*on_launch)(const char* kernel, unsigned x, unsigned y, unsigned z, unsigned threads) = nullptr;

template <typename Body>
void launch(const char* kernel, dim3 grid, dim3 block, const Body& body) {
    if (on_launch) on_launch(kernel, grid.x, grid.y, grid.z, block.x);
    const bool sound = grid.x && grid.y && grid.z && grid.y < 65536 && grid.z < 65536 && block.y == 1 && block.z == 1;
    if (!sound || block.x < 1 || block.x > kMaxThreads || block.x % 32 != 0) die("a launch that CUDA refuses");
    gridDim = grid, blockDim = block;
    const Shuffled blocks(grid.x * grid.y * grid.z), threads(block.x);
    for (unsigned i = 0; i < blocks.n; ++i) {
        const unsigned at = blocks[i];
        blockIdx = dim3(at % grid.x, at / grid.x % grid.y, at / grid.x / grid.y);
        run(threads, block.x, body);
    }
}

// What lanes exchange: each writes its slot, all meet, each reads. Two sets in turn, so that a lane may go on to the
// next exchange while another still reads.
struct Warp {
    Barrier barrier;
    uint64_t slots[2][32];
};
inline Warp warps[kMaxThreads / 32];
inline unsigned turns[kMaxThreads];  // by thread
inline Barrier block_barrier;

inline const uint64_t* exchange(unsigned mask, uint64_t value, int line) {
    if (mask != 0xFFFFFFFFu) die("a warp exchange without all lanes");
    Warp& warp = warps[thread() / 32];
    uint64_t* slots = warp.slots[turns[thread()]++ % 2];
    slots[thread() % 32] = value;
    warp.barrier.wait(32, line);
    return slots;
}

template <typename T>
T from_lane(unsigned mask, T value, unsigned lane, int line) {
    static_assert(sizeof(T) <= 8 && T(0.5) == T(0), "integers only");
    return T(exchange(mask, uint64_t(value), line)[lane]);
}

inline unsigned ballot(unsigned mask, bool bit, int line) {
    const uint64_t* slots = exchange(mask, bit, line);
    unsigned bits = 0;
    for (unsigned lane = 0; lane < 32; ++lane) bits |= unsigned(slots[lane]) << lane;
    return bits;
}

}  // namespace emulation

#define __syncthreads() emulation::block_barrier.wait(blockDim.x, __LINE__)
#define __ballot_sync(mask, bit) emulation::ballot(mask, bit, __LINE__)
#define __shfl_sync(mask, value, lane) emulation::from_lane(mask, value, unsigned(lane), __LINE__)
#define __shfl_xor_sync(mask, value, bits) \
    emulation::from_lane(mask, value, emulation::thread() % 32 ^ unsigned(bits), __LINE__)
#define __shfl_up_sync(mask, value, by) \
    emulation::from_lane(mask, value, emulation::thread() % 32 - (emulation::thread() % 32 < (by) ? 0 : (by)), __LINE__)

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __popcll(unsigned long long bits) { return __builtin_popcountll(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }

inline uint32_t __float_as_uint(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

inline float __uint_as_float(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

template <typename T>
T atomicAdd(T* at, T value) {
    return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}
template <typename T>
T atomicOr(T* at, T value) {
    return __atomic_fetch_or(at, value, __ATOMIC_RELAXED);
}

enum cudaError_t { cudaSuccess, cudaErrorInvalidValue };

namespace emulation {
inline thread_local cudaError_t last_error = cudaSuccess;
}

inline cudaError_t cudaGetLastError() {
    const cudaError_t error = emulation::last_error;
    emulation::last_error = cudaSuccess;
    return error;
}
