// What this machine can do.
#include "host.h"

#if EDGEKD_HAS_AVX
#include <cpuid.h>

namespace edgekd {
namespace {

bool ask_f16c() {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

}  // namespace

const bool kHasF16c = ask_f16c();

}  // namespace edgekd
#endif

extern "C" int32_t edgekd_best_instructions(void) { return edgekd::resolve(EDGEKD_BEST); }

extern "C" int32_t edgekd_supports(int32_t instructions) { return edgekd::resolve(instructions) == instructions; }
