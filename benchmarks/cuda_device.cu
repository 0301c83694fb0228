// What a program without a CUDA binding needs to run and time the kernels: memory of the GPU, and a captured graph
// between two events. For tests and benchmarks only, compiled together with kernels/edgekd_cuda.cu.
#include <cstdint>

#include <cuda_runtime.h>

namespace {

constexpr int kLaunchesPerSample = 10;  // so that what an event costs does not count

struct Timer {
    cudaStream_t stream = nullptr;
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    cudaEvent_t begin = nullptr, end = nullptr;

    ~Timer() {
        if (end) cudaEventDestroy(end);
        if (begin) cudaEventDestroy(begin);
        if (executable) cudaGraphExecDestroy(executable);
        if (graph) cudaGraphDestroy(graph);
        if (stream) cudaStreamDestroy(stream);
    }

    bool capture(int32_t (*queue)(const void*, void*), const void* job) {
        if (cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess) return false;
        if (cudaEventCreate(&begin) != cudaSuccess || cudaEventCreate(&end) != cudaSuccess) return false;
        if (cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) != cudaSuccess) return false;
        const bool queued = queue(job, stream) == 0;
        if (cudaStreamEndCapture(stream, &graph) != cudaSuccess || !queued) return false;
        return cudaGraphInstantiateWithFlags(&executable, graph, 0) == cudaSuccess;
    }

    bool sample(float* us) {
        float ms = 0;
        cudaEventRecord(begin, stream);
        for (int i = 0; i < kLaunchesPerSample; ++i) cudaGraphLaunch(executable, stream);
        cudaEventRecord(end, stream);
        if (cudaEventSynchronize(end) != cudaSuccess) return false;
        if (cudaEventElapsedTime(&ms, begin, end) != cudaSuccess) return false;
        *us = ms * 1000 / kLaunchesPerSample;
        return true;
    }
};

}  // namespace

extern "C" void* edgekd_device_alloc(int64_t bytes) {
    void* memory = nullptr;
    return cudaMalloc(&memory, size_t(bytes < 1 ? 1 : bytes)) == cudaSuccess ? memory : nullptr;
}

extern "C" void edgekd_device_free(void* memory) { cudaFree(memory); }

// In either direction, after all that was queued before it; 0, or an error of CUDA.
extern "C" int32_t edgekd_device_copy(void* to, const void* from, int64_t bytes) {
    const cudaError_t done = cudaDeviceSynchronize();
    return int32_t(done != cudaSuccess ? done : cudaMemcpy(to, from, size_t(bytes), cudaMemcpyDefault));
}

// Capture what `queue(job, stream)` queues, replay it, and write what a replay takes, in microseconds, `samples` times.
extern "C" int32_t edgekd_device_time(int32_t (*queue)(const void*, void*), const void* job, int32_t samples,
                                      float* out_us) {
    Timer timer;
    bool good = timer.capture(queue, job);
    float warm_up;
    for (int i = 0; good && i < 5; ++i) good = timer.sample(&warm_up);
    for (int32_t i = 0; good && i < samples; ++i) good = timer.sample(out_us + i);
    if (good) return 0;
    const cudaError_t error = cudaGetLastError();
    return int32_t(error == cudaSuccess ? cudaErrorUnknown : error);
}
