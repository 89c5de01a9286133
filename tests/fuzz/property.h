// A check inside a fuzz target that holds in every build: the condition and its place are printed, then abort.
#pragma once

#include <cstdio>
#include <cstdlib>

#define PROPERTY(condition)                                                                           \
    do {                                                                                              \
        if (!(condition)) {                                                                           \
            std::fprintf(stderr, "PROPERTY VIOLATED: %s at %s:%d\n", #condition, __FILE__, __LINE__); \
            std::abort();                                                                             \
        }                                                                                             \
    } while (false)
