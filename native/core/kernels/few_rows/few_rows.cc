#include "core/kernels/few_rows/few_rows.h"

#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "core/kernels/block_quantization.h"
#include "core/kernels/expanded_linear.h"
#include "core/kernels/few_rows/args.h"
#include "core/kernels/many_rows/many_rows.h"
#include "core/kernels/plain.h"
#include "core/runtime/recording.h"

namespace voxtorch::kernels {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

constexpr int64_t kMostRows = 8;
// More rows are faster with panels that are packed or widened for all of them, or in thin products (float_product.h).
constexpr int64_t kMostDenseRows = 16;
constexpr int64_t kGrain = 1 << 16;      // weights below which a second thread costs more than it saves
constexpr int64_t kFewWeights = kGrain;  // these are in a cache, and quick anyway
constexpr int64_t kFewRowsToPrepare = 16;

// A build of the kernels.
struct Build {
  FewRowsOutputs outputs;
  void (*prepare)(const float* input, int64_t rows, int64_t in, void* to);
};

const Build& chosen() {
  static const Build build = [] {
#if defined(__x86_64__)
    if (has_integer_sums()) return Build{few_rows_avx512_vnni, few_rows_prepare_avx512_vnni};
#endif
    return Build{VOXTORCH_BEST_BUILD(few_rows), VOXTORCH_BEST_BUILD(few_rows_prepare)};
  }();
  return build;
}

// Whether there are few rows of so many numbers, of a dtype and kind that the kernels take.
bool are_few(const Tensor& input, int64_t out, int64_t in, int64_t most = kMostRows) {
  const c10::ScalarType dtype = input.scalar_type();
  if ((dtype != at::kFloat && dtype != at::kBFloat16 && dtype != at::kHalf) || !is_inference()) return false;
  if (input.dim() == 0 || input.size(-1) != in || out * in < kFewWeights) return false;
  if (input.numel() == 0 || input.numel() > most * in || !is_plain(input, dtype)) return false;
  return !at::autocast::is_autocast_enabled(at::kCPU);
}

// Up to how many rows of weights of their own dtype these kernels are the faster ones.
int64_t most_dense_rows(c10::ScalarType dtype) {
  return has_products(dtype) && dtype != at::kFloat ? kMostRows : kMostDenseRows;
}

Tensor floats(const Tensor& tensor) { return tensor.to(at::kFloat).contiguous(); }

const float* pointer(const Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr<float>() : nullptr; }

// `weights` has everything that does not follow from the other arguments.
Tensor product(const Tensor& input, const OptionalTensor& bias, FewRows weights) {
  const Tensor rows = floats(input);
  const Tensor offset = bias.has_value() && bias->defined() ? floats(*bias) : Tensor();
  std::vector<int64_t> shape = input.sizes().vec();
  shape.back() = weights.out;
  Tensor output = at::empty(shape, rows.options());
  weights.input = pointer(rows);
  weights.bias = pointer(offset);
  weights.output = output.mutable_data_ptr<float>();
  weights.rows = rows.numel() / weights.in;
  Tensor prepared;
  if (needs_prepared_rows(weights.type)) {
    const size_t bytes = prepared_rows_bytes(weights.type, weights.rows, weights.in);
    prepared = at::empty({static_cast<int64_t>(bytes)}, rows.options().dtype(at::kByte));
    const int64_t of_row = static_cast<int64_t>(bytes) / weights.rows;
    auto* const to = prepared.mutable_data_ptr<uint8_t>();
    at::parallel_for(0, weights.rows, kFewRowsToPrepare, [&](int64_t begin, int64_t end) {
      prepare_rows(weights.type, pointer(rows) + begin * weights.in, end - begin, weights.in, to + begin * of_row);
    });
    weights.input = to;
  }
  const FewRowsOutputs outputs = outputs_of();
  at::parallel_for(0, weights.out, std::max<int64_t>(1, kGrain / weights.in),
                   [&](int64_t begin, int64_t end) { outputs(weights, begin, end); });
  return output.to(input.scalar_type());
}

// In the order that nf4's codes want.
void in_lanes(const float* from, int64_t count, float* to) {
  constexpr int64_t kPlaces = kNf4Group / kNf4Lanes;
  for (int64_t group = 0; group < count; group += kNf4Group) {
    for (int64_t i = 0; i < kNf4Group; ++i) to[group + i % kPlaces * kNf4Lanes + i / kPlaces] = from[group + i];
  }
}

// Whether an input of any number of rows is one that is multiplied as integers.
bool has_plain_rows(const Tensor& input, int64_t in) {
  const c10::ScalarType dtype = input.scalar_type();
  return (dtype == at::kFloat || dtype == at::kBFloat16) && is_inference() && input.dim() > 0 && input.size(-1) == in &&
         input.numel() > 0 && is_plain(input, dtype) && !at::autocast::is_autocast_enabled(at::kCPU);
}

}  // namespace

