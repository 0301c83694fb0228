// The .cu files as a host library, for cuda_library.py; and "device" memory, as benchmarks/cuda_device.cu has on a GPU.
#include <cstdlib>

#include "edgekd_cuda.cu"

extern "C" void emulation_order(uint32_t order) { emulation::order = order; }

extern "C" void emulation_trace(decltype(emulation::on_launch) on_launch) { emulation::on_launch = on_launch; }

extern "C" void* edgekd_device_alloc(int64_t bytes) { return std::aligned_alloc(64, size_t(bytes + 64) / 64 * 64); }

extern "C" void edgekd_device_free(void* memory) { std::free(memory); }

extern "C" int32_t edgekd_device_copy(void* to, const void* from, int64_t bytes) {
    std::memcpy(to, from, size_t(bytes));
    return 0;
}
