// Drives the emulated CUDA kernels, a block's threads as real ones, on memory that ends just where the contract says:
// a sanitizer sees each byte read or written too far, and each race. Built and run by test_sanitizers.py. Checks that
// two runs give the same bits, and prints "ok". The argument: how many problems.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>

#include "edgekd_cuda.cu"

namespace {

using Random = std::mt19937;

int pick(Random& random, int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); }

// Memory of exactly n elements, on 64 bytes, filled with garbage; the sanitizer guards both ends.
template <typename T>
struct Exact {
    explicit Exact(int64_t n) : bytes(n * int64_t(sizeof(T))) {
        void* memory = nullptr;
        if (posix_memalign(&memory, 64, bytes ? bytes : 1) != 0) std::abort();
        data = static_cast<T*>(memory);
        std::memset(memory, 0x5A, bytes);
    }
    ~Exact() { std::free(data); }
    Exact(const Exact&) = delete;
    Exact& operator=(const Exact&) = delete;
    int64_t bytes;
    T* data;
};

void expect(bool condition, const char* what) {
    if (condition) return;
    std::fprintf(stderr, "failed: %s\n", what);
    std::exit(1);
}

float hostile(Random& random) {
    const float inf = std::numeric_limits<float>::infinity();
    const float values[] = {std::numeric_limits<float>::quiet_NaN(), inf, -inf, 3e38f, -3e38f, 1e-40f, -0.0f, 1e19f};
    return pick(random, 0, 9) == 0 ? values[pick(random, 0, 7)] : float(pick(random, -4, 40)) / 4;
}

struct Outputs {
    Exact<int32_t> count, labels;
    Exact<float> boxes, scores;
    explicit Outputs(const edgekd_suppress_job& job)
        : count(job.batch),
          labels(int64_t(job.batch) * job.max_det),
          boxes(int64_t(job.batch) * job.max_det * job.columns),
          scores(int64_t(job.batch) * job.max_det) {}
};

// By the kernels in a row, or (`block`) by the one that does it all.
void run(edgekd_suppress_job job, const Outputs& out, bool block) {
    job.out_count = out.count.data, job.out_boxes = out.boxes.data;
    job.out_scores = out.scores.data, job.out_labels = out.labels.data;
    const int32_t together = block ? 1 : job.batch, times = block ? job.batch : 1;
    Exact<char> workspace(times * edgekd_cuda_suppress_workspace(together, job.rows, job.columns, job.classes,
                                                                 job.every_class, job.max_candidates));
    job.workspace = workspace.data, job.workspace_bytes = workspace.bytes;
    const auto function = block ? edgekd_cuda_suppress_block : edgekd_cuda_suppress;
    expect(function(&job, nullptr) == EDGEKD_OK, "suppress");
}

template <typename T>
bool same(const Exact<T>& a, const Exact<T>& b) {
    return std::memcmp(a.data, b.data, a.bytes) == 0;
}

void suppress(Random& random, bool every_class, bool block) {
    edgekd_suppress_job job{};
    job.batch = pick(random, 1, 2), job.rows = pick(random, 0, 150), job.classes = pick(random, 1, 40);
    job.columns = pick(random, 4, 5), job.metric = job.columns == 5 ? pick(random, 0, 1) : 0;
    job.half_scores = pick(random, 0, 1), job.every_class = every_class;
    job.max_candidates = pick(random, 1, 200), job.max_det = pick(random, 1, 80);
    job.conf = 0.3f, job.iou = 0.4f;
    if (block) job.metric = job.half_scores = 0;
    const int64_t rows = int64_t(job.batch) * job.rows, size = job.half_scores ? 2 : 4;
    Exact<float> boxes(rows * job.columns);
    for (int64_t i = 0; i < rows * job.columns; ++i) boxes.data[i] = hostile(random) + 3 * float(i % job.columns / 2);
    Exact<unsigned char> scores(rows * job.classes * size), allowed(job.classes);
    for (int64_t i = 0; i < scores.bytes; ++i) scores.data[i] = uint8_t(random());
    for (int64_t i = 0; i < allowed.bytes; ++i) allowed.data[i] = random() % 4 != 0;
    job.boxes = boxes.data, job.scores = scores.data, job.allowed = block ? nullptr : allowed.data;
    const Outputs first(job), second(job);
    run(job, first, false);
    run(job, second, block);
    expect(same(first.count, second.count) && same(first.labels, second.labels), "suppress differs");
    expect(same(first.boxes, second.boxes) && same(first.scores, second.scores), "suppress differs");
}

// Rows in memory of their exact size, with or without a gap, top down or bottom up.
struct Plane {
    Plane(Random& random, int64_t rows, int64_t row_bytes)
        : stride(row_bytes + pick(random, 0, 5)), bytes((rows - 1) * stride + row_bytes), first(bytes.data) {
        if (random() % 2) return;
        first = bytes.data + (rows - 1) * stride;
        stride = -stride;
    }

    int64_t stride;
    Exact<uint8_t> bytes;
    const uint8_t* first;
};

edgekd_canvas canvas(Random& random, int32_t values) {
    edgekd_canvas to{};
    to.new_height = pick(random, 1, 30), to.new_width = pick(random, 1, 90);
    to.left = pick(random, 0, 5), to.top = pick(random, 0, 5);
    to.height = to.new_height + to.top + pick(random, 0, 5), to.width = to.new_width + to.left + pick(random, 0, 5);
    to.values = values, to.layout = pick(random, EDGEKD_NCHW, EDGEKD_NHWC);
    to.swap = pick(random, 0, 1), to.pad = 114;
    for (int c = 0; c < 3; ++c) to.mean[c] = pick(random, 0, 3) ? float(c) : -3e38f, to.std[c] = float(c + 1);
    to.scale = pick(random, 0, 1) ? 1 / 127.5f : std::numeric_limits<float>::min();
    to.zero_point = pick(random, 0, 127);
    return to;
}

void letterbox(Random& random, int32_t pixels, int32_t values) {
    const int64_t bytes_of_pixels[] = {1, 3, 4, 1, 2}, bytes_of_values[] = {4, 2, 1, 1};
    edgekd_letterbox_job job{};
    edgekd_frame& from = job.frame;
    from.pixels = pixels;
    from.height = 2 * pick(random, 1, 20) - (from.pixels == EDGEKD_NV12 ? 0 : pick(random, 0, 1));
    from.width = 2 * pick(random, 1, 45) - (from.pixels >= EDGEKD_NV12 ? 0 : pick(random, 0, 1));
    const Plane image(random, from.height, from.width * bytes_of_pixels[from.pixels]);
    const Plane chroma(random, (from.height + 1) / 2, from.width);
    from.data = image.first, from.row_stride = image.stride;
    if (from.pixels == EDGEKD_NV12) from.chroma = chroma.first, from.chroma_stride = chroma.stride;
    job.canvas = canvas(random, values);
    Exact<uint8_t> out(3 * job.canvas.height * job.canvas.width * bytes_of_values[job.canvas.values]);
    job.canvas.data = out.data;
    expect(edgekd_cuda_letterbox(&job, nullptr) == EDGEKD_OK, "letterbox");
}

}  // namespace

int main(int, char** arguments) {
    Random random(1);
    for (int i = 0; i < std::atoi(arguments[1]); ++i) {
        suppress(random, i % 2 == 1, false);
        suppress(random, false, true);
        for (int32_t pixels = EDGEKD_GREY; pixels <= EDGEKD_YUYV; ++pixels) letterbox(random, pixels, (i + pixels) % 4);
    }
    std::puts("ok");
    return 0;
}
