// How a kernel is launched: by nvcc, or by g++ on the stand-in for CUDA in tests/kernels/emulation/, whose include path
// comes first there. g++ does not parse <<<...>>>.
#pragma once

#include <cuda_runtime.h>

#include "edgekd_cuda.h"

#if defined(__CUDACC__)
#define EDGEKD_LAUNCH(kernel, grid, block, stream, ...) \
    kernel<<<grid, block, 0, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__)
#else
#define EDGEKD_LAUNCH(kernel, grid, block, stream, ...) \
    (static_cast<void>(stream), emulation::launch(#kernel, grid, block, [&] { kernel(__VA_ARGS__); }))
#endif

namespace edgekd {

// Before the first launch: an error that the caller has not read is not one of ours.
inline void forget_errors() { static_cast<void>(cudaGetLastError()); }

inline int32_t launched() {
    return cudaGetLastError() == cudaSuccess ? int32_t(EDGEKD_OK) : int32_t(EDGEKD_CUDA_FAILED);
}

}  // namespace edgekd
