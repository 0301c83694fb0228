// 8-connected components of a mask that arrives row by row: runs of pixels, joined by union-find. See geometry.label.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>

#include "host.h"

namespace edgekd {

// A component, or a part of one that was joined to the part `parent`. Parts are numbered by their first run, and a join
// keeps the lower number: so the root's number orders components by their first pixel.
struct Part {
    int32_t parent;
    int32_t left, top, right, bottom;
    float peak;
    int64_t area;
};

// Best peak first, ties by first pixel. A total order: any sort gives the one result.
inline bool better(const Part& a, const Part& b) {
    return a.peak > b.peak || (a.peak == b.peak && a.parent < b.parent);
}

class Components {
public:
    Components(Workspace& workspace, int64_t height, int64_t width) : width_(width) {
        runs_ = workspace.take<Run>(height * ((width + 1) / 2));
        parts_ = workspace.take<Part>(most(height, width));
    }

    // First runs without a neighbour above never touch each other: one in each square of four pixels at most.
    static int64_t most(int64_t height, int64_t width) { return ((height + 1) / 2) * ((width + 1) / 2); }

    // Take in the next row: `mask` bytes of 0 or 1, and the values they came from: no NaN is set, no -0.0 there.
    void add(const uint8_t* mask, const float* values) {
        const int64_t from = above_;
        above_ = runs_count_;
        int64_t candidate = from;
        for (int64_t begin = find(mask, 0, 1); begin < width_;) {
            const int64_t end = find(mask, begin + 1, 0);
            Run& run = runs_[runs_count_++];
            run = {int32_t(row_), int32_t(begin), int32_t(end), -1};
            while (candidate < above_ && runs_[candidate].end < begin) ++candidate;
            // The last run above that this one touches may touch the next one too: `candidate` stays.
            for (int64_t i = candidate; i < above_ && runs_[i].begin <= end; ++i) {
                run.part = run.part < 0 ? root(runs_[i].part) : join(run.part, root(runs_[i].part));
                candidate = i;
            }
            measure(run, highest(values + begin, end - begin));
            begin = find(mask, end + 1, 1);
        }
        ++row_;
    }

    // Clear the pixels of components below `min_area` in the mask (height, width).
    void clear_small(int64_t min_area, uint8_t* mask) {
        for (int64_t i = 0; i < runs_count_; ++i) {
            const Run& run = runs_[i];
            if (parts_[root(run.part)].area < min_area)
                std::memset(mask + run.row * width_ + run.begin, 0, size_t(run.end - run.begin));
        }
    }

    // Last call: sort the best components of at least `min_area` to the front; return how many, at most `limit`.
    int64_t rank(int64_t min_area, int64_t limit) {
        int64_t count = 0;
        for (int32_t i = 0; i < parts_count_; ++i) {
            if (parts_[i].parent == i && parts_[i].area >= min_area) parts_[count++] = parts_[i];
        }
        if (count > limit) {
            std::nth_element(parts_, parts_ + limit, parts_ + count, better);
            count = limit;
        }
        std::sort(parts_, parts_ + count, better);
        return count;
    }

    const Part& operator[](int64_t rank) const { return parts_[rank]; }

private:
    struct Run {
        int32_t row, begin, end, part;
    };

    int64_t find(const uint8_t* mask, int64_t from, int byte) const {
        if (from >= width_) return width_;
        const void* found = std::memchr(mask + from, byte, size_t(width_ - from));
        return found == nullptr ? width_ : static_cast<const uint8_t*>(found) - mask;
    }

    // In lanes: a compiler keeps the order of comparisons of floats, and so would wait for each.
    static float highest(const float* values, int64_t n) {
        constexpr int64_t kLanes = 16;
        float best[kLanes];
        for (float& lane : best) lane = values[0];
        int64_t i = 0;
        for (; i + kLanes <= n; i += kLanes) {
            for (int64_t lane = 0; lane < kLanes; ++lane) best[lane] = std::max(best[lane], values[i + lane]);
        }
        for (; i < n; ++i) best[0] = std::max(best[0], values[i]);
        return *std::max_element(best, best + kLanes);
    }

    int32_t root(int32_t part) {
        while (parts_[part].parent != part) part = parts_[part].parent = parts_[parts_[part].parent].parent;
        return part;
    }

    // Join two roots; return the one that stays. Its top is the upper one; the run that joins them will set the bottom.
    int32_t join(int32_t a, int32_t b) {
        if (a == b) return a;
        const int32_t low = std::min(a, b), high = std::max(a, b);
        Part& kept = parts_[low];
        const Part& gone = parts_[high];
        kept.left = std::min(kept.left, gone.left);
        kept.right = std::max(kept.right, gone.right);
        kept.peak = std::max(kept.peak, gone.peak);
        kept.area += gone.area;
        parts_[high].parent = low;
        return low;
    }

    void measure(Run& run, float peak) {
        if (run.part < 0) {
            run.part = int32_t(parts_count_++);
            parts_[run.part] = {run.part, run.begin, run.row, run.end, run.row + 1, peak, run.end - run.begin};
            return;
        }
        Part& part = parts_[run.part];
        part.left = std::min(part.left, run.begin);
        part.right = std::max(part.right, run.end);
        part.bottom = run.row + 1;
        part.peak = std::max(part.peak, peak);
        part.area += run.end - run.begin;
    }

    int64_t width_;
    Run* runs_;
    Part* parts_;
    int64_t runs_count_ = 0, parts_count_ = 0, row_ = 0;
    int64_t above_ = 0;  // first run of the row above the next one
};

}  // namespace edgekd
