#include "core/kernels/decode_step/screen.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>

#include "core/kernels/decode_step/plan.h"
#include "core/kernels/plain.h"

namespace voxtorch::kernels {
namespace {

using at::Tensor;

constexpr int64_t kFewestWeights = 1 << 20;  // fewer are in a cache of the processor
constexpr int64_t kGrain = 1 << 16;          // weights for which another thread is worth its call

float* floats(const Tensor& tensor) { return tensor.mutable_data_ptr<float>(); }

Tensor made(at::IntArrayRef shape, at::ScalarType type) { return at::empty(shape, at::TensorOptions().dtype(type)); }

}  // namespace

bool HeadScreen::takes(const FewRows& weight) {
  static const bool has_kernels = instruction_set() != InstructionSet::kDefault;
  return has_kernels && is_dense(weight.type) && weight.bias == nullptr && weight.out * weight.in >= kFewestWeights;
}

HeadScreen::HeadScreen(const FewRows& weight)
    : in_(weight.in),
      out_(weight.out),
      codes_(made({out_, in_}, at::kChar)),
      scales_(made({out_}, at::kFloat)),
      errors_(made({out_}, at::kFloat)),
      lengths_(made({out_}, at::kFloat)) {
  const auto round = step_rows().round[static_cast<int>(step_type(weight.type))];
  const auto* const rows = static_cast<const char*>(weight.weight);
  const int64_t bytes = in_ * block_size(weight.type).bytes;
  auto* const codes = codes_.mutable_data_ptr<int8_t>();
  at::parallel_for(0, out_, std::max<int64_t>(1, kGrain / in_), [&](int64_t begin, int64_t end) {
    for (int64_t j = begin; j < end; ++j) {
      round({rows + j * bytes, in_, codes + j * in_, floats(scales_) + j, floats(errors_) + j, floats(lengths_) + j});
    }
  });
}

FewRows HeadScreen::product() const {
  FewRows result{};
  result.weight = codes_.const_data_ptr();
  result.scale = scales_.const_data_ptr<float>();
  result.in = in_;
  result.out = out_;
  result.type = FewRows::Weight::int8;
  return result;
}

void HeadScreen::candidates(const float* input, const void* prepared, const float* products,
                            std::vector<int64_t>& words) const {
  const auto* const codes = static_cast<const int8_t*>(prepared);
  const auto* const scales = reinterpret_cast<const float*>(codes + 2 * padded_inputs(in_));
  double all = 0, taken = 0, left = 0;
  for (int64_t i = 0; i < in_; ++i) {
    const double value = input[i], rounded = static_cast<double>(codes[i]) * scales[i / kInputBlock];
    all += value * value;
    taken += rounded * rounded;
    left += (value - rounded) * (value - rounded);
  }
  // Both products are sums of floats: neither adds more than a rounding for each of its terms.
  const double roundings = static_cast<double>(in_ + 64) * 0x1p-23 * std::sqrt(all);
  constexpr double kUp = 1 + 0x1p-16;  // of what is computed here itself
  const StepBounds bounds{products,
                          errors_.const_data_ptr<float>(),
                          lengths_.const_data_ptr<float>(),
                          static_cast<float>(std::sqrt(taken) * kUp),
                          static_cast<float>((std::sqrt(left) + roundings) * kUp),
                          out_};
  const StepRows& build = step_rows();
  const float floor = build.floor(bounds);
  for (int64_t j = build.reaching(bounds, floor, 0); j < out_; j = build.reaching(bounds, floor, j + 1)) {
    words.push_back(j);
  }
}

namespace {

// input float32 [in], weight [words, in] of float32, bfloat16 or float16 -> the number of the word with the largest
// product, and of those that were multiplied as they are.
std::tuple<int64_t, int64_t> likeliest_word(const Tensor& input, const Tensor& weight) {
  TORCH_CHECK(is_plain(input, at::kFloat) && input.dim() == 1 && input.is_contiguous(),
              "likeliest_word: the input must be float32 [in] on the CPU, got ", input.sizes());
  const at::ScalarType type = weight.scalar_type();
  TORCH_CHECK((type == at::kFloat || type == at::kBFloat16 || type == at::kHalf) && is_plain(weight, type) &&
                  weight.dim() == 2 && weight.is_contiguous() && weight.size(1) == input.size(0),
              "likeliest_word: the weight must be float32, bfloat16 or float16 [words, ", input.size(0), "], got ",
              weight.sizes());
  FewRows full{};
  full.weight = weight.const_data_ptr();
  full.rows = 1;
  full.in = weight.size(1);
  full.out = weight.size(0);
  full.type = weight_type_of(type);
  TORCH_CHECK(full.out > 0 && full.in > 0, "likeliest_word: there is no word in a weight ", weight.sizes());
  const HeadScreen screen(full);
  const Tensor products = made({full.out}, at::kFloat), values = made({full.out}, at::kFloat);
  const Tensor prepared =
      made({static_cast<int64_t>(prepared_rows_bytes(FewRows::Weight::int8, 1, full.in))}, at::kByte);
  const float* const row = input.const_data_ptr<float>();
  prepare_rows(FewRows::Weight::int8, row, 1, full.in, prepared.mutable_data_ptr());
  FewRows rough = screen.product();
  rough.rows = 1;
  rough.input = prepared.const_data_ptr();
  rough.output = floats(products);
  outputs_of()(rough, 0, rough.out);
  std::vector<int64_t> words;
  screen.candidates(row, prepared.const_data_ptr(), products.const_data_ptr<float>(), words);
  const Tensor paired = made({full.in}, at::kFloat);
  const bool is_paired = full.type == FewRows::Weight::bfloat16;
  if (is_paired) step_rows().pair_up(row, floats(paired), full.in);
  full.input = is_paired ? paired.const_data_ptr<float>() : row;
  full.output = floats(values);
  for (const int64_t word : words) step_rows().dense[static_cast<int>(step_type(full.type))](full, word, word + 1);
  return {likeliest(full.output, words), static_cast<int64_t>(words.size())};
}

}  // namespace

int64_t likeliest(const float* logits, const std::vector<int64_t>& words) {
  int64_t best = words.front();
  for (const int64_t word : words) {
    if (std::isnan(logits[word])) return word;
    if (logits[word] > logits[best]) best = word;
  }
  return best;
}

TORCH_LIBRARY_FRAGMENT(voxtorch, m) {
  m.def("likeliest_word(Tensor input, Tensor weight) -> (int word, int multiplied)", likeliest_word);
}

}  // namespace voxtorch::kernels
