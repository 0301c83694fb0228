// Letterbox on the host. A row of the source is resampled across once, into 32-bit sums, planar; two such rows are then
// blended down, rounded, and made values of the network's input. Sums are exact: the order of the two changes no bit.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "host.h"
#include "letterbox_checks.h"
#include "letterbox_steps.h"

namespace edgekd {
namespace {

struct Scratch {
    Columns columns;
    int32_t* rows[2];  // sums, 3 planes each
    uint8_t* planes;   // values of a row, 3 planes, on their way to being pixels
    uint8_t* colours;  // a row of a camera frame, decoded

    Scratch(Workspace& workspace, int64_t width, int64_t new_width) : columns() {
        const int64_t pitch = (new_width + 15) & ~int64_t(15);
        columns.count = new_width;
        columns.pitch = pitch;
        columns.offsets = workspace.take<int32_t>(pitch);
        columns.weights = workspace.take<uint32_t>(pitch);
        for (int32_t*& row : rows) row = workspace.take<int32_t>(3 * pitch);
        planes = workspace.take<uint8_t>(3 * pitch * int64_t(sizeof(float)));
        colours = workspace.take<uint8_t>(4 * width);
    }
};

// One value a channel, in at most 3 * 4 bytes, as they are to lie in memory.
using Pixel = uint8_t[12];

struct Job {
    const edgekd_frame& frame;
    const edgekd_canvas& canvas;
    const Steps& steps;
    Channel channels[3];
    int64_t bytes;  // of a value
    Across across;
    Down down;

