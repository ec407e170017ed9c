// Found in place of CUDA's: its runtime, in a file that a C++ compiler compiles.
#pragma once

#include "emulation.h"
#undef __CUDACC__
