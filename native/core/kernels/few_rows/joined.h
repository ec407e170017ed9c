// Up to three projections of the same few rows at once, in weights of the input's dtype, int8 or NF4, with LoRA
// adapters and what follows them: a decoding step's query, key and value, or its gate and up. On CUDA that is one
// launch, with adapters two; elsewhere it is made of the functions that there are. For inference: nothing is recorded.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "core/kernels/few_rows/args.h"
#include "core/kernels/few_rows/joined_args.h"

namespace voxtorch::kernels {

// One of them. Undefined tensors are not there.
struct Projection {
  at::Tensor weight;    // [out, in] of the input's dtype; int8 [out, in]; codes of NF4, uint8 [ceil(out * in / 2), 1]
  int64_t out = 0;      // rows of the result
  at::Tensor scale{};   // float32: of int8 [out] (value = code * scale / 127), of NF4 [ceil(out * in / block)]
  int64_t block = 0;    // of NF4: weights that share a scale, an even number; else 0
  at::Tensor bias{};    // [out] of the input's dtype
  at::Tensor lora_a{};  // [rank, in] of the input's dtype
  at::Tensor lora_b{};  // [out, rank] of the input's dtype
  double lora_scaling = 1;
  // Of GGUF's blocks, which kernels::DecodeStep alone takes; the weight is uint8 [out, bytes of a row] then.
  std::optional<FewRows::Weight> blocks{};
};

// Rows that a weight of the input's dtype takes at most; ATen's product is for more. Codes take any number of rows.
constexpr int64_t kMostJoinedRows = 8;

// input [..., in] -> [..., sum of out]: the operator of this name. `activation` is a name that nn::activation knows, of
// one projection; with "_mul" after it, of two: activation(first) * second, [..., out]; or "none".
at::Tensor few_rows_joined(const at::Tensor& input, at::ArrayRef<Projection> projections,
                           std::string_view activation = "none");

// What the implementations share.
struct JoinedActivation {
  JoinedFunction function = JoinedFunction::kNone;
  bool gated = false;
};
// As nn::activation names them; throws for others.
JoinedFunction joined_function(std::string_view name);
// Throws a sentence for what does not fit.
JoinedActivation check_joined(const at::Tensor& input, at::ArrayRef<Projection> projections,
                              std::string_view activation);
JoinedWeight weight_kind(const Projection& projection);
// The operator's arguments as projections. An empty list is one of which no projection has anything.
std::vector<Projection> projections_of(at::TensorList weights, const c10::List<std::optional<at::Tensor>>& scales,
                                       at::IntArrayRef outs, at::IntArrayRef blocks,
                                       const c10::List<std::optional<at::Tensor>>& biases,
                                       const c10::List<std::optional<at::Tensor>>& lora_a,
                                       const c10::List<std::optional<at::Tensor>>& lora_b,
                                       at::ArrayRef<double> lora_scaling);
// Made of other functions, on any device.
at::Tensor joined_in_parts(const at::Tensor& input, at::ArrayRef<Projection> projections, JoinedActivation activation);

}  // namespace voxtorch::kernels
