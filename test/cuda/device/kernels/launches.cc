// Joins the emulated kernels to the pretended device: while one runs, device memory can be touched, and it is a launch.
#include "emulation.h"

extern "C" void pretended_cuda_begin_kernel(const char* name);
extern "C" void pretended_cuda_end_kernel();

namespace {
[[maybe_unused]] const bool joined =
    (emulation::launch_begins = pretended_cuda_begin_kernel, emulation::launch_ends = pretended_cuda_end_kernel, true);
}  // namespace
