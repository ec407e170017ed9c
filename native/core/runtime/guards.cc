#include "core/runtime/guards.h"

#include <ATen/ops/isfinite.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <limits>
#include <unordered_map>
#include <vector>

namespace voxtorch {
namespace {

constexpr int64_t kLowest = std::numeric_limits<int64_t>::min();
constexpr int64_t kHighest = std::numeric_limits<int64_t>::max();

// The arguments of one call by name.
struct Arguments {
  const c10::FunctionSchema& schema;
  const torch::jit::Stack& stack;

  // nullptr where the overload has no such argument, or it is null.
  const c10::IValue* find(const char* name) const {
    const auto index = schema.argumentIndexWithName(name);
    if (!index || *index >= static_cast<int>(stack.size()) || stack[*index].isNone()) return nullptr;
    return &stack[*index];
  }
  at::Tensor tensor(const char* name) const {
    const c10::IValue* value = find(name);
    return value != nullptr && value->isTensor() ? value->toTensor() : at::Tensor();
  }
  std::vector<at::Tensor> tensors(const char* name) const {
    const c10::IValue* value = find(name);
    return value != nullptr && value->isTensorList() ? value->toTensorVector() : std::vector<at::Tensor>();
  }
  int64_t integer(const char* name, int64_t otherwise = 0) const {
    const c10::IValue* value = find(name);
    return value != nullptr && value->isInt() ? value->toInt() : otherwise;
  }
  bool truth(const char* name) const {
    const c10::IValue* value = find(name);
    return value != nullptr && value->isBool() && value->toBool();
  }
  std::vector<int64_t> integers(const char* name) const {
    const c10::IValue* value = find(name);
    return value != nullptr && value->isIntList() ? value->toIntVector() : std::vector<int64_t>();
  }
};

// The values of a small integer tensor in CPU memory; empty for any other, which the operator refuses itself.
std::vector<int64_t> values_of(const at::Tensor& tensor) {
  if (!tensor.defined() || !tensor.is_cpu() || tensor.layout() != at::kStrided) return {};
  const bool wide = tensor.scalar_type() == at::kLong;
  if (!wide && tensor.scalar_type() != at::kInt) return {};
  const at::Tensor flat = tensor.contiguous();
  std::vector<int64_t> values(static_cast<size_t>(flat.numel()));
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = wide ? flat.const_data_ptr<int64_t>()[i] : flat.const_data_ptr<int32_t>()[i];
  return values;
}

// The exponent's sign is turned around, which the lowest number does not survive: squaring never ends.
void matrix_power(const c10::FunctionSchema& schema, const torch::jit::Stack& stack) {
  TORCH_CHECK_VALUE((Arguments{schema, stack}.integer("n")) != kLowest, "the exponent -2^63 is out of range");
}

// One more than the highest number is the lowest, whose bits are then counted for ever.
void random(const c10::FunctionSchema& schema, const torch::jit::Stack& stack) {
  TORCH_CHECK_VALUE((Arguments{schema, stack}.integer("from")) != kHighest, "from must be less than 2^63 - 1");
}

// The output may be empty here, unlike in the other poolings, and the window is walked all the same.
void max_pool1d(const c10::FunctionSchema& schema, const torch::jit::Stack& stack) {
  const Arguments arguments{schema, stack};
  const at::Tensor self = arguments.tensor("self");
  const auto kernel = arguments.integers("kernel_size");
  const auto padding = arguments.integers("padding");
  const auto dilation = arguments.integers("dilation");
  if (!self.defined() || self.dim() == 0 || kernel.empty()) return;
  const double padded = double(self.size(-1)) + 2 * double(padding.empty() ? 0 : padding[0]);
  const double window = double(dilation.empty() ? 1 : dilation[0]) * (double(kernel[0]) - 1) + 1;
  TORCH_CHECK_VALUE(window <= padded || window <= 1, "kernel_size ", kernel[0],
                    " is larger than the padded input of size ", int64_t(padded));
}

// Loops over the sizes that are left when another is 0.
void adaptive_pool(const c10::FunctionSchema& schema, const torch::jit::Stack& stack) {
  const auto sizes = Arguments{schema, stack}.integers("output_size");
  if (std::find(sizes.begin(), sizes.end(), 0) == sizes.end()) return;
  for (const int64_t size : sizes)
    TORCH_CHECK_VALUE(size <= 1 << 20, "output_size ", size, " is too large for an output without elements");
}

// Its gradient for no rows writes to the first one.
void pdist(const c10::FunctionSchema& schema, const torch::jit::Stack& stack) {
  const at::Tensor self = Arguments{schema, stack}.tensor("self");
  TORCH_CHECK_VALUE(!self.defined() || self.numel() > 0 || !self.requires_grad(),
                    "an input that requires gradients must not be empty");
}

// LAPACK's balancing walks off the matrix.
void eigvals(const c10::FunctionSchema& schema, const torch::jit::Stack& stack) {
  const at::Tensor self = Arguments{schema, stack}.tensor("self");
  if (!self.defined() || !self.is_cpu() || !(self.is_floating_point() || self.is_complex())) return;
  TORCH_CHECK_VALUE(at::isfinite(self).all().item<bool>(), "the matrix holds NaN or infinity");
}

// Labels are indices, and lengths are trusted.
void ctc_loss(const c10::FunctionSchema& schema, const torch::jit::Stack& stack) {
  const Arguments arguments{schema, stack};
  const at::Tensor log_probs = arguments.tensor("log_probs");
  const at::Tensor targets = arguments.tensor("targets");
  if (!log_probs.defined() || !targets.defined() || log_probs.dim() == 0) return;
  const auto lengths_of = [&](const char* name) {
    const auto list = arguments.integers(name);
    return list.empty() ? values_of(arguments.tensor(name)) : list;
  };
  for (const int64_t length : lengths_of("input_lengths"))
    TORCH_CHECK_VALUE(length >= 0, "an input length is ", length);
  const auto labels = values_of(targets);
  const bool padded = targets.dim() == 2;
  const auto row = static_cast<size_t>(padded ? targets.size(1) : 0);
  size_t begin = 0;
  for (const int64_t length : lengths_of("target_lengths")) {
    TORCH_CHECK_VALUE(length >= 0, "a target length is ", length);
    for (size_t i = begin; i < begin + static_cast<size_t>(length) && i < labels.size(); ++i) {
      TORCH_CHECK_INDEX(labels[i] >= 0 && labels[i] < log_probs.size(-1), "target ", labels[i],
                        " is out of range, there are ", log_probs.size(-1), " classes");
    }
    begin += padded ? row : static_cast<size_t>(length);
  }
}

// Lengths are checked unless `unsafe` is set, offsets never.
void segment_reduce(const c10::FunctionSchema& schema, const torch::jit::Stack& stack) {
  const Arguments arguments{schema, stack};
  TORCH_CHECK_VALUE(!arguments.truth("unsafe"), "unsafe: true would read outside the data where lengths do not fit");
  const at::Tensor data = arguments.tensor("data");
  const at::Tensor offsets = arguments.tensor("offsets");
  const int64_t axis = arguments.integer("axis");
  if (!data.defined() || !offsets.defined() || offsets.dim() == 0 || axis < 0 || axis >= data.dim()) return;
  const auto values = values_of(offsets);
  const auto row = static_cast<size_t>(offsets.size(-1));
  for (size_t i = 0; i < values.size(); ++i) {
    const int64_t before = i % row == 0 ? 0 : values[i - 1];
    TORCH_CHECK_VALUE(values[i] >= before && values[i] <= data.size(axis), "offsets must rise from 0 to at most ",
                      data.size(axis), ", got ", values[i]);
  }
}

// oneDNN computes with 32 bits, and divides by what is left after an overflow.
void convolution(const c10::FunctionSchema& schema, const torch::jit::Stack& stack) {
  const Arguments arguments{schema, stack};
  for (const char* name : {"stride", "padding", "dilation", "output_padding"}) {
    for (const int64_t value : arguments.integers(name))
      TORCH_CHECK_VALUE(value <= 1 << 24, name, " ", value, " is too large");
  }
}

// Indices, offsets and their places are used as they come.
void embedding_bag(const c10::FunctionSchema& schema, const torch::jit::Stack& stack) {
  const Arguments arguments{schema, stack};
  const at::Tensor weight = arguments.tensor("weight");
  const at::Tensor indices = arguments.tensor("indices");
  const at::Tensor offsets = arguments.tensor("offsets");
  if (!weight.defined() || !indices.defined() || !offsets.defined()) return;
  TORCH_CHECK_VALUE(weight.dim() == 2, "weight must have two dimensions, got shape ", weight.sizes());
  TORCH_CHECK_VALUE(indices.dim() == 1 && offsets.dim() == 1,
                    "indices and offsets must have one dimension, got shapes ", indices.sizes(), " and ",
                    offsets.sizes());
  for (const int64_t index : values_of(indices)) {
    TORCH_CHECK_INDEX(index >= 0 && index < weight.size(0), "index ", index, " is out of range, the table has ",
                      weight.size(0), " rows");
  }
  int64_t before = 0;
  for (const int64_t offset : values_of(offsets)) {
    TORCH_CHECK_VALUE(offset >= before && offset <= indices.numel(),
                      "offsets must rise from 0 to at most the number of indices ", indices.numel(), ", got ", offset);
    before = offset;
  }
  if (!arguments.truth("include_last_offset")) return;
  TORCH_CHECK_VALUE(offsets.numel() > 0 && (!offsets.is_cpu() || before == indices.numel()),
                    "the last offset must be the number of indices ", indices.numel());
}

// oneDNN's LSTM takes the shapes of weights and states for granted.
void lstm_shapes(const Arguments& arguments, int64_t batch, int64_t width) {
  const auto states = arguments.tensors("hx");
  const auto params = arguments.tensors("params");
  const int64_t layers = arguments.integer("num_layers");
  const int64_t directions = arguments.truth("bidirectional") ? 2 : 1;
  const int64_t each = arguments.truth("has_biases") ? 4 : 2;
  TORCH_CHECK_VALUE(layers >= 1 && layers <= 1 << 20, "num_layers must be between 1 and 2^20, got ", layers);
  TORCH_CHECK_VALUE(states.size() == 2 && states[0].defined() && states[1].defined(), "lstm needs two states");
  TORCH_CHECK_VALUE(states[0].dim() == 3 && states[1].dim() == 3, "the states must have three dimensions, got shapes ",
                    states[0].sizes(), " and ", states[1].sizes());
  if (states[0].size(2) != states[1].size(2)) return;  // with projections: not oneDNN's
  const int64_t hidden = states[0].size(2);
  const std::vector<int64_t> shape = {layers * directions, batch, hidden};
  for (const at::Tensor& state : states) {
    TORCH_CHECK_VALUE(state.sizes() == shape, "a state must have shape ", c10::IntArrayRef(shape), ", got ",
                      state.sizes());
  }
  TORCH_CHECK_VALUE(static_cast<int64_t>(params.size()) == layers * directions * each, "expected ",
                    layers * directions * each, " weights and biases, got ", params.size());
  for (int64_t i = 0; i < static_cast<int64_t>(params.size()); ++i) {
    const at::Tensor& param = params[static_cast<size_t>(i)];
    std::vector<int64_t> expected = {4 * hidden};
    if (i % each == 0) expected.push_back(i < directions * each ? width : directions * hidden);
    if (i % each == 1) expected.push_back(hidden);
    TORCH_CHECK_VALUE(param.defined() && param.sizes() == expected, "weight ", i, " must have shape ",
                      c10::IntArrayRef(expected), ", got ", param.defined() ? param.sizes() : c10::IntArrayRef());
  }
}

void recurrent(const c10::FunctionSchema& schema, const torch::jit::Stack& stack) {
  const Arguments arguments{schema, stack};
  const bool lstm = schema.name() == "aten::lstm";
  if (schema.overload_name() != "data") {
    const at::Tensor input = arguments.tensor("input");
    if (!lstm) return;
    TORCH_CHECK_VALUE(input.defined() && input.dim() == 3, "the input must have three dimensions");
    lstm_shapes(arguments, input.size(arguments.truth("batch_first") ? 0 : 1), input.size(2));
    return;
  }
  // Packed sequences. The first of the batch sizes is read even where there is none.
  const at::Tensor data = arguments.tensor("data");
  const at::Tensor sizes = arguments.tensor("batch_sizes");
  TORCH_CHECK_VALUE(data.defined() && data.dim() == 2, "packed data must have two dimensions");
  TORCH_CHECK_VALUE(
      sizes.defined() && sizes.dim() == 1 && sizes.numel() > 0 && sizes.is_cpu() && sizes.scalar_type() == at::kLong,
      "batch_sizes must be a list of int64 in CPU memory");
  const auto values = values_of(sizes);
  int64_t before = kHighest, rows = 0;
  for (const int64_t size : values) {
    TORCH_CHECK_VALUE(size >= 1 && size <= before && size <= data.size(0),
                      "batch_sizes must be positive and must not rise");
    before = size;
    rows += size;
  }
  TORCH_CHECK_VALUE(rows == data.size(0), "batch_sizes add up to ", rows, ", the data has ", data.size(0), " rows");
  if (lstm) lstm_shapes(arguments, values[0], data.size(1));
}

// LAPACK exchanges the rows that the pivots name, wherever they are.
void pivots(const c10::FunctionSchema& schema, const torch::jit::Stack& stack) {
  const Arguments arguments{schema, stack};
  const bool old = schema.name() == "aten::lu_solve";
  const at::Tensor factors = arguments.tensor(old ? "LU_data" : "LU");
  const at::Tensor rows = arguments.tensor(old ? "LU_pivots" : "pivots");
  if (!factors.defined() || !rows.defined() || factors.dim() < 2) return;
  const int64_t size = factors.size(-1);
  for (const int64_t row : values_of(rows)) {
    TORCH_CHECK_VALUE(row >= 1 && row <= size, "pivot ", row, " names no row of a matrix of ", size);
  }
}

// Windows, strides and paddings are multiplied and narrowed to 32 bits without a look.
void window(const c10::FunctionSchema& schema, const torch::jit::Stack& stack) {
  constexpr int64_t kLargest = int64_t(1) << 30;
  for (size_t i = 0; i < stack.size(); ++i) {
    if (!stack[i].isIntList()) continue;
    for (const int64_t value : stack[i].toIntVector()) {
      TORCH_CHECK_VALUE(value > -kLargest && value < kLargest, schema.arguments()[i].name(), " holds ", value,
                        ", more than a window can have");
    }
  }
}

}  // namespace

Guard guard_of(const std::string& op) {
  static const std::unordered_map<std::string, Guard> guards = {
      {"aten::adaptive_avg_pool1d", adaptive_pool},
      {"aten::adaptive_avg_pool2d", adaptive_pool},
      {"aten::adaptive_avg_pool3d", adaptive_pool},
      {"aten::adaptive_max_pool1d", adaptive_pool},
      {"aten::adaptive_max_pool2d", adaptive_pool},
      {"aten::adaptive_max_pool3d", adaptive_pool},
      {"aten::avg_pool1d", window},
      {"aten::avg_pool2d", window},
      {"aten::avg_pool3d", window},
      {"aten::max_pool2d", window},
      {"aten::max_pool3d", window},
      {"aten::max_pool2d_with_indices", window},
      {"aten::max_pool3d_with_indices", window},
      {"aten::col2im", window},
      {"aten::im2col", window},
      {"aten::linalg_lu_solve", pivots},
      {"aten::lu_solve", pivots},
      {"aten::conv1d", convolution},
      {"aten::conv2d", convolution},
      {"aten::conv3d", convolution},
      {"aten::conv_transpose1d", convolution},
      {"aten::conv_transpose2d", convolution},
      {"aten::conv_transpose3d", convolution},
      {"aten::convolution", convolution},
      {"aten::ctc_loss", ctc_loss},
      {"aten::embedding_bag", embedding_bag},
      {"aten::gru", recurrent},
      {"aten::linalg_eigvals", eigvals},
      {"aten::linalg_matrix_power", matrix_power},
      {"aten::lstm", recurrent},
      {"aten::matrix_power", matrix_power},
      {"aten::max_pool1d", max_pool1d},
      {"aten::random", random},
      {"aten::random_", random},
      {"aten::rnn_relu", recurrent},
      {"aten::rnn_tanh", recurrent},
      {"aten::pdist", pdist},
      {"aten::segment_reduce", segment_reduce},
  };
  const auto found = guards.find(op);
  return found == guards.end() ? nullptr : found->second;
}

}  // namespace voxtorch
