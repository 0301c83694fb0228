// Drives the letterbox with NEON, emulated. Built and run by test_neon.py; prints "ok".
#include "../sanitize.h"

int main() {
    expect(edgekd_supports(EDGEKD_NEON) == 1, "built without NEON");
    Random random(1);
    for (int i = 0; i < 1500; ++i) letterbox(random);
    std::puts("ok");
    return 0;
}
