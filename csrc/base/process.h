// Which process this is.
//
// A PID does not tell processes apart: in nested PID namespaces parent and child may both be 1. What belongs to one
// process remembers `fork_count()`, which every forked child finds raised.
#pragma once
#include <cstdint>

namespace fastload {

// How many forks lie between the process that loaded this library and the calling one. Python: fastload/backends.py.
uint64_t fork_count() noexcept;

// Calls `function` in every child that is forked from now on, after the count was raised. Throws std::bad_alloc.
void call_in_forked_child(void (*function)());

}  // namespace fastload
