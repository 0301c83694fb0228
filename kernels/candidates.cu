// Candidates on the GPU: a filter over all scores appends the keys of what passes, a row's best or every class, in any
// order; then a block an image finds the best of them and sorts those. All keys differ, so the order of arrival leaves
// no trace.
#include <cmath>

#include "suppress_job.h"

namespace edgekd {
namespace {

// Append a key where `passes`; one atomic a warp.
__device__ inline void append(const Scratch& scratch, int64_t image, bool passes, Word key) {
    const unsigned lane = threadIdx.x % 32, voters = __ballot_sync(kWarp, passes);
    if (voters == 0) return;
    const int leader = __ffs(int(voters)) - 1;
    uint32_t base = 0;
    if (int(lane) == leader) base = atomicAdd(scratch.found + image, uint32_t(__popc(voters)));
    base = __shfl_sync(kWarp, base, leader);
    if (passes) scratch.keys[image * scratch.most + base + __popc(voters & ((1u << lane) - 1))] = key;
}

__device__ inline bool over(const edgekd_suppress_job& job, float score) {
    return score > job.conf && score <= kLargestFloat;
}

// `thread` counts the threads of an image; those of a warp follow one another.
template <typename Score>
__device__ inline void filter(const edgekd_suppress_job& job, int64_t image, int64_t thread) {
    const Scratch scratch(job);
    const int lanes = lanes_of(job.classes);
    const int64_t rows = job.rows, lane = thread % lanes, row = thread / lanes;
    Word best = kNone;
    if (row < rows) {
        const Score* scores = static_cast<const Score*>(job.scores) + (image * rows + row) * job.classes;
        for (int64_t c = lane; c < job.classes; c += lanes) {
            const float score = widen(scores[c]);
            if (over(job, score) && (!job.allowed || job.allowed[c])) {
                const Word key = key_of(score, uint32_t(row * job.classes + c));
                best = key < best ? key : best;
            }
        }
    }
    for (int apart = lanes / 2; apart > 0; apart /= 2) {
        const Word other = __shfl_xor_sync(kWarp, best, apart);
        best = other < best ? other : best;
    }
    append(scratch, image, lane == 0 && best != kNone, best);
}

// A thread reads its scores before it appends any: so they are on their way together.
template <typename Score>
__device__ inline void every(const edgekd_suppress_job& job) {
    const Scratch scratch(job);
    const int64_t image = blockIdx.y, n = int64_t(job.rows) * job.classes;
    const int64_t first = int64_t(blockIdx.x) * (kFilterThreads * kScoresEach) + threadIdx.x;
    const Score* scores = static_cast<const Score*>(job.scores) + image * n;
    float mine[kScoresEach];
#pragma unroll
    for (int i = 0; i < kScoresEach; ++i) {
        const int64_t index = first + i * kFilterThreads;
        mine[i] = index < n ? widen(scores[index]) : -INFINITY;
    }
#pragma unroll
    for (int i = 0; i < kScoresEach; ++i) {
        const Word key = key_of(mine[i], uint32_t(first + i * kFilterThreads));
        const bool passes = over(job, mine[i]) && (!job.allowed || job.allowed[class_of(key, job)]);
        append(scratch, image, passes, key);
    }
}

struct Selection {
    Word keys[kMaxCandidates];
    unsigned bins[256];
    unsigned digit, rest, size;  // the bin that holds the last wanted key, how many are wanted from it, and its size
    int found;
};

// One warp finds the bin that holds key number `rest` (from 1) of what is in the bins.
__device__ inline void find_bin(Selection& shared, unsigned rest) {
    const unsigned lane = threadIdx.x;
    unsigned sum = 0;
    for (unsigned i = 0; i < 8; ++i) sum += shared.bins[lane * 8 + i];
    unsigned through = sum;
    for (unsigned apart = 1; apart < 32; apart *= 2) {
        const unsigned other = __shfl_up_sync(kWarp, through, apart);
        if (lane >= apart) through += other;
    }
    unsigned before = through - sum;
    if (before >= rest || through < rest) return;  // exactly one lane goes on
    unsigned digit = lane * 8;
    while (before + shared.bins[digit] < rest) before += shared.bins[digit++];
    shared.digit = digit;
    shared.rest = rest - before;
    shared.size = shared.bins[digit];
}

// The largest key among the smallest `wanted` of n > wanted: eight bits a turn, from the highest.
__device__ inline Word last_wanted(const Word* keys, int64_t n, unsigned wanted, Selection& shared) {
    Word prefix = 0;
    for (int shift = 56; shift >= 0; shift -= 8) {
        for (int i = threadIdx.x; i < 256; i += kSelectThreads) shared.bins[i] = 0;
        __syncthreads();
        for (int64_t i = threadIdx.x; i < n; i += kSelectThreads) {
            if ((keys[i] ^ prefix) >> shift >> 8 == 0) atomicAdd(&shared.bins[keys[i] >> shift & 255], 1u);
        }
        __syncthreads();
        if (threadIdx.x < 32) find_bin(shared, wanted);
        __syncthreads();
        prefix |= Word(shared.digit) << shift;
        wanted = shared.rest;
        if (shared.size == wanted) return prefix | ((Word(1) << shift) - 1);  // all of the bin: no need to look closer
    }
    return prefix;
}

// Bitonic sort of `width` keys, a power of two.
__device__ inline void sort(Word* keys, int width) {
    for (int run = 2; run <= width; run *= 2) {
        for (int apart = run / 2; apart > 0; apart /= 2) {
            for (int pair = threadIdx.x; pair < width / 2; pair += kSelectThreads) {
                const int low = pair + (pair & -apart), high = low + apart;
                const Word a = keys[low], b = keys[high];
                if ((a > b) == ((low & run) == 0)) keys[low] = b, keys[high] = a;
            }
            __syncthreads();
        }
    }
}

__device__ inline void select(const edgekd_suppress_job& job, int64_t image, Selection& shared) {
    const Scratch scratch(job);
    const int64_t n = scratch.found[image];
    const Word* keys = scratch.keys + image * scratch.most;
    Word last = kNone;
    if (n > scratch.limit) last = last_wanted(keys, n, unsigned(scratch.limit), shared);
    if (threadIdx.x == 0) shared.found = 0;
    __syncthreads();
    for (int64_t i = threadIdx.x; i < n; i += kSelectThreads) {
        if (keys[i] <= last) shared.keys[atomicAdd(&shared.found, 1)] = keys[i];
    }
    __syncthreads();
    int width = 1;
    while (width < shared.found) width *= 2;
    for (int i = shared.found + threadIdx.x; i < width; i += kSelectThreads) shared.keys[i] = kNone;
    __syncthreads();
    sort(shared.keys, width);
    for (int i = threadIdx.x; i < shared.found; i += kSelectThreads)
        scratch.ranked[image * scratch.limit + i] = shared.keys[i];
    if (threadIdx.x == 0) scratch.count[image] = shared.found;
}

}  // namespace
}  // namespace edgekd

extern "C" __global__ void __launch_bounds__(edgekd::kFilterThreads)
    edgekd_candidates_filter_f32(edgekd_suppress_job job) {
    edgekd::filter<float>(job, blockIdx.y, int64_t(blockIdx.x) * edgekd::kFilterThreads + threadIdx.x);
}

extern "C" __global__ void __launch_bounds__(edgekd::kFilterThreads)
    edgekd_candidates_filter_f16(edgekd_suppress_job job) {
    edgekd::filter<uint16_t>(job, blockIdx.y, int64_t(blockIdx.x) * edgekd::kFilterThreads + threadIdx.x);
}

extern "C" __global__ void __launch_bounds__(edgekd::kFilterThreads)
    edgekd_candidates_every_f32(edgekd_suppress_job job) {
    edgekd::every<float>(job);
}

extern "C" __global__ void __launch_bounds__(edgekd::kFilterThreads)
    edgekd_candidates_every_f16(edgekd_suppress_job job) {
    edgekd::every<uint16_t>(job);
}

extern "C" __global__ void __launch_bounds__(edgekd::kSelectThreads) edgekd_candidates_select(edgekd_suppress_job job) {
    __shared__ edgekd::Selection shared;
    edgekd::select(job, blockIdx.x, shared);
}
