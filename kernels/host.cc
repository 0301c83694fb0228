// What this machine can do.
#include "host.h"

extern "C" int32_t edgekd_best_instructions(void) { return edgekd::resolve(EDGEKD_BEST); }

extern "C" int32_t edgekd_supports(int32_t instructions) { return edgekd::resolve(instructions) == instructions; }
