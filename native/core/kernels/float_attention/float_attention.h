// Scaled dot product attention of float32 on the CPU and its gradient, block by block as in FlashAttention (arXiv
// 2205.14135), on the blocks of float_product.h, where MKL's products of such small matrices reach half of the
// processor's rate.
#pragma once

namespace voxtorch::kernels {

// Replaces ATen's kernels of `_scaled_dot_product_flash_attention_for_cpu` and its gradient, which are used where the
// products of float_product.h are. Called once in the process.
void use_float_attention();

}  // namespace voxtorch::kernels
