// Found in place of the header of CUDA.
#pragma once
#include "emulation.h"
