// Drives every kernel with random, hostile input on memory that ends exactly where the contract says, so that a
// sanitizer sees each byte read or written too far. Built and run by test_sanitizers.py. Checks that plain and the best
// instructions give the same bits, and prints "ok". With one argument, a number: also runs that many threads at once;
// with "digest": prints a digest of all results too, for test_arm.py.
#include <thread>

#include "sanitize.h"

namespace {

float hostile(Random& random) {
    const float inf = std::numeric_limits<float>::infinity();
    const float values[] = {std::numeric_limits<float>::quiet_NaN(), inf, -inf, 3e38f, -3e38f, 1e-40f, -0.0f, 1e19f};
    return pick(random, 0, 9) == 0 ? values[pick(random, 0, 7)] : float(pick(random, -4, 40)) / 4;
}

struct Problem {
    int64_t n, classes;
    Exact<float> boxes, rotated, scores;
    Exact<int64_t> labels;
    Problem(Random& random, int64_t rows, int64_t columns)
        : n(rows), classes(columns), boxes(4 * rows), rotated(5 * rows), scores(rows * columns), labels(rows) {
        const bool tame = random() % 2;  // every box counts: only then all of the workspace is in use
        for (int64_t i = 0; i < boxes.size; ++i) {
            const float upper = float(i % 4 / 2);
            boxes.data[i] = tame ? float(pick(random, 0, 99)) + 100 * upper : hostile(random) + 3 * upper;
        }
        for (int64_t i = 0; i < rotated.size; ++i)
            rotated.data[i] = tame ? float(pick(random, 1, 99)) / (i % 5 == 4 ? 30 : 1) : hostile(random) + (i % 5 > 1);
        for (int64_t i = 0; i < scores.size; ++i) scores.data[i] = tame ? 0.5f : hostile(random) / 8;
        for (int64_t i = 0; i < labels.size; ++i) labels.data[i] = pick(random, -1, 2);
    }
};

void candidates(const Problem& p, int32_t every_class, int64_t limit) {
    Exact<int64_t> rows[2] = {Exact<int64_t>(limit), Exact<int64_t>(limit)};
    int64_t count[2];
    for (int run = 0; run < 2; ++run) {
        Exact<int64_t> labels(limit);
        Exact<float> best(limit);
        Tight workspace(edgekd_candidates_workspace(p.n, p.classes, every_class, limit));
        expect(edgekd_candidates(p.scores.data, p.n, p.classes, 0.3f, every_class, limit, nullptr, rows[run].data,
                                 labels.data, best.data, &count[run], instructions(run), workspace.data,
                                 workspace.size) == EDGEKD_OK,
               "candidates");
    }
    expect(count[0] == count[1] && !std::memcmp(rows[0].data, rows[1].data, count[0] * 8), "candidates differ");
    note(rows[0].data, count[0] * 8);
}

void nms(const Problem& p) {
    Exact<int64_t> keep[2] = {Exact<int64_t>(p.n), Exact<int64_t>(p.n)};
    int64_t count[2];
    for (int run = 0; run < 2; ++run) {
        Tight workspace(edgekd_nms_workspace(p.n));
        expect(edgekd_nms(p.boxes.data, p.scores.data, p.labels.data, p.n, 0.4f, p.n ? p.n : 1, keep[run].data,
                          &count[run], instructions(run), workspace.data, workspace.size) == EDGEKD_OK,
               "nms");
    }
    expect(count[0] == count[1] && !std::memcmp(keep[0].data, keep[1].data, count[0] * 8), "nms differs");
    note(keep[0].data, count[0] * 8);
}

void nms_rotated(const Problem& p, int32_t metric) {
    Exact<int64_t> keep[2] = {Exact<int64_t>(p.n), Exact<int64_t>(p.n)};
    int64_t count[2];
    for (int run = 0; run < 2; ++run) {
        Tight workspace(edgekd_nms_rotated_workspace(p.n));
        expect(edgekd_nms_rotated(p.rotated.data, p.scores.data, p.labels.data, p.n, 0.4f, metric, p.n ? p.n : 1,
                                  keep[run].data, &count[run], instructions(run), workspace.data,
                                  workspace.size) == EDGEKD_OK,
               "nms_rotated");
    }
    expect(count[0] == count[1] && !std::memcmp(keep[0].data, keep[1].data, count[0] * 8), "nms_rotated differs");
    note(keep[0].data, count[0] * 8);
}

void merge_tiles(const Problem& p) {
    Exact<int64_t> tiles(p.n), keep[2] = {Exact<int64_t>(p.n), Exact<int64_t>(p.n)};
    Exact<uint8_t> cut(p.n);
    for (int64_t i = 0; i < p.n; ++i) tiles.data[i] = i % 3, cut.data[i] = i % 2;
    int64_t count[2];
    for (int run = 0; run < 2; ++run) {
        Tight workspace(edgekd_merge_tiles_workspace(p.n));
        expect(edgekd_merge_tiles(p.rotated.data, p.scores.data, p.labels.data, tiles.data, cut.data, p.n, 0.4f, 0.6f,
                                  keep[run].data, &count[run], instructions(run), workspace.data,
                                  workspace.size) == EDGEKD_OK,
               "merge_tiles");
    }
    expect(count[0] == count[1] && !std::memcmp(keep[0].data, keep[1].data, count[0] * 8), "merge_tiles differs");
    note(keep[0].data, count[0] * 8);
}

template <typename Real, typename Call>
void table(int64_t n, int64_t m, int64_t needed, Call call, const char* what) {
    Exact<Real> out[2] = {Exact<Real>(n * m), Exact<Real>(n * m)};
    for (int run = 0; run < 2; ++run) {
        Tight workspace(needed);
        expect(call(out[run].data, instructions(run), workspace.data, workspace.size) == EDGEKD_OK, what);
    }
    for (int64_t i = 0; i < n * m; ++i) expect(out[0].data[i] == out[1].data[i], what);
    note_numbers(out[0].data, n * m);
}

void overlaps(const Problem& p, int32_t metric) {
    const int64_t n = p.n < 40 ? p.n : 40, m = p.n;
    const float *boxes = p.boxes.data, *rotated = p.rotated.data;
    table<float>(
        n, m, edgekd_iou_workspace(m),
        [=](float* out, int32_t with, char* memory, int64_t bytes) {
            return edgekd_iou(boxes, n, boxes, m, out, with, memory, bytes);
        },
        "iou");
    table<float>(
        n, m, edgekd_iou_rotated_workspace(m),
        [=](float* out, int32_t with, char* memory, int64_t bytes) {
            return edgekd_iou_rotated(rotated, n, rotated, m, metric, out, with, memory, bytes);
        },
        "iou_rotated");
    Exact<double> wide(5 * m);
    for (int64_t i = 0; i < wide.size; ++i) wide.data[i] = rotated[i];
    const double* boxes64 = wide.data;
    table<double>(
        n, m, edgekd_iou_rotated_float64_workspace(m),
        [=](double* out, int32_t with, char* memory, int64_t bytes) {
            return edgekd_iou_rotated_float64(boxes64, n, boxes64, m, out, with, memory, bytes);
        },
        "iou_rotated_float64");
}

void suppress(const Problem& p, int64_t columns, int32_t every_class, int64_t limit, int64_t most) {
    Exact<float> boxes[2] = {Exact<float>(columns * most), Exact<float>(columns * most)};
    int64_t count[2];
    for (int run = 0; run < 2; ++run) {
        Exact<float> scores(most);
        Exact<int64_t> labels(most);
        Tight workspace(edgekd_suppress_workspace(p.n, columns, p.classes, every_class, limit));
        expect(
            edgekd_suppress(columns == 4 ? p.boxes.data : p.rotated.data, columns, p.scores.data, p.n, p.classes, 0.3f,
                            every_class, 0.4f, EDGEKD_IOU, limit, most, nullptr, boxes[run].data, scores.data,
                            labels.data, &count[run], instructions(run), workspace.data, workspace.size) == EDGEKD_OK,
            "suppress");
    }
    expect(count[0] == count[1] && !std::memcmp(boxes[0].data, boxes[1].data, count[0] * columns * 4),
           "suppress differs");
    note_numbers(boxes[0].data, count[0] * columns);
}

bool same(float a, float b) { return !std::memcmp(&a, &b, sizeof a) || (a != a && b != b); }  // a NaN is a NaN

void regions(Random& random) {
    const int64_t height = pick(random, 1, 24), width = pick(random, 1, 40), radius = pick(random, 0, 9);
    const int64_t out_height = pick(random, 1, 40), out_width = pick(random, 1, 90), limit = pick(random, 1, 30);
    const int64_t min_area = pick(random, 0, 3), gap = pick(random, 1, 2);
    const bool dense = random() % 2;  // not resized, as many runs (gap 1) or components (gap 2) as there can be
    Exact<float> map(height * width), weights(radius + 1);
    for (int64_t i = 0; i < map.size; ++i)
        map.data[i] = dense ? float(i % width % 2 == 0 && i / width % gap == 0) : hostile(random);
    for (int64_t i = 0; i <= radius; ++i) weights.data[i] = i == 0 ? 1.0f : float(pick(random, 0, 3)) / 8;
    const int64_t rows = dense ? height : out_height, columns = dense ? width : out_width;
    Exact<float> out[2] = {Exact<float>(rows * columns), Exact<float>(rows * columns)};
    Exact<uint8_t> mask[2] = {Exact<uint8_t>(rows * columns), Exact<uint8_t>(rows * columns)};
    Exact<float> boxes[2] = {Exact<float>(4 * limit), Exact<float>(4 * limit)};
    int64_t count[2];
    for (int run = 0; run < 2; ++run) {
        Exact<int64_t> areas(limit);
        Exact<float> peaks(limit);
        Tight workspace(edgekd_regions_workspace(width, dense ? 0 : radius, rows, columns));
        expect(edgekd_regions(map.data, height, width, weights.data, dense ? 0 : radius, out[run].data, mask[run].data,
                              rows, columns, 0.5f, min_area, limit, boxes[run].data, areas.data, peaks.data,
                              &count[run], instructions(run), workspace.data, workspace.size) == EDGEKD_OK,
               "regions");
    }
    for (int64_t i = 0; i < rows * columns; ++i) expect(same(out[0].data[i], out[1].data[i]), "regions: maps differ");
    expect(!std::memcmp(mask[0].data, mask[1].data, mask[0].size), "regions: masks differ");
    expect(count[0] == count[1] && !std::memcmp(boxes[0].data, boxes[1].data, count[0] * 16), "regions differ");
    note_numbers(out[0].data, rows * columns);
    note(mask[0].data, mask[0].size);
    note_numbers(boxes[0].data, 4 * count[0]);
}

void all(unsigned seed, int rounds) {
    Random random(seed);
    for (int i = 0; i < rounds; ++i) {
        for (int k = 0; k < 4; ++k) letterbox(random);
        regions(random);
        // One number at a time: the order of arguments is the compiler's choice, and test_arm.py compares two
        // compilers.
        const int64_t rows = i % 50 == 0 ? pick(random, 300, 5000) : pick(random, 0, 70), columns = pick(random, 1, 20);
        const Problem problem(random, rows, columns);
        const int32_t every_class = random() % 2, shape = random() % 2 ? 4 : 5;
        const int64_t limit = pick(random, 1, 80), most = pick(random, 1, 80);
        candidates(problem, every_class, limit);
        nms(problem);
        const int32_t metric = random() % 2 ? EDGEKD_IOU : EDGEKD_PROBIOU;
        nms_rotated(problem, metric);
        merge_tiles(problem);
        overlaps(problem, metric);
        suppress(problem, shape, every_class, limit, most);
    }
}

}  // namespace

int main(int argc, char** argv) {
    const bool digested = argc > 1 && !std::strcmp(argv[1], "digest");
    const int threads = argc > 1 ? std::atoi(argv[1]) : 0;
    std::vector<std::thread> running;
    for (int i = 0; i < threads; ++i) running.emplace_back(all, 100 + i, 100);
    all(1, threads ? 50 : 600);
    for (auto& thread : running) thread.join();
    if (digested)
        std::printf("%016llx %s\n", static_cast<unsigned long long>(digest),
                    instructions(1) == EDGEKD_NEON ? "neon" : "other");
    std::puts("ok");
    return 0;
}
