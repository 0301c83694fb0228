// The .cu files as a host library, for cuda_library.py; and "device" memory, as benchmarks/cuda_device.cu has on a GPU.
#include <cstdlib>
#include <cstring>

#include "edgekd_cuda.cu"

extern "C" void emulation_order(uint32_t order) { emulation::order = order; }

// As a call of CUDA does that fails.
extern "C" void emulation_fail() { emulation::last_error = cudaErrorInvalidValue; }

extern "C" void emulation_trace(decltype(emulation::on_launch) on_launch) { emulation::on_launch = on_launch; }

extern "C" void* edgekd_device_alloc(int64_t bytes) { return std::aligned_alloc(64, size_t(bytes + 64) / 64 * 64); }

extern "C" void edgekd_device_free(void* memory) { std::free(memory); }

extern "C" int32_t edgekd_device_copy(void* to, const void* from, int64_t bytes) {
    std::memcpy(to, from, size_t(bytes));
    return 0;
}

// A kernel by name, as the driver launches those of a fatbin; -1: there is none of this name. `job` is copied: a launch
// passes it by value.
extern "C" int32_t emulation_launch(const char* kernel, unsigned x, unsigned y, unsigned z, unsigned threads,
                                    const void* job) {
#define EDGEKD_BY_NAME(name, kind)                                                    \
    if (std::strcmp(kernel, #name) == 0) {                                            \
        kind copy;                                                                    \
        std::memcpy(&copy, job, sizeof copy);                                         \
        emulation::launch(kernel, dim3(x, y, z), dim3(threads), [&] { name(copy); }); \
        return 0;                                                                     \
    }
    EDGEKD_BY_NAME(edgekd_letterbox_packed, edgekd_letterbox_job)
    EDGEKD_BY_NAME(edgekd_suppress_clear, edgekd_suppress_job)
    EDGEKD_BY_NAME(edgekd_candidates_filter_f32, edgekd_suppress_job)
    EDGEKD_BY_NAME(edgekd_candidates_select, edgekd_suppress_job)
    EDGEKD_BY_NAME(edgekd_nms_shapes_xyxy, edgekd_suppress_job)
    EDGEKD_BY_NAME(edgekd_nms_shapes_xywhr, edgekd_suppress_job)
    EDGEKD_BY_NAME(edgekd_nms_mask_xyxy, edgekd_suppress_job)
    EDGEKD_BY_NAME(edgekd_nms_mask_xywhr, edgekd_suppress_job)
    EDGEKD_BY_NAME(edgekd_nms_scan, edgekd_suppress_job)
#undef EDGEKD_BY_NAME
    return -1;
}

// A kernel of a block an image, its parameters as cuLaunchKernel takes them: a pointer to each.
extern "C" int32_t emulation_launch_block(const char* kernel, unsigned batch, unsigned threads, void** given) {
    const auto pointer = [&](int at) { return *static_cast<void**>(given[at]); };
    const auto whole = [&](int at) { return *static_cast<int32_t*>(given[at]); };
#define EDGEKD_BLOCK_BY_NAME(name)                                                                                 \
    if (std::strcmp(kernel, #name) == 0) {                                                                         \
        emulation::launch(kernel, dim3(batch), dim3(threads), [&] {                                                \
            name(static_cast<float*>(pointer(0)), static_cast<float*>(pointer(1)), whole(2), whole(3), whole(4),   \
                 whole(5), whole(6), whole(7), static_cast<int32_t*>(pointer(8)), static_cast<float*>(pointer(9)), \
                 static_cast<float*>(pointer(10)), static_cast<int32_t*>(pointer(11)), pointer(12));               \
        });                                                                                                        \
        return 0;                                                                                                  \
    }
    EDGEKD_BLOCK_BY_NAME(edgekd_suppress_block_xyxy)
    EDGEKD_BLOCK_BY_NAME(edgekd_suppress_block_xywhr)
#undef EDGEKD_BLOCK_BY_NAME
    return -1;
}
