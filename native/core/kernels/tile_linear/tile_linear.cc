#include "core/kernels/tile_linear/tile_linear.h"

#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/cpu/Utils.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <string_view>

#include "core/kernels/tile_linear/args.h"

namespace voxtorch::kernels {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using Activation = TileLinear::Activation;

constexpr int64_t kFewestRows = 128, kMostRows = 512;  // of a task; more would not stay in the second-level cache
constexpr int64_t kTaskColumns = 256;

#if defined(__x86_64__)
// oneDNN's word for the widest instruction set that it may use, which is meant for these kernels too.
bool is_amx_allowed() {
  const char* given = std::getenv("ONEDNN_MAX_CPU_ISA");
  if (given == nullptr) given = std::getenv("DNNL_MAX_CPU_ISA");
  if (given == nullptr) return true;
  std::string isa = given;
  std::transform(isa.begin(), isa.end(), isa.begin(), [](unsigned char c) { return std::toupper(c); });
  return isa.empty() || isa == "ALL" || isa == "DEFAULT" || isa.find("AMX") != std::string::npos ||
         isa.rfind("AVX10", 0) == 0;
}
#endif

struct Kernels {
  TileLinearSquares squares;
  QuantizeRows quantize;
  bool has_tiles;
};

const Kernels& kernels() {
  static const Kernels chosen = []() -> Kernels {
#if defined(__x86_64__)
    if (instruction_set() == InstructionSet::kAvx512) {
#if defined(VOXTORCH_AMX)
      if (is_amx_allowed() && __builtin_cpu_supports("amx-bf16") && __builtin_cpu_supports("amx-int8") &&
          at::cpu::init_amx())
        return {tile_linear_amx, quantize_rows_avx512, true};
#endif
      if (__builtin_cpu_supports("avx512vnni")) return {tile_linear_vnni, quantize_rows_avx512, false};
    }
#endif
    return {VOXTORCH_BEST_BUILD(tile_linear), VOXTORCH_BEST_BUILD(quantize_rows), false};
  }();
  return chosen;
}

Activation tile_activation(FusedActivation activation) {
  if (activation.attribute == nullptr) return Activation::none;
  if (activation.attribute == std::string_view("relu")) return Activation::relu;
  return activation.algorithm == std::string_view("tanh") ? Activation::gelu_tanh : Activation::gelu;
}

Tensor floats(const OptionalTensor& tensor) {
  return tensor.has_value() && tensor->defined() ? tensor->to(at::kFloat).contiguous() : Tensor();
}

const float* pointer(const Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr<float>() : nullptr; }

// `args` has the input, its type and the scales.
Tensor product(const Tensor& input, const Tensor& tiled, const OptionalTensor& bias, FusedActivation activation,
               const Tensor& residual, TileLinear args) {
  args.in = input.size(-1);
  args.out = tiled.size(0) * kTileSide;
  args.rows = input.numel() / args.in;
  const Tensor offset = floats(bias);
  std::vector<int64_t> shape = input.sizes().vec();
  shape.back() = args.out;
  Tensor output = at::empty(shape, input.options());
  args.weight = tiled.const_data_ptr();
  args.bias = pointer(offset);
  args.residual = residual.defined() ? residual.const_data_ptr() : nullptr;
  args.output = output.mutable_data_ptr();
  args.is_bfloat16 = input.scalar_type() == at::kBFloat16;
  args.activation = tile_activation(activation);
  const int64_t share = (args.rows + at::get_num_threads() - 1) / at::get_num_threads();
  const int64_t height = std::clamp((share + kTileSide - 1) / kTileSide * kTileSide, kFewestRows, kMostRows);
  const int64_t down = (args.rows + height - 1) / height;
  const int64_t across = (args.out + kTaskColumns - 1) / kTaskColumns;
  // A thread keeps its rows as long as possible, and goes over the weights once for them.
  const TileLinearSquares squares = kernels().squares;
  at::parallel_for(0, down * across, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end;) {
      const int64_t row = task / across * height, first = task % across, last = std::min(across, first + end - task);
      squares(args, row, std::min(args.rows, row + height), first * kTaskColumns,
              std::min(args.out, last * kTaskColumns));
      task += last - first;
    }
  });
  return output;
}

}  // namespace

bool has_tiles() { return kernels().has_tiles; }

TileLinearSquares tile_squares() { return kernels().squares; }

bool is_tile_activation(FusedActivation activation) {
  if (activation.attribute == nullptr) return true;
  const std::string_view attribute = activation.attribute, algorithm = activation.algorithm;
  return attribute == "relu" || (attribute == "gelu" && (algorithm == "none" || algorithm == "tanh"));
}

Tensor tiled_weight(const Tensor& weight) {
  const int64_t together = weight.scalar_type() == at::kChar ? 4 : 2;  // inputs in 4 bytes
  const int64_t step = 16 * together;
  if (weight.dim() != 2 || weight.size(0) % kTileSide != 0 || weight.size(1) % step != 0 || weight.numel() == 0)
    return {};
  if (weight.scalar_type() != at::kChar && (weight.scalar_type() != at::kBFloat16 || !has_tiles())) return {};
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const int64_t columns = weight.size(0) / kTileSide, steps = weight.size(1) / step;
  return weight.view({columns, 2, 16, steps, 16, together})
      .permute({0, 3, 1, 4, 2, 5})
      .contiguous()
      .view({columns, steps, kTileSide, step});
}

Tensor tile_linear(const Tensor& input, const Tensor& tiled, const OptionalTensor& bias, FusedActivation activation,
                   const Tensor& residual) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  TileLinear args{};
  args.type = TileLinear::Type::bfloat16;
  args.input = input.const_data_ptr();
  return product(input, tiled, bias, activation, residual, args);
}

Tensor tile_linear_int8(const Tensor& input, const Tensor& tiled, const Tensor& scale, const OptionalTensor& bias,
                        FusedActivation activation, const Tensor& residual) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const int64_t in = input.size(-1), rows = input.numel() / in;
  const Tensor codes = at::empty({rows, in}, input.options().dtype(at::kChar));
  const Tensor scales = at::empty({rows}, input.options().dtype(at::kFloat));
  const RowCodes row_codes{input.const_data_ptr(), input.scalar_type() == at::kBFloat16,
                           codes.mutable_data_ptr<int8_t>(), scales.mutable_data_ptr<float>(), in};
  const QuantizeRows quantize = kernels().quantize;
  at::parallel_for(0, rows, std::max<int64_t>(1, 16384 / in),
                   [&](int64_t begin, int64_t end) { quantize(row_codes, begin, end); });
  TileLinear args{};
  args.type = TileLinear::Type::int8;
  args.input = codes.const_data_ptr();
  args.row_scale = scales.const_data_ptr<float>();
  args.column_scale = scale.const_data_ptr<float>();
  return product(input, tiled, bias, activation, residual, args);
}

}  // namespace voxtorch::kernels
