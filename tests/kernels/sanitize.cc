// Drives every kernel with random, hostile input on memory that ends exactly where the contract says, so that a
// sanitizer sees each byte read or written too far. Built and run by test_sanitizers.py. Checks that plain and the best instructions
// give the same bits, and prints "ok". With one argument, a number: also runs that many threads at once.
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
    Exact<float> boxes, scores;
    Exact<int64_t> labels;
    Problem(Random& random, int64_t rows, int64_t columns)
        : n(rows), classes(columns), boxes(4 * rows), scores(rows * columns), labels(rows) {
        const bool tame = random() % 2;  // every box counts: only then all of the workspace is in use
        for (int64_t i = 0; i < boxes.size; ++i) {
            const float upper = float(i % 4 / 2);
            boxes.data[i] = tame ? float(pick(random, 0, 99)) + 100 * upper : hostile(random) + 3 * upper;
        }
        for (int64_t i = 0; i < scores.size; ++i) scores.data[i] = tame ? 0.5f : hostile(random) / 8;
        for (int64_t i = 0; i < labels.size; ++i) labels.data[i] = pick(random, -1, 2);
    }
};

void candidates(const Problem& p, int64_t limit) {
    Exact<int64_t> rows[2] = {Exact<int64_t>(limit), Exact<int64_t>(limit)};
    int64_t count[2];
    for (int run = 0; run < 2; ++run) {
        Exact<int64_t> labels(limit);
        Exact<float> best(limit);
        Tight workspace(edgekd_candidates_workspace(p.n));
        expect(edgekd_candidates(p.scores.data, p.n, p.classes, 0.3f, limit, nullptr, rows[run].data, labels.data, best.data,
                                 &count[run], instructions(run), workspace.data, workspace.size) == EDGEKD_OK, "candidates");
    }
    expect(count[0] == count[1] && !std::memcmp(rows[0].data, rows[1].data, count[0] * 8), "candidates differ");
}

void nms(const Problem& p) {
    Exact<int64_t> keep[2] = {Exact<int64_t>(p.n), Exact<int64_t>(p.n)};
    int64_t count[2];
    for (int run = 0; run < 2; ++run) {
        Tight workspace(edgekd_nms_workspace(p.n));
        expect(edgekd_nms(p.boxes.data, p.scores.data, p.labels.data, p.n, 0.4f, p.n ? p.n : 1, keep[run].data, &count[run],
                          instructions(run), workspace.data, workspace.size) == EDGEKD_OK, "nms");
    }
    expect(count[0] == count[1] && !std::memcmp(keep[0].data, keep[1].data, count[0] * 8), "nms differs");
}

void suppress(const Problem& p, int64_t limit, int64_t most) {
    Exact<float> boxes[2] = {Exact<float>(4 * most), Exact<float>(4 * most)};
    int64_t count[2];
    for (int run = 0; run < 2; ++run) {
        Exact<float> scores(most);
        Exact<int64_t> labels(most);
        Tight workspace(edgekd_suppress_workspace(p.n, limit));
        expect(edgekd_suppress(p.boxes.data, p.scores.data, p.n, p.classes, 0.3f, 0.4f, limit, most, nullptr,
                               boxes[run].data, scores.data, labels.data, &count[run], instructions(run), workspace.data,
                               workspace.size) == EDGEKD_OK, "suppress");
    }
    expect(count[0] == count[1] && !std::memcmp(boxes[0].data, boxes[1].data, count[0] * 16), "suppress differs");
}

void all(unsigned seed, int rounds) {
    Random random(seed);
    for (int i = 0; i < rounds; ++i) {
        for (int k = 0; k < 4; ++k) letterbox(random);
        const Problem problem(random, i % 50 == 0 ? pick(random, 300, 5000) : pick(random, 0, 70), pick(random, 1, 20));
        candidates(problem, pick(random, 1, 80));
        nms(problem);
        suppress(problem, pick(random, 1, 80), pick(random, 1, 80));
    }
}

}  // namespace

int main(int argc, char** argv) {
    const int threads = argc > 1 ? std::atoi(argv[1]) : 0;
    std::vector<std::thread> running;
    for (int i = 0; i < threads; ++i) running.emplace_back(all, 100 + i, 100);
    all(1, threads ? 50 : 600);
    for (auto& thread : running) thread.join();
    std::puts("ok");
    return 0;
}
