// What the drivers under the sanitizers share: memory that ends where the contract says, random numbers, a check.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "edgekd_kernels.h"

using Random = std::mt19937;

inline int64_t pick(Random& random, int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
}

// Heap memory of exactly n elements; the sanitizer guards both ends.
template <typename T>
struct Exact {
    explicit Exact(int64_t n) : size(n), data(static_cast<T*>(std::malloc(n ? n * sizeof(T) : 1))) {}
    ~Exact() { std::free(data); }
    Exact(const Exact&) = delete;
    Exact& operator=(const Exact&) = delete;
    int64_t size;
    T* data;
};

// The least workspace that must do: aligned, so that none of the 64 bytes kept for alignment is left to hide an overrun.
struct Tight {
    explicit Tight(int64_t needed) : size(needed - 64), data(static_cast<char*>(std::aligned_alloc(64, size))) {}
    ~Tight() { std::free(data); }
    Tight(const Tight&) = delete;
    Tight& operator=(const Tight&) = delete;
    int64_t size;
    char* data;
};

[[noreturn]] inline void fail(const char* what) {
    std::fprintf(stderr, "failed: %s\n", what);
    std::exit(1);
}

inline void expect(bool condition, const char* what) {
    if (!condition) fail(what);
}

inline int32_t instructions(int run) { return run == 0 ? EDGEKD_PLAIN : edgekd_best_instructions(); }

void letterbox(Random& random);  // sanitize_letterbox.cc
