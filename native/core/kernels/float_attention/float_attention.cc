#include "core/kernels/float_attention/float_attention.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward_cpu_dispatch.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_cpu_dispatch.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <tuple>
#include <vector>

#include "core/kernels/float_attention/args.h"
#include "core/kernels/float_product/args.h"
#include "core/kernels/float_product/float_product.h"
#include "core/kernels/plain.h"
#include "core/runtime/library.h"

namespace voxtorch::kernels {

#if defined(__x86_64__)

namespace {

using at::Tensor;
using Mask = std::optional<Tensor>;

constexpr int64_t kQueries = 64;  // of a block
constexpr int64_t kKeys = 240;    // of a block: a multiple of the columns of each build's panels
constexpr float kLowest = -std::numeric_limits<float>::infinity();

int64_t up(int64_t value, int64_t step) { return at::divup(value, step) * step; }

// One of [batch, heads, length, width], whose last dimension is contiguous.
struct Heads {
  const float* data;
  int64_t batch, head, row;
  explicit Heads(const Tensor& tensor)
      : data(tensor.const_data_ptr<float>()), batch(tensor.stride(0)), head(tensor.stride(1)), row(tensor.stride(2)) {}
  const float* at(int64_t b, int64_t h) const { return data + b * batch + h * head; }
};

struct Sizes {
  int64_t batch, heads, queries, keys, width, value_width;
  Sizes(const Tensor& query, const Tensor& value)
      : batch(query.size(0)),
        heads(query.size(1)),
        queries(query.size(2)),
        keys(value.size(2)),
        width(query.size(3)),
        value_width(value.size(3)) {}
};

struct MaskView {
  const float* data = nullptr;
  int64_t batch = 0, head = 0, row = 0, column = 0;
  explicit MaskView(const Mask& mask) {
    if (!mask.has_value() || !mask->defined()) return;
    data = mask->const_data_ptr<float>();
    const auto stride = [&](int64_t from_last) {
      const int64_t at = mask->dim() - from_last;
      return at < 0 || mask->size(at) == 1 ? 0 : mask->stride(at);
    };
    batch = stride(4), head = stride(3), row = stride(2), column = stride(1);
  }
  const float* at(int64_t b, int64_t h) const { return data == nullptr ? nullptr : data + b * batch + h * head; }
};

struct Kernels {
  const FloatProductBuild& product;
  void (*step)(const SoftmaxStep& at);
  void (*gradient)(const SoftmaxGradient& at);
};

// Of a processor that has the blocks of float_product.h.
const Kernels& kernels() {
  const auto found = [] {
    const bool wide = instruction_set() == InstructionSet::kAvx512;
    return Kernels{*float_product_build(), wide ? float_attention_step_avx512 : float_attention_step_avx2,
                   wide ? float_attention_gradient_avx512 : float_attention_gradient_avx2};
  };
  static const Kernels kernels = found();
  return kernels;
}

using Floats = std::unique_ptr<float[]>;
Floats floats(int64_t count) { return Floats(new float[static_cast<size_t>(count)]); }

// Blocks of a matrix [length, width], rows `row` apart, as the products want them.
class Blocks {
 public:
  enum class Side { rows, columns, turned_columns };

  // rows: [block, width] as a left side. columns: [width, block] as a right side. turned_columns: [block, width] as a
  // right side.
  Blocks(Side side, const float* from, int64_t row, int64_t length, int64_t width, int64_t block) {
    const FloatProductBuild& product = kernels().product;
    const int64_t step = side == Side::rows ? product.rows : product.columns;
    size_ = side == Side::turned_columns ? up(width, step) * block : up(block, step) * width;
    panels_ = floats(at::divup(length, block) * size_);
    for (int64_t first = 0, i = 0; first < length; first += block, ++i) {
      const int64_t count = std::min(block, length - first);
      const float* const corner = from + first * row;
      float* const to = panels_.get() + i * size_;
      if (side == Side::rows)
        product.pack_rows({corner, row, 1}, count, width, to);
      else if (side == Side::columns)
        product.pack_columns({corner, 1, row}, count, width, to);
      else
        product.pack_columns({corner, row, 1}, width, count, to);
    }
  }
  float* at(int64_t block) { return panels_.get() + block * size_; }
  int64_t size() const { return size_; }

 private:
  Floats panels_;
  int64_t size_;
};

void scale_all(float* values, int64_t count, float scale) {
  for (int64_t i = 0; i < count; ++i) values[i] *= scale;
}

struct Attention {
  Sizes sizes;
  Heads query, key, value;
  MaskView mask;
  bool is_causal;
  float scale;

