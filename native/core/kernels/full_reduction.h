// Sums and means over all elements of a CPU tensor.
#pragma once

namespace voxtorch::kernels {

// Replaces ATen's kernels of `sum` and `mean` on the CPU. ATen adds up one part for each thread, so the last bits of a
// sum over all elements depend on the number of threads; here the parts have a fixed size. Reductions along some
// dimensions stay ATen's. Called once in the process.
void use_full_reductions();

}  // namespace voxtorch::kernels
