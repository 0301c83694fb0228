/* Finds the objects of a bundle's golden images, in C: reads model.bin and calls edgekd's kernels, nothing else.
 *
 *     detect model.bin [conf [iou]]
 *
 * A golden image's outputs stand for those of an engine, which would write its own arrays of the same shapes. Boxes are
 * upright and in pixels of the network's input. The format of the file is said in docs/bundle.md. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edgekd_kernels.h"

enum { HEADER = 256, ROW = 54, MAX_TOC = 1 << 20, MAX_NAME = 128, MAX_DET = 300, MAX_CANDIDATES = 3000 };

typedef struct {
    uint8_t* bytes;
    uint64_t size;
} file;

static void fail(const char* why) {
    fprintf(stderr, "detect: %s\n", why);
    exit(2);
}

static void* room(uint64_t size) {
    void* found = malloc(size ? size : 1);
    if (found == NULL) fail("out of memory");
    return found;
}

static uint64_t number(const uint8_t* at, int bytes) { /* little-endian, on any machine */
    uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; --i) value = value << 8 | at[i];
    return value;
}

static file read_file(const char* path) {
    FILE* stream = fopen(path, "rb");
    file found = {NULL, 0};
    if (stream == NULL || fseek(stream, 0, SEEK_END) != 0) fail("cannot open the bundle");
    const long size = ftell(stream);
    if (size < HEADER) fail("too short for a bundle");
    rewind(stream);
    found.size = (uint64_t)size;
    found.bytes = room(found.size);
    if (fread(found.bytes, 1, found.size, stream) != found.size) fail("cannot read the bundle");
    fclose(stream);
    return found;
}

/* Check what this program relies on. The hashes are not checked here: `edgekd inspect` and `edgekd.load` do. */
static void check_header(file bundle) {
    static const uint8_t magic[8] = {0x89, 0x45, 0x4B, 0x44, 0x42, 0x0D, 0x0A, 0x1A};
    if (memcmp(bundle.bytes, magic, sizeof magic) != 0) fail("not a bundle");
    if (number(bundle.bytes + 8, 4) != 1) fail("a bundle of another version");
    if (number(bundle.bytes + 16, 8) != bundle.size) fail("a bundle that was cut off");
    const uint64_t toc = number(bundle.bytes + 24, 8);
    if (toc < 4 || toc > MAX_TOC || toc > bundle.size - HEADER) fail("a damaged table of contents");
}

/* Return the bytes of a chunk, and their number; NULL: there is none of that name. */
static const uint8_t* chunk(file bundle, const char* name, uint64_t* size) {
    const uint8_t* at = bundle.bytes + HEADER;
    const uint8_t* end = at + number(bundle.bytes + 24, 8);
    const uint64_t count = number(at, 4);
    at += 4;
    for (uint64_t i = 0; i < count; ++i) {
        if (end - at < ROW) fail("a damaged table of contents");
        const uint64_t offset = number(at, 8), length = number(at + 8, 8), letters = number(at + 52, 2);
        if (letters > MAX_NAME || (uint64_t)(end - at) < ROW + letters) fail("a damaged table of contents");
        if (offset > bundle.size || length > bundle.size - offset) fail("a chunk outside the file");
        if (letters == strlen(name) && memcmp(at + ROW, name, letters) == 0) {
            *size = length;
            return bundle.bytes + offset;
        }
        at += ROW + letters;
    }
    return NULL;
}

/* Copy float32 out of the file: there they are little-endian and lie where they lie. */
static float* floats(const uint8_t* from, uint64_t size) {
    float* values = room(size);
    for (uint64_t i = 0; i < size / 4; ++i) {
        const uint32_t bits = (uint32_t)number(from + 4 * i, 4);
        memcpy(values + i, &bits, sizeof bits);
    }
    return values;
}

static int detect(file bundle, int image, float conf, float iou) {
    char name[MAX_NAME];
    uint64_t box_bytes = 0, score_bytes = 0;
    snprintf(name, sizeof name, "golden/%d.boxes", image);
    const uint8_t* box_chunk = chunk(bundle, name, &box_bytes);
    snprintf(name, sizeof name, "golden/%d.scores", image);
    const uint8_t* score_chunk = chunk(bundle, name, &score_bytes);
    if (box_chunk == NULL || score_chunk == NULL) return 0;
    const int64_t n = (int64_t)(box_bytes / (4 * sizeof(float)));
    const int64_t classes = n ? (int64_t)(score_bytes / sizeof(float)) / n : 0;
    if (classes < 1 || (uint64_t)(n * classes) * sizeof(float) != score_bytes)
        fail("not upright boxes and their scores");

    float *boxes = floats(box_chunk, box_bytes), *scores = floats(score_chunk, score_bytes);
    float out_boxes[4 * MAX_DET], out_scores[MAX_DET];
    int64_t out_labels[MAX_DET], count = 0;
    const int64_t need = edgekd_suppress_workspace(n, 4, classes, 0, MAX_CANDIDATES);
    void* workspace = room((uint64_t)need);
    const int32_t status =
        edgekd_suppress(boxes, 4, scores, n, classes, conf, 0, iou, EDGEKD_IOU, MAX_CANDIDATES, MAX_DET, NULL,
                        out_boxes, out_scores, out_labels, &count, EDGEKD_BEST, workspace, need);
    if (status != EDGEKD_OK) fail("the kernel refused its arguments");
    for (int64_t i = 0; i < count; ++i) {
        const float* box = out_boxes + 4 * i;
        printf("%d %d %.9g %.9g %.9g %.9g %.9g\n", image, (int)out_labels[i], out_scores[i], box[0], box[1], box[2],
               box[3]);
    }
    free(workspace);
    free(scores);
    free(boxes);
    return 1;
}

int main(int argc, char** argv) {
    if (argc < 2 || argc > 4) fail("usage: detect model.bin [conf [iou]]");
    const float conf = argc > 2 ? strtof(argv[2], NULL) : 0.25F, iou = argc > 3 ? strtof(argv[3], NULL) : 0.5F;
    const file bundle = read_file(argv[1]);
    check_header(bundle);
    int image = 0;
    while (detect(bundle, image, conf, iou)) ++image;
    if (image == 0) fail("the bundle has no golden image with upright boxes");
    free(bundle.bytes);
    return 0;
}
