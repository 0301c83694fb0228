// The threads of a block as fibers of one thread: at a barrier a fiber hands over to the next. They are made once. A
// fiber starts through ucontext; _setjmp and _longjmp switch it, which, unlike swapcontext, make no system call.
#pragma once

#include <ucontext.h>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>

// Shared memory is garbage when a block starts: a section of its own, so that it can be filled with some.
#define __shared__ static __attribute__((section("edgekd_shared")))
extern "C" char __start_edgekd_shared[] __attribute__((visibility("hidden")));
extern "C" char __stop_edgekd_shared[] __attribute__((visibility("hidden")));

namespace emulation {

constexpr unsigned kMaxThreads = 1024;
constexpr size_t kStackBytes = 64 * 1024;

[[noreturn]] inline void die(const char* what) {
    std::fprintf(stderr, "CUDA emulation: %s\n", what);
    std::abort();
}

struct Fiber {
    jmp_buf place;
    unsigned next, previous;  // in the ring of those that have not finished
    bool started;
};

inline Fiber fibers[kMaxThreads];
inline jmp_buf launcher;
inline std::function<void()> work;
inline unsigned current, unfinished, stalled;

inline unsigned thread() { return current; }

void go_on();

// Runs the work of one launch after the other.
[[noreturn]] inline void live() {
    for (;;) {
        work();
        Fiber& self = fibers[current];
        fibers[self.previous].next = self.next, fibers[self.next].previous = self.previous;
        stalled = 0;
        if (_setjmp(self.place) != 0) continue;
        if (--unfinished == 0) _longjmp(launcher, 1);
        go_on();
    }
}

[[noreturn]] inline void enter(unsigned fiber) {
    current = fiber;
    if (fibers[fiber].started) _longjmp(fibers[fiber].place, 1);
    fibers[fiber].started = true;
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = std::malloc(kStackBytes);
    context.uc_stack.ss_size = kStackBytes;
    context.uc_link = nullptr;
    makecontext(&context, reinterpret_cast<void (*)()>(&live), 0);
    setcontext(&context);
    die("no context");
}

inline __attribute__((noinline)) void go_on() { enter(fibers[current].next); }

inline __attribute__((noinline)) void yield() {
    if (++stalled > 2 * unfinished) die("threads wait at a barrier that the others do not reach");
    if (_setjmp(fibers[current].place) == 0) go_on();
}

// Run `body` as `count` threads, in the order of `turns`.
template <typename Turns, typename Body>
void run(const Turns& turns, unsigned count, const Body& body) {
    std::memset(__start_edgekd_shared, 0xA5, size_t(__stop_edgekd_shared - __start_edgekd_shared));
    work = std::cref(body);
    for (unsigned i = 0; i < count; ++i) {
        fibers[turns[i]].next = turns[(i + 1) % count];
        fibers[turns[(i + 1) % count]].previous = turns[i];
    }
    unfinished = count, stalled = 0;
    if (_setjmp(launcher) == 0) enter(turns[0]);
}

struct Barrier {
    unsigned arrived = 0, generation = 0;
    int line = 0;

    void wait(unsigned count, int at) {
        if (arrived > 0 && line != at) die("threads wait at different barriers");
        line = at, stalled = 0;
        const unsigned mine = generation;
        if (++arrived == count) {
            arrived = 0, ++generation;
            return;
        }
        while (*const_cast<volatile unsigned*>(&generation) == mine) yield();
    }
};

}  // namespace emulation