#if defined(__x86_64__)
bool has_integer_sums() {
  // As oneDNN, so that one name holds both to what an older processor has.
  const char* const most = std::getenv("ONEDNN_MAX_CPU_ISA");
  return instruction_set() == InstructionSet::kAvx512 && __builtin_cpu_supports("avx512vnni") &&
         (most == nullptr || std::string_view(most) != "AVX512_CORE");
}
#endif

FewRows::Weight weight_type_of(at::ScalarType type) {
  switch (type) {
    case at::kBFloat16:
      return FewRows::Weight::bfloat16;
    case at::kHalf:
      return FewRows::Weight::float16;
    case at::kChar:
      return FewRows::Weight::int8;
    default:
      return FewRows::Weight::float32;
  }
}

FewRowsOutputs outputs_of() { return chosen().outputs; }

bool needs_prepared_rows(FewRows::Weight type) { return type == FewRows::Weight::nf4 || has_integer_inputs(type); }

size_t prepared_rows_bytes(FewRows::Weight type, int64_t rows, int64_t in) {
  if (type == FewRows::Weight::nf4) return static_cast<size_t>(rows * in) * sizeof(float);
  return has_integer_inputs(type) ? static_cast<size_t>(rows * integer_row_bytes(in)) : 0;
}

void prepare_rows(FewRows::Weight type, const float* input, int64_t rows, int64_t in, void* to) {
  if (type == FewRows::Weight::nf4)
    in_lanes(input, rows * in, static_cast<float*>(to));
  else if (has_integer_inputs(type))
    chosen().prepare(input, rows, in, to);
}

bool are_few_rows(const Tensor& input, const Tensor& weight) {
  if (weight.dim() != 2 || !is_plain(weight, weight.scalar_type()) || !weight.is_contiguous()) return false;
  const bool is_dense = weight.scalar_type() == input.scalar_type();
  if (!is_dense && weight.scalar_type() != at::kChar) return false;
  return are_few(input, weight.size(0), weight.size(1), is_dense ? most_dense_rows(input.scalar_type()) : kMostRows);
}

bool are_many_rows(const Tensor& input, const Tensor& weight) {
  return weight.dim() == 2 && is_plain(weight, at::kChar) && weight.is_contiguous() && weight.numel() >= kFewWeights &&
         has_plain_rows(input, weight.size(1)) && input.numel() >= kFewestManyRows * weight.size(1);
}

Tensor few_rows_linear(const Tensor& input, const Tensor& weight, const OptionalTensor& bias,
                       const OptionalTensor& absmax) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  TORCH_CHECK(!absmax.has_value() || (absmax->is_cpu() && absmax->numel() == weight.size(0)),
              "few_rows_linear: absmax must be on the CPU and have shape [", weight.size(0), "]");
  const Tensor scale = absmax.has_value() ? floats(*absmax).div(127) : Tensor();
  FewRows weights{};
  weights.weight = weight.const_data_ptr();
  weights.scale = pointer(scale);
  weights.in = weight.size(1);
  weights.out = weight.size(0);
  weights.type = weight_type_of(weight.scalar_type());
  if (weights.type == FewRows::Weight::int8 && input.numel() >= kFewestManyRows * weights.in) {
    return many_rows_linear(input, weights, bias);
  }
  return product(input, bias, weights);
}

bool are_few_rows_of_nf4(const Tensor& input, const Tensor& codes, int64_t out, int64_t in, int64_t block) {
  return in % kNf4Group == 0 && block % kNf4Group == 0 && are_few(input, out, in) && is_plain(codes, at::kByte) &&
         codes.is_contiguous() && codes.numel() == out * in / 2;
}

Tensor few_rows_nf4_linear(const Tensor& input, const Tensor& codes, const Tensor& scales, int64_t out, int64_t block,
                           const OptionalTensor& bias) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  const int64_t in = input.size(-1), blocks = (out * in + block - 1) / block;
  TORCH_CHECK(scales.is_cpu() && scales.numel() == blocks,
              "few_rows_nf4_linear: the scales must be on the CPU and have shape [", blocks, "]");
  const Tensor scale = floats(scales);
  FewRows weights{};
  weights.weight = codes.const_data_ptr();
  weights.scale = pointer(scale);
  weights.in = in;
  weights.out = out;
  weights.type = FewRows::Weight::nf4;
  weights.block = block;
  weights.values = nf4_values().data();
  return product(input, bias, weights);
}

bool takes_blocks(const Tensor& input, const Tensor& blocks, FewRows::Weight type) {
  const auto [weights, bytes] = block_size(type);
  return is_blocks(type) && blocks.dim() == 2 && is_plain(blocks, at::kByte) && blocks.is_contiguous() &&
         blocks.size(1) % bytes == 0 && has_plain_rows(input, blocks.size(1) / bytes * weights);
}

Tensor blocks_linear(const Tensor& input, const Tensor& blocks, FewRows::Weight type, const OptionalTensor& bias) {
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  FewRows weights{};
  weights.weight = blocks.const_data_ptr();
  weights.in = input.size(-1);
  weights.out = blocks.size(0);
  weights.type = type;
  if (input.numel() >= kFewestManyRows * weights.in) return many_rows_linear(input, weights, bias);
  return product(input, bias, weights);
}

}  // namespace voxtorch::kernels
