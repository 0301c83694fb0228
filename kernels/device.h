// The one mark that lets gcc and nvcc compile the same maths.
#pragma once

#if defined(__CUDACC__)
#define EDGEKD_HOST_DEVICE __host__ __device__
#else
#define EDGEKD_HOST_DEVICE
#endif
