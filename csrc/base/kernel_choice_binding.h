// What Python sees of a KernelChoice.
#pragma once
#include <pybind11/pybind11.h>

#include <string>

#include "base/kernel_choice.h"

namespace fastload {

// Binds NAME(), the instruction set in use, and use_NAME(name), which forces one.
template <class Kernels>
void bind_kernel_choice(pybind11::module_ &module, const std::string &name, KernelChoice<Kernels> &choice) {
    module.def(name.c_str(), [&choice] { return std::string(choice.in_use().name); }, "The instruction set in use.");
    module.def(("use_" + name).c_str(), [&choice](const std::string &set) { choice.use(set); },
               "Forces an instruction set, for tests and benchmarks; the empty string chooses the best again.");
}

}  // namespace fastload
