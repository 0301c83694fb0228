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

// The least workspace that must do: aligned, so that none of the 64 bytes kept for alignment is left to hide an
// overrun.
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

// A digest of all results of a thread (FNV-1a), to compare two processors. What a NaN looks like is a processor's own.
inline thread_local uint64_t digest = 14695981039346656037u;

inline void note(const void* data, size_t bytes) {
    const auto* at = static_cast<const unsigned char*>(data);
    for (size_t i = 0; i < bytes; ++i) digest = (digest ^ at[i]) * 1099511628211u;
}

template <typename Real>
void note_numbers(const Real* values, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        const Real value = values[i] != values[i] ? Real(-7) : values[i];
        note(&value, sizeof value);
    }
}

void letterbox(Random& random);  // sanitize_letterbox.cc