    bool planar() const { return canvas.layout == EDGEKD_NCHW; }
    int64_t planes() const { return frame.pixels == EDGEKD_GREY ? 1 : 3; }
};

// Both roundings of the definition together seldom differ from those of a straight line; look at every level.
void straighten(Channel& channel) {
    channel.factor = 1 / (channel.std * channel.to.scale);
    channel.offset = -channel.mean * channel.factor;
    if (!(channel.factor * 255 < 1e9f) || !(std::fabs(channel.offset) < 1e9f)) return;
    int different = 0;
    for (int32_t level = 0; level < 256; ++level) {
        const int32_t line = whole(float(level) * channel.factor + channel.offset, channel.to);
        different += line != quantize(normalise(level, channel.mean, channel.std), channel.to);
    }
    channel.straight = different == 0;
}

Job prepare(const edgekd_frame& frame, const edgekd_canvas& canvas, const Steps& steps) {
    Job job{frame, canvas, steps, {}, bytes_of_value(canvas.values), steps.across_four, steps.down_quantized};
    if (frame.pixels == EDGEKD_GREY) job.across = steps.across_grey;
    if (frame.pixels == EDGEKD_THREE) job.across = steps.across_three;
    if (canvas.values == EDGEKD_FLOAT32) job.down = steps.down_float;
    if (canvas.values == EDGEKD_FLOAT16) job.down = steps.down_half;
    for (int c = 0; c < 3; ++c) {
        job.channels[c] = {canvas.mean[c], canvas.std[c], quantization(canvas), false, 0, 0};
        if (quantizes(canvas.values)) straighten(job.channels[c]);
    }
    return job;
}

void plan_columns(const Job& job, Columns& columns) {
    const int64_t channels = channels_of(job.frame.pixels);
    columns.row_bytes = job.frame.width * channels;
    for (int64_t x = 0; x < columns.count; ++x) {
        const Tap t = tap(x, job.frame.width, columns.count);
        columns.offsets[x] = int32_t(t.first * channels);
        columns.weights[x] = uint32_t(t.weight) << 16 | uint32_t(kOne - t.weight);
    }
}

// Row `y` of the source as interleaved channels.
const uint8_t* source_row(const Job& job, const Scratch& scratch, int64_t y) {
    const edgekd_frame& frame = job.frame;
    const uint8_t* row = frame.data + y * frame.row_stride;
    if (frame.pixels != EDGEKD_NV12 && frame.pixels != EDGEKD_YUYV) return row;
    if (frame.pixels == EDGEKD_YUYV) job.steps.from_yuyv(row, row + 1, scratch.colours, frame.width / 2);
    if (frame.pixels == EDGEKD_NV12) {
        job.steps.from_nv12(row, frame.chroma + y / 2 * frame.chroma_stride, scratch.colours, frame.width / 2);
    }
    return scratch.colours;
}

// Row `y` of the resized image, out of two rows of sums.
void write_row(const Job& job, const Scratch& scratch, const Tap& t, int64_t y) {
    const edgekd_canvas& to = job.canvas;
    const int64_t pitch = scratch.columns.pitch, row = to.top + y;
    for (int64_t c = 0; c < 3; ++c) {
        const int64_t plane = job.planes() == 1 ? 0 : to.swap != 0 ? 2 - c : c;
        const int32_t* upper = scratch.rows[0] + plane * pitch;
        const int32_t* lower = t.weight == 0 ? upper : scratch.rows[1] + plane * pitch;
        uint8_t* values = scratch.planes + c * pitch * job.bytes;
        if (job.planar()) {
            values = static_cast<uint8_t*>(to.data) + ((c * to.height + row) * to.width + to.left) * job.bytes;
        }
        job.down(upper, lower, t.weight, job.channels[c], values, to.new_width);
    }
    if (job.planar()) return;
    uint8_t* pixels = static_cast<uint8_t*>(to.data) + (row * to.width + to.left) * 3 * job.bytes;
    job.steps.interleave(scratch.planes, pitch * job.bytes, job.bytes, pixels, to.new_width);
}

void write_image(const Job& job, Scratch& scratch) {
    plan_columns(job, scratch.columns);
    int64_t held[2] = {-1, -1};
    for (int64_t y = 0; y < job.canvas.new_height; ++y) {
        const Tap t = tap(y, job.frame.height, job.canvas.new_height);
        if (held[1] == t.first) {
            std::swap(held[0], held[1]);
            std::swap(scratch.rows[0], scratch.rows[1]);
        }
        const int64_t wanted[2] = {t.first, t.weight == 0 ? t.first : t.first + 1};
        for (int i = 0; i < (t.weight == 0 ? 1 : 2); ++i) {
            if (held[i] == wanted[i]) continue;
            held[i] = wanted[i];
            job.across(scratch.columns, source_row(job, scratch, wanted[i]), scratch.rows[i]);
        }
        write_row(job, scratch, t, y);
    }
}

// The pad's value in each channel.
void pad_pixel(const Job& job, Pixel& pixel) {
    for (int c = 0; c < 3; ++c) {
        const Channel& channel = job.channels[c];
        const float value = normalise(job.canvas.pad, channel.mean, channel.std);
        const uint16_t half = half_bits(value);
        const uint8_t whole = quantizes(job.canvas.values) ? uint8_t(quantize(value, channel.to)) : 0;
        const void* from = &whole;
        if (job.canvas.values == EDGEKD_FLOAT32) from = &value;
        if (job.canvas.values == EDGEKD_FLOAT16) from = &half;
        std::memcpy(pixel + c * job.bytes, from, size_t(job.bytes));
    }
}

// Fill memory with a pattern: what has been written is the source of more, up to a piece that stays in the cache.
void repeat(uint8_t* out, int64_t bytes, const uint8_t* pattern, int64_t period) {
    int64_t piece = std::min(bytes, period);
    std::memcpy(out, pattern, size_t(piece));
    for (int64_t done = piece; done < bytes;) {
        const int64_t more = std::min(piece, bytes - done);
        std::memcpy(out + done, out, size_t(more));
        done += more;
        if (done < 8192) piece = done;
    }
}

// The border in memory of `height` rows of `width` elements: above, below, and to both sides, copies of the first row.
void write_border(const edgekd_canvas& to, uint8_t* out, const uint8_t* element, int64_t bytes) {
    const int64_t pitch = to.width * bytes, left = to.left * bytes, right = (to.left + to.new_width) * bytes;
    uint8_t* first = out + to.top * pitch;
    repeat(out, to.top * pitch, element, bytes);
    repeat(first + to.new_height * pitch, (to.height - to.top - to.new_height) * pitch, element, bytes);
    repeat(first, left, element, bytes);
    repeat(first + right, pitch - right, element, bytes);
    for (int64_t y = 1; y < to.new_height; ++y) {
        std::memcpy(first + y * pitch, first, size_t(left));
        std::memcpy(first + y * pitch + right, first + right, size_t(pitch - right));
    }
}

void pad(const Job& job) {
    const edgekd_canvas& to = job.canvas;
    uint8_t* out = static_cast<uint8_t*>(to.data);
    Pixel pixel;
    pad_pixel(job, pixel);
    if (!job.planar()) return write_border(to, out, pixel, 3 * job.bytes);
    for (int64_t c = 0; c < 3; ++c) {
        write_border(to, out + c * to.height * to.width * job.bytes, pixel + c * job.bytes, job.bytes);
    }
}

const Steps& steps_of(int32_t chosen) {
#if EDGEKD_HAS_AVX
    if (chosen == EDGEKD_AVX512) return kAvx512Steps;
    if (chosen == EDGEKD_AVX2) return kAvx2Steps;
#endif
#if EDGEKD_HAS_NEON
    if (chosen == EDGEKD_NEON) return kNeonSteps;
#endif
    (void)chosen;
    return kPlainSteps;
}

}  // namespace
}  // namespace edgekd

extern "C" int64_t edgekd_letterbox_workspace(int64_t width, int64_t new_width) {
    if (!edgekd::side(width) || !edgekd::side(new_width)) return EDGEKD_BAD_ARGUMENT;
    edgekd::Workspace workspace;
    edgekd::Scratch scratch(workspace, width, new_width);
    return workspace.needed();
}

extern "C" int32_t edgekd_letterbox(const edgekd_frame* frame, const edgekd_canvas* canvas, int32_t keep_border,
                                    int32_t instructions, void* workspace_memory, int64_t workspace_bytes) {
    if (!frame || !canvas || !edgekd::sound(*frame) || !edgekd::sound(*canvas)) return EDGEKD_BAD_ARGUMENT;
    const int32_t chosen = edgekd::resolve(instructions);
    if (chosen < 0) return chosen;
    edgekd::Workspace workspace(workspace_memory, workspace_bytes);
    edgekd::Scratch scratch(workspace, frame->width, canvas->new_width);
    if (!workspace.fits()) return EDGEKD_SMALL_WORKSPACE;
    const edgekd::Job job = edgekd::prepare(*frame, *canvas, edgekd::steps_of(chosen));
    edgekd::write_image(job, scratch);
    if (!keep_border) edgekd::pad(job);
    return EDGEKD_OK;
}
