// Drives the letterbox: every format, type and layout, with every set of instructions that is here.
#include "sanitize.h"

namespace {

// An image in memory of its exact size: rows with or without a gap, top down or bottom up.
struct Plane {
    Plane(Random& random, int64_t rows, int64_t row_bytes)
        : stride(row_bytes + pick(random, 0, 5)), bytes((rows - 1) * stride + row_bytes), first(bytes.data) {
        for (int64_t i = 0; i < bytes.size; ++i) bytes.data[i] = uint8_t(random());
        if (random() % 2) return;
        first = bytes.data + (rows - 1) * stride;
        stride = -stride;
    }

    int64_t stride;
    Exact<uint8_t> bytes;
    const uint8_t* first;
};

float one_of(Random& random, float usual, float smallest) {
    const float values[] = {smallest, 1e-20f, 0.5f, 1, 2, 1 / 127.5f, 1e20f, 3e38f};
    return random() % 4 ? usual * float(pick(random, 1, 1000)) : values[pick(random, 0, 7)];
}

// Often none: then the last row ends where memory does.
int64_t border(Random& random) { return random() % 2 ? 0 : pick(random, 1, 5); }

edgekd_canvas canvas(Random& random) {
    edgekd_canvas to = {};
    to.new_height = pick(random, 1, 40);
    to.new_width = pick(random, 1, 90);
    if (random() % 2) to.new_width = (to.new_width + 15) / 16 * 16 + pick(random, -1, 1);
    to.left = border(random);
    to.top = border(random);
    to.height = to.new_height + to.top + border(random);
    to.width = to.new_width + to.left + border(random);
    to.values = int32_t(pick(random, EDGEKD_FLOAT32, EDGEKD_INT8));
    to.layout = int32_t(pick(random, EDGEKD_NCHW, EDGEKD_NHWC));
    to.swap = int32_t(random() % 2);
    to.pad = int32_t(pick(random, 0, 255));
    for (int c = 0; c < 3; ++c) {
        to.mean[c] = one_of(random, 0.2f, 0);
        if (random() % 2) to.mean[c] = -to.mean[c];
        to.std[c] = one_of(random, 0.2f, std::numeric_limits<float>::min());
    }
    to.scale = one_of(random, 1e-4f, std::numeric_limits<float>::min());
    to.zero_point = int32_t(to.values == EDGEKD_INT8 ? pick(random, -128, 127) : pick(random, 0, 255));
    return to;
}

}  // namespace

void letterbox(Random& random) {
    const int64_t bytes_of_pixels[] = {1, 3, 4, 1, 2}, bytes_of_values[] = {4, 2, 1, 1};
    edgekd_frame from = {};
    from.pixels = int32_t(pick(random, EDGEKD_GREY, EDGEKD_YUYV));
    from.height = 2 * pick(random, 1, 20);
    if (from.pixels != EDGEKD_NV12) from.height -= pick(random, 0, 1);
    from.width = 2 * pick(random, 1, 45);
    if (from.pixels < EDGEKD_NV12) from.width -= pick(random, 0, 1);
    const Plane image(random, from.height, from.width * bytes_of_pixels[from.pixels]);
    const Plane chroma(random, (from.height + 1) / 2, from.width);
    from.data = image.first;
    from.row_stride = image.stride;
    from.chroma = from.pixels == EDGEKD_NV12 ? chroma.first : nullptr;
    from.chroma_stride = chroma.stride;
    edgekd_canvas to = canvas(random);
    const int64_t size = 3 * to.height * to.width * bytes_of_values[to.values];
    const Exact<char> expected(size), out(size);
    for (int32_t instructions = EDGEKD_PLAIN; instructions <= EDGEKD_NEON; ++instructions) {
        if (!edgekd_supports(instructions)) continue;
        const bool first = instructions == EDGEKD_PLAIN;
        to.data = first ? expected.data : out.data;
        std::memset(to.data, first ? 0x55 : 0xaa, size_t(size));
        const Tight workspace(edgekd_letterbox_workspace(from.width, to.new_width));
        expect(edgekd_letterbox(&from, &to, 0, instructions, workspace.data, workspace.size) == EDGEKD_OK, "letterbox");
        expect(first || !std::memcmp(expected.data, out.data, size_t(size)), "letterbox differs");
        expect(edgekd_letterbox(&from, &to, 1, instructions, workspace.data, workspace.size) == EDGEKD_OK, "again");
        expect(first || !std::memcmp(expected.data, out.data, size_t(size)), "letterbox with its border differs");
        if (first) note(expected.data, size_t(size));
    }
}
