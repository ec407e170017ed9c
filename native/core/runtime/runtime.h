#pragma once

namespace voxtorch {

// Gives cached memory back, of the CPU and of every CUDA device.
void release_caches();

}  // namespace voxtorch
