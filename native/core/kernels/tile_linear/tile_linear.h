// y = x Wᵀ + b of many rows with a weight that was put in order once (see args.h): of bfloat16 by AMX, which is two to
// four times as fast as oneDNN's product where that splits badly; and of int8 codes with inputs quantized row by row as
// they come, on every processor.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "core/kernels/linear.h"
#include "core/kernels/tile_linear/args.h"

namespace voxtorch::kernels {

// Whether this processor multiplies tiles (AMX) and ATEN_CPU_CAPABILITY and ONEDNN_MAX_CPU_ISA allow it.
bool has_tiles();

// weight [out, in], bfloat16 or int8, in the kernels' order, [out / 32, in / step, 32, step] with 32 or 64 inputs a
// step; undefined if its sizes are not multiples of these, and for bfloat16 on a processor without tiles.
at::Tensor tiled_weight(const at::Tensor& weight);

// As tiled_weight gives it: a weight otherwise has two dimensions.
inline bool is_tiled(const at::Tensor& weight) { return weight.dim() == 4; }

// Of bfloat16: input [..., in] and residual [..., out] bfloat16 and contiguous. The activation must be one of
// tile_activation's.
at::Tensor tile_linear(const at::Tensor& input, const at::Tensor& tiled, const std::optional<at::Tensor>& bias,
                       FusedActivation activation, const at::Tensor& residual);

// Of int8: input float32 or bfloat16, the result of its dtype; scale float32 [out] is what a code stands for.
at::Tensor tile_linear_int8(const at::Tensor& input, const at::Tensor& tiled, const at::Tensor& scale,
                            const std::optional<at::Tensor>& bias, FusedActivation activation,
                            const at::Tensor& residual);

// The build for this processor, for those who share out the outputs themselves; of bfloat16 only where has_tiles().
TileLinearSquares tile_squares();

// Whether the kernels can apply it; nothing counts as one.
bool is_tile_activation(FusedActivation activation);

}  // namespace voxtorch::kernels