  // Whether a block of keys comes after all that a block of queries may see.
  bool is_unseen(int64_t first_query, int64_t queries, int64_t first_key) const {
    return is_causal && first_key > first_query + queries - 1;
  }

  ScoreBlock block(float* scores, int64_t b, int64_t h, int64_t first_query, int64_t queries, int64_t first_key,
                   int64_t count) const {
    const float* const from = mask.at(b, h);
    return {scores,
            queries,
            count,
            kKeys,
            first_query - first_key + 1,
            is_causal,
            from == nullptr ? nullptr : from + first_query * mask.row + first_key * mask.column,
            mask.row,
            mask.column};
  }
};

// Queries [begin, end) of one head; `begin` is the first of a block.
void forward(const Attention& attention, int64_t b, int64_t h, int64_t begin, int64_t end, const Tensor& output,
             const Tensor& log_sums) {
  const auto& [product, step, gradient] = kernels();
  const Sizes& sizes = attention.sizes;
  Blocks keys(Blocks::Side::columns, attention.key.at(b, h), attention.key.row, sizes.keys, sizes.width, kKeys);
  Blocks values(Blocks::Side::turned_columns, attention.value.at(b, h), attention.value.row, sizes.keys,
                sizes.value_width, kKeys);
  const Floats rows = floats(kQueries * sizes.width), scores = floats(kQueries * kKeys);
  const Floats weights = floats(kQueries * kKeys), sums = floats(kQueries * sizes.value_width);
  float largest[kQueries], total[kQueries];
  const float* const queries = attention.query.at(b, h);
  float* const to = output.mutable_data_ptr<float>() + b * output.stride(0) + h * output.stride(1);
  float* const log_to = log_sums.mutable_data_ptr<float>() + (b * sizes.heads + h) * sizes.queries;
  for (int64_t first = begin; first < end; first += kQueries) {
    const int64_t count = std::min(kQueries, end - first);
    product.pack_rows({queries + first * attention.query.row, attention.query.row, 1}, count, sizes.width, rows.get());
    scale_all(rows.get(), kQueries * sizes.width, attention.scale);
    std::fill(largest, largest + count, kLowest);
    std::fill(total, total + count, 0.0f);
    std::fill(sums.get(), sums.get() + count * sizes.value_width, 0.0f);
    for (int64_t from = 0, i = 0; from < sizes.keys; from += kKeys, ++i) {
      if (attention.is_unseen(first, count, from)) break;
      const int64_t near = std::min(kKeys, sizes.keys - from);
      product.multiply(rows.get(), keys.at(i), count, near, sizes.width, false, scores.get(), kKeys);
      step({attention.block(scores.get(), b, h, first, count, from, near), largest, total, sums.get(),
            sizes.value_width});
      product.pack_rows({scores.get(), kKeys, 1}, count, near, weights.get());
      product.multiply(weights.get(), values.at(i), count, sizes.value_width, near, true, sums.get(),
                       sizes.value_width);
    }
    for (int64_t r = 0; r < count; ++r) {
      // A query that sees no key has zeros.
      const float share = total[r] == 0 ? 0 : 1 / total[r];
      const float* const sum = sums.get() + r * sizes.value_width;
      float* const row = to + (first + r) * output.stride(2);
      for (int64_t c = 0; c < sizes.value_width; ++c) row[c] = sum[c] * share;
      log_to[first + r] = largest[r] + std::log(total[r]);
    }
  }
}

struct Gradients {
  Heads grad, output;
  const Tensor& log_sums;
  const Tensor &query, &key, &value;
};

// One head: each pair of a block of keys and one of queries gives its part of all three.
void backward(const Attention& attention, const Gradients& gradients, int64_t b, int64_t h) {
  const auto& [product, step, gradient] = kernels();
  using Side = Blocks::Side;
  const Sizes& sizes = attention.sizes;
  const int64_t width = sizes.width, value_width = sizes.value_width;
  const float *const q = attention.query.at(b, h), *const k = attention.key.at(b, h);
  const float *const v = attention.value.at(b, h), *const g = gradients.grad.at(b, h);
  const int64_t query_row = attention.query.row, key_row = attention.key.row, value_row = attention.value.row;
  Blocks query_rows(Side::rows, q, query_row, sizes.queries, width, kQueries);
  Blocks query_columns(Side::turned_columns, q, query_row, sizes.queries, width, kQueries);
  Blocks grad_rows(Side::rows, g, gradients.grad.row, sizes.queries, value_width, kQueries);
  Blocks grad_columns(Side::turned_columns, g, gradients.grad.row, sizes.queries, value_width, kQueries);
  Blocks keys(Side::columns, k, key_row, sizes.keys, width, kKeys);
  Blocks key_columns(Side::turned_columns, k, key_row, sizes.keys, width, kKeys);
  Blocks values(Side::columns, v, value_row, sizes.keys, value_width, kKeys);
  const int64_t query_blocks = at::divup(sizes.queries, kQueries);
  for (Blocks* const blocks : {&query_rows, &query_columns}) {
    scale_all(blocks->at(0), query_blocks * blocks->size(), attention.scale);
  }
  const Floats delta = floats(sizes.queries), log_sum = floats(sizes.queries);
  const float* const out = gradients.output.at(b, h);
  const float* const logs =
      gradients.log_sums.const_data_ptr<float>() + b * gradients.log_sums.stride(0) + h * gradients.log_sums.stride(1);
  for (int64_t r = 0; r < sizes.queries; ++r) {
    float sum = 0;
    const float *const a = g + r * gradients.grad.row, *const o = out + r * gradients.output.row;
    for (int64_t c = 0; c < value_width; ++c) sum += a[c] * o[c];
    delta[r] = sum;
    log_sum[r] = logs[r * gradients.log_sums.stride(2)];
  }
  const auto place = [&](const Tensor& tensor) {
    return tensor.mutable_data_ptr<float>() + b * tensor.stride(0) + h * tensor.stride(1);
  };
  float *const query_grad = place(gradients.query), *const key_grad = place(gradients.key);
  float* const value_grad = place(gradients.value);
  const int64_t query_step = gradients.query.stride(2), key_step = gradients.key.stride(2);
  const int64_t value_step = gradients.value.stride(2);
  const Floats weights = floats(kQueries * kKeys), grads = floats(kQueries * kKeys);
  const Floats packed = floats(up(kQueries, product.rows) * kKeys), turned = floats(up(kKeys, product.rows) * kQueries);
  std::vector<bool> has_query_grad(static_cast<size_t>(query_blocks));
  for (int64_t from = 0, i = 0; from < sizes.keys; from += kKeys, ++i) {
    const int64_t near = std::min(kKeys, sizes.keys - from);
    bool adds = false;
    for (int64_t first = 0, j = 0; first < sizes.queries; first += kQueries, ++j) {
      const int64_t count = std::min(kQueries, sizes.queries - first);
      if (attention.is_unseen(first, count, from)) continue;
      product.multiply(query_rows.at(j), keys.at(i), count, near, width, false, weights.get(), kKeys);
      product.multiply(grad_rows.at(j), values.at(i), count, near, value_width, false, grads.get(), kKeys);
      gradient({attention.block(weights.get(), b, h, first, count, from, near), grads.get(), log_sum.get() + first,
                delta.get() + first});
      product.pack_rows({weights.get(), 1, kKeys}, near, count, turned.get());
      product.multiply(turned.get(), grad_columns.at(j), near, value_width, count, adds, value_grad + from * value_step,
                       value_step);
      product.pack_rows({grads.get(), 1, kKeys}, near, count, turned.get());
      product.multiply(turned.get(), query_columns.at(j), near, width, count, adds, key_grad + from * key_step,
                       key_step);
      product.pack_rows({grads.get(), kKeys, 1}, count, near, packed.get());
      product.multiply(packed.get(), key_columns.at(i), count, width, near, has_query_grad[static_cast<size_t>(j)],
                       query_grad + first * query_step, query_step);
      adds = true;
      has_query_grad[static_cast<size_t>(j)] = true;
    }
    // Keys that no query sees.
    for (int64_t r = from; !adds && r < from + near; ++r) {
      std::fill(key_grad + r * key_step, key_grad + r * key_step + width, 0.0f);
      std::fill(value_grad + r * value_step, value_grad + r * value_step + value_width, 0.0f);
    }
  }
  for (int64_t r = 0; r < sizes.queries; ++r) {
    float* const row = query_grad + r * query_step;
    for (int64_t c = 0; c < width; ++c) row[c] *= attention.scale;
  }
}

bool is_taken(const Tensor& tensor) {
  return is_plain(tensor, at::kFloat) && tensor.dim() == 4 && tensor.stride(3) == 1;
}

bool takes(const Tensor& query, const Tensor& key, const Tensor& value, double dropout, const Mask& mask) {
  if (!uses_float_products() || dropout != 0 || !is_taken(query) || !is_taken(key) || !is_taken(value)) return false;
  // Packing must take little of the time of the multiplications.
  if (std::min(query.size(2), key.size(2)) < 16 || std::min(query.size(3), value.size(3)) < 16) return false;
  const auto shared = [&](const Tensor& other) {
    return other.size(0) == query.size(0) && other.size(1) == query.size(1);
  };
  if (!shared(key) || !shared(value) || key.size(2) != value.size(2) || key.size(3) != query.size(3)) return false;
  if (!mask.has_value() || !mask->defined()) return true;
  if (!is_plain(*mask, at::kFloat) || mask->dim() > 4) return false;
  const int64_t wanted[] = {query.size(0), query.size(1), query.size(2), key.size(2)};
  for (int64_t i = 1; i <= mask->dim(); ++i) {
    const int64_t size = mask->size(mask->dim() - i);
    if (size != 1 && size != wanted[4 - i]) return false;
  }
  return true;
}

Attention attention_of(const Tensor& query, const Tensor& key, const Tensor& value, bool is_causal, const Mask& mask,
                       std::optional<double> scale) {
  return {Sizes(query, value),
          Heads(query),
          Heads(key),
          Heads(value),
          MaskView(mask),
          is_causal,
          static_cast<float>(scale.value_or(1 / std::sqrt(static_cast<double>(query.size(3)))))};
}

// [batch, heads, length, width], so that the heads of a position stand next to each other in memory.
Tensor empty_heads(const Tensor& like, int64_t width) {
  return at::empty({like.size(0), like.size(2), like.size(1), width}, like.options()).transpose(1, 2);
}

std::tuple<Tensor, Tensor> attend(const Tensor& query, const Tensor& key, const Tensor& value, double dropout,
                                  bool is_causal, const Mask& mask, std::optional<double> scale) {
  if (!takes(query, key, value, dropout, mask)) {
    return at::cpu::_scaled_dot_product_flash_attention_for_cpu(query, key, value, dropout, is_causal, mask, scale);
  }
  const Attention attention = attention_of(query, key, value, is_causal, mask, scale);
  const Sizes& sizes = attention.sizes;
  const Tensor output = empty_heads(query, sizes.value_width);
  const Tensor log_sums = at::empty({sizes.batch, sizes.heads, sizes.queries}, query.options());
  // Heads are divided where there are fewer than threads; a query's result is the same.
  const int64_t heads = sizes.batch * sizes.heads, blocks = at::divup(sizes.queries, kQueries);
  const int64_t parts =
      std::clamp<int64_t>(at::divup(2 * at::get_num_threads(), std::max<int64_t>(heads, 1)), 1, blocks);
  const int64_t part = at::divup(blocks, parts) * kQueries;
  at::parallel_for(0, heads * parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t head = i / parts, first = i % parts * part;
      if (first >= sizes.queries) continue;
      forward(attention, head / sizes.heads, head % sizes.heads, first, std::min(first + part, sizes.queries), output,
              log_sums);
    }
  });
  return {output, log_sums};
}

std::tuple<Tensor, Tensor, Tensor> attend_gradient(const Tensor& given, const Tensor& query, const Tensor& key,
                                                   const Tensor& value, const Tensor& output, const Tensor& log_sums,
                                                   double dropout, bool is_causal, const Mask& mask,
                                                   std::optional<double> scale) {
  const Tensor grad = given.dim() == 4 && given.stride(3) != 1 ? given.contiguous() : given;
  if (!takes(query, key, value, dropout, mask) || !is_taken(grad) || !is_taken(output) ||
      !is_plain(log_sums, at::kFloat)) {
    return at::cpu::_scaled_dot_product_flash_attention_for_cpu_backward(given, query, key, value, output, log_sums,
                                                                         dropout, is_causal, mask, scale);
  }
  const Attention attention = attention_of(query, key, value, is_causal, mask, scale);
  const Sizes& sizes = attention.sizes;
  const Tensor query_grad = empty_heads(query, sizes.width), key_grad = empty_heads(key, sizes.width);
  const Tensor value_grad = empty_heads(value, sizes.value_width);
  const Gradients gradients{Heads(grad), Heads(output), log_sums, query_grad, key_grad, value_grad};
  at::parallel_for(0, sizes.batch * sizes.heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t head = begin; head < end; ++head) {
      backward(attention, gradients, head / sizes.heads, head % sizes.heads);
    }
  });
  return {query_grad, key_grad, value_grad};
}

}  // namespace

void use_float_attention() {
  if (float_product_build() == nullptr) return;
  replace_kernels(c10::DispatchKey::CPU, [](torch::Library& m) {
    m.impl("_scaled_dot_product_flash_attention_for_cpu", TORCH_FN(attend));
    m.impl("_scaled_dot_product_flash_attention_for_cpu_backward", TORCH_FN(attend_gradient));
  });
}

#else

void use_float_attention() {}

#endif

}  // namespace voxtorch::kernels
