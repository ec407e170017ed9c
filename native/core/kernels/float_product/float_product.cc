#include "core/kernels/float_product/float_product.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/ops/addmm_cpu_dispatch.h>
#include <ATen/ops/baddbmm_cpu_dispatch.h>
#include <ATen/ops/bmm_cpu_dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm_cpu_dispatch.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <vector>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "core/kernels/float_product/args.h"
#include "core/kernels/plain.h"
#include "core/runtime/library.h"

namespace voxtorch::kernels {
namespace {

using at::Tensor;

// A block of the left matrix stays in the second cache, [kRowsOfBlock, kDepth]; one of the right in the third.
constexpr int64_t kDepth = 256;
constexpr int64_t kRowsOfBlock = 128;
constexpr int64_t kColumnsOfBlock = 4080;
// Fewer rows for each thread would read a panel of columns too seldom for what it costs to load.
constexpr int64_t kFewestRows = 32;
// Packing both sides must take little of the time of the multiplications.
constexpr int64_t kShortestSide = 96;
constexpr int64_t kFewestMultiplications = 1 << 18;
// Fewer rows than these are read with as little arithmetic by a library's product of a vector.
constexpr int64_t kFewestThinRows = 5;
// More are faster with both sides packed: measured with 28 million weights on AVX2.
constexpr int64_t kMostThinRows = 192;
// Outputs of a thin product that a thread makes before it turns them.
constexpr int64_t kThinOutputs = 48;

bool is_amd() {
#if defined(__x86_64__)
  unsigned most = 0, name[3] = {};
  return __get_cpuid(0, &most, &name[0], &name[2], &name[1]) != 0 && name[0] == signature_AMD_ebx;
#else
  return false;
#endif
}

const FloatProductBuild* build() {
#if defined(__x86_64__)
  static const FloatProductBuild* const found = [] {
    const InstructionSet set = instruction_set();
    return set == InstructionSet::kAvx512 ? &float_product_avx512
           : set == InstructionSet::kAvx2 ? &float_product_avx2
                                          : nullptr;
  }();
  return found;
#else
  return nullptr;
#endif
}

std::atomic<bool>& is_used() {
  static std::atomic<bool> used{build() != nullptr && is_amd()};
  return used;
}

// Memory of the calling thread, kept for its next product.
class Scratch {
 public:
  float* of(int64_t count) {
    if (count > count_) {
      memory_.reset(static_cast<float*>(::operator new(count * sizeof(float), kAlignment)));
      count_ = count;
    }
    return memory_.get();
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(float* memory) const { ::operator delete(memory, kAlignment); }
  };
  std::unique_ptr<float, Free> memory_;
  int64_t count_ = 0;
};

int64_t round_up(int64_t value, int64_t step) { return at::divup(value, step) * step; }

// How the result is divided among threads: blocks of rows, and these in parts by columns where there are fewer than
// threads.
struct Grid {
  int64_t rows, row_blocks, columns, column_blocks;
  Grid(int64_t m, int64_t n, const FloatProductBuild& kernels) {
    const int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
    const int64_t rounds = at::divup(m, kRowsOfBlock * threads);
    rows = round_up(std::max(at::divup(m, rounds * threads), std::min(m, kFewestRows)), kernels.rows);
    rows = std::min(rows, kRowsOfBlock);
    row_blocks = at::divup(m, rows);
    const int64_t parts = row_blocks >= threads ? 1 : at::divup(threads, row_blocks);
    columns = round_up(at::divup(n, parts), kernels.columns);
    column_blocks = at::divup(n, columns);
  }
};

// to [m, n], rows `stride` apart, is the product of left [m, k] and right [k, n], or has it added.
void multiply(int64_t m, int64_t n, int64_t k, const FloatMatrix& left, const FloatMatrix& right, bool add, float* to,
              int64_t stride) {
  static thread_local Scratch columns_scratch;
  const FloatProductBuild& kernels = *build();
  const int64_t wide = std::min(n, kColumnsOfBlock), deep = std::min(k, kDepth);
  float* const panels = columns_scratch.of(round_up(wide, kernels.columns) * deep);
  for (int64_t column = 0; column < n; column += kColumnsOfBlock) {
    const int64_t columns = std::min(kColumnsOfBlock, n - column);
    const Grid grid(m, columns, kernels);
    for (int64_t d = 0; d < k; d += kDepth) {
      const int64_t depth = std::min(kDepth, k - d);
      at::parallel_for(0, at::divup(columns, kernels.columns), 8, [&](int64_t begin, int64_t end) {
        const int64_t first = begin * kernels.columns, count = std::min(end * kernels.columns, columns) - first;
        kernels.pack_columns(right.from(d, column + first), count, depth, panels + first * depth);
      });
      at::parallel_for(0, grid.row_blocks * grid.column_blocks, 1, [&](int64_t begin, int64_t end) {
        static thread_local Scratch rows_scratch;
        float* const block = rows_scratch.of(round_up(grid.rows, kernels.rows) * kDepth);
        int64_t packed = -1;
        for (int64_t task = begin; task < end; ++task) {
          const int64_t row = task / grid.column_blocks * grid.rows, rows = std::min(grid.rows, m - row);
          const int64_t first = task % grid.column_blocks * grid.columns;
          const int64_t count = std::min(grid.columns, columns - first);
          if (packed != row) {
            kernels.pack_rows(left.from(row, d), rows, depth, block);
            packed = row;
          }
          kernels.multiply(block, panels + first * depth, rows, count, depth, add || d > 0,
                           to + row * stride + column + first, stride);
        }
      });
    }
  }
}

FloatMatrix matrix_of(const Tensor& tensor, int64_t offset = 0) {
  const int64_t rank = tensor.dim();
  const FloatKind kind = tensor.scalar_type() == at::kFloat      ? FloatKind::kFloat32
                         : tensor.scalar_type() == at::kBFloat16 ? FloatKind::kBFloat16
                                                                 : FloatKind::kFloat16;
  const auto* const data = static_cast<const char*>(tensor.const_data_ptr()) + offset * tensor.element_size();
  return {data, tensor.stride(rank - 2), tensor.stride(rank - 1), kind};
}

// left [m, k], weights [n, k] whose columns follow each other -> to [m, n] + bias, for up to kMostThinRows: the weights
// are read where they are.
void multiply_thin(int64_t m, int64_t n, int64_t k, const FloatMatrix& left, const FloatMatrix& weights,
                   const float* bias, float* to) {
  static thread_local Scratch panels_scratch;
  const FloatProductBuild& kernels = *build();
  float* const panels = panels_scratch.of(round_up(m, kernels.thin_rows) * k);
  at::parallel_for(0, at::divup(m, kernels.thin_rows), 1, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * kernels.thin_rows, count = std::min(end * kernels.thin_rows, m) - first;
    kernels.pack_thin(left.from(first, 0), count, k, panels + first * k);
  });
  const int64_t stride = round_up(m, kernels.thin_rows);
  at::parallel_for(0, at::divup(n, kThinOutputs), 1, [&](int64_t begin, int64_t end) {
    static thread_local Scratch turned_scratch;
    float* const turned = turned_scratch.of(kThinOutputs * stride);
    for (int64_t first = begin * kThinOutputs; first < std::min(end * kThinOutputs, n); first += kThinOutputs) {
      const int64_t count = std::min(kThinOutputs, n - first);
      kernels.multiply_thin(panels, m, k, weights.from(first, 0), count, turned, stride);
      for (int64_t row = 0; row < m; ++row) {
        for (int64_t o = 0; o < count; ++o) {
          to[row * n + first + o] = turned[o * stride + row] + (bias == nullptr ? 0.0f : bias[first + o]);
        }
      }
    }
  });
}

// Whether left [rows, depth] times weight [columns, depth], transposed, is a thin product.
bool is_thin(int64_t rows, const Tensor& weight) {
  return rows <= kMostThinRows && weight.dim() == 2 && weight.stride(1) == 1 && weight.size(0) >= 32 &&
         weight.size(1) >= 64 && rows * weight.numel() >= kFewestMultiplications;
}

bool is_worth(int64_t rows, int64_t columns, int64_t depth) {
  return std::min(rows, columns) >= kShortestSide && depth >= 16 && rows * columns * depth >= kFewestMultiplications;
}

bool takes(const Tensor& left, const Tensor& right) {
  if (!is_used().load(std::memory_order_relaxed)) return false;
  return is_plain(left, at::kFloat) && is_plain(right, at::kFloat);
}

bool takes_matrices(const Tensor& left, const Tensor& right) {
  return left.dim() == 2 && right.dim() == 2 && left.size(1) == right.size(0) &&
         is_worth(left.size(0), right.size(1), left.size(1)) && takes(left, right);
}

bool takes_batches(const Tensor& left, const Tensor& right) {
  return left.dim() == 3 && right.dim() == 3 && left.size(0) == right.size(0) && left.size(2) == right.size(1) &&
         is_worth(left.size(1), right.size(2), left.size(2)) && takes(left, right);
}

void multiply_matrices(const Tensor& left, const Tensor& right, bool add, const Tensor& to) {
  multiply(left.size(0), right.size(1), left.size(1), matrix_of(left), matrix_of(right), add,
           to.mutable_data_ptr<float>(), to.size(1));
}

void multiply_batches(const Tensor& left, const Tensor& right, bool add, const Tensor& to) {
  const int64_t batch = left.size(0), m = left.size(1), k = left.size(2), n = right.size(2);
  float* const results = to.mutable_data_ptr<float>();
  const auto one = [&](int64_t i) {
    multiply(m, n, k, matrix_of(left, i * left.stride(0)), matrix_of(right, i * right.stride(0)), add,
             results + i * m * n, n);
  };
  if (batch < at::get_num_threads()) {
    for (int64_t i = 0; i < batch; ++i) one(i);
    return;
  }
  at::parallel_for(0, batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) one(i);
  });
}

// What a result given by the caller must be: contiguous, of these sizes, and apart from what is read.
bool is_apart(const Tensor& out, at::IntArrayRef sizes, const Tensor& left, const Tensor& right) {
  return is_plain(out, at::kFloat) && out.sizes().equals(sizes) && out.is_contiguous() && !out.is_alias_of(left) &&
         !out.is_alias_of(right);
}

// What beta and alpha must be, and the sizes of what is added.
bool adds(const Tensor& self, at::IntArrayRef sizes, const at::Scalar& beta, const at::Scalar& alpha) {
  if (!alpha.equal(1) || !beta.equal(1) || !is_plain(self, at::kFloat)) return false;
  const int64_t rank = self.dim(), full = static_cast<int64_t>(sizes.size());
  if (rank > full) return false;
  for (int64_t i = 1; i <= rank; ++i) {
    if (self.size(rank - i) != sizes[full - i] && self.size(rank - i) != 1) return false;
  }
  return true;
}

Tensor mm(const Tensor& left, const Tensor& right) {
  if (!takes_matrices(left, right)) return at::cpu::mm(left, right);
  const Tensor out = at::empty({left.size(0), right.size(1)}, left.options());
  multiply_matrices(left, right, false, out);
  return out;
}

Tensor& mm_out(const Tensor& left, const Tensor& right, Tensor& out) {
  if (!takes_matrices(left, right) || !is_apart(out, {left.size(0), right.size(1)}, left, right)) {
    return at::cpu::mm_outf(left, right, out);
  }
  multiply_matrices(left, right, false, out);
  return out;
}

Tensor addmm(const Tensor& self, const Tensor& left, const Tensor& right, const at::Scalar& beta,
             const at::Scalar& alpha) {
  if (!takes_matrices(left, right) || !adds(self, {left.size(0), right.size(1)}, beta, alpha)) {
    return at::cpu::addmm(self, left, right, beta, alpha);
  }
  const Tensor out = at::empty({left.size(0), right.size(1)}, left.options());
  out.copy_(self);
  multiply_matrices(left, right, true, out);
  return out;
}

Tensor& addmm_out(const Tensor& self, const Tensor& left, const Tensor& right, const at::Scalar& beta,
                  const at::Scalar& alpha, Tensor& out) {
  const bool fits = takes_matrices(left, right) && is_apart(out, {left.size(0), right.size(1)}, left, right);
  if (!fits || !adds(self, out.sizes(), beta, alpha) || (out.is_alias_of(self) && !out.is_same(self))) {
    return at::cpu::addmm_outf(self, left, right, beta, alpha, out);
  }
  if (!out.is_same(self)) out.copy_(self);
  multiply_matrices(left, right, true, out);
  return out;
}

Tensor bmm(const Tensor& left, const Tensor& right) {
  if (!takes_batches(left, right)) return at::cpu::bmm(left, right);
  const Tensor out = at::empty({left.size(0), left.size(1), right.size(2)}, left.options());
  multiply_batches(left, right, false, out);
  return out;
}

Tensor& bmm_out(const Tensor& left, const Tensor& right, Tensor& out) {
  if (!takes_batches(left, right) || !is_apart(out, {left.size(0), left.size(1), right.size(2)}, left, right)) {
    return at::cpu::bmm_outf(left, right, out);
  }
  multiply_batches(left, right, false, out);
  return out;
}

Tensor baddbmm(const Tensor& self, const Tensor& left, const Tensor& right, const at::Scalar& beta,
               const at::Scalar& alpha) {
  if (!takes_batches(left, right) || !adds(self, {left.size(0), left.size(1), right.size(2)}, beta, alpha)) {
    return at::cpu::baddbmm(self, left, right, beta, alpha);
  }
  const Tensor out = at::empty({left.size(0), left.size(1), right.size(2)}, left.options());
  out.copy_(self);
  multiply_batches(left, right, true, out);
  return out;
}

// The library's, or this one's: what is used from here on. For tests and benchmarks, which compare them.
bool use_own_products(std::optional<bool> own) {
  if (own.has_value()) is_used() = *own && build() != nullptr;
  return is_used();
}

TORCH_LIBRARY_FRAGMENT(voxtorch, m) { m.def("own_products(bool? own=None) -> bool", use_own_products); }

}  // namespace

void use_float_products() {
  if (build() == nullptr) return;
  replace_kernels(c10::DispatchKey::CPU, [](torch::Library& m) {
    m.impl("mm", TORCH_FN(mm));
    m.impl("mm.out", TORCH_FN(mm_out));
    m.impl("addmm", TORCH_FN(addmm));
    m.impl("addmm.out", TORCH_FN(addmm_out));
    m.impl("bmm", TORCH_FN(bmm));
    m.impl("bmm.out", TORCH_FN(bmm_out));
    m.impl("baddbmm", TORCH_FN(baddbmm));
  });
}

const FloatProductBuild* float_product_build() { return build(); }

bool uses_float_products() { return is_used().load(std::memory_order_relaxed); }

bool is_float_linear(const Tensor& input, const Tensor& weight) {
  if (weight.dim() != 2 || !takes(input, weight)) return false;
  const int64_t out = weight.size(0), in = weight.size(1), rows = input.numel() / in;
  return is_worth(rows, out, in) || (rows >= kFewestThinRows && is_thin(rows, weight));
}

Tensor float_linear(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias) {
  std::vector<int64_t> sizes = input.sizes().vec();
  sizes.back() = weight.size(0);
  return widened_linear(input, weight, bias).view(sizes);
}

bool has_widened_products() { return build() != nullptr; }

Tensor widened_linear(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias) {
  const Tensor rows = input.reshape({-1, weight.size(1)});
  if (!is_thin(rows.size(0), weight)) return widened_mm(rows, weight.t(), bias);
  const Tensor out = at::empty({rows.size(0), weight.size(0)}, rows.options().dtype(at::kFloat));
  const Tensor offset = bias.has_value() && bias->defined() ? bias->to(at::kFloat).contiguous() : Tensor();
  multiply_thin(rows.size(0), weight.size(0), weight.size(1), matrix_of(rows), matrix_of(weight),
                offset.defined() ? offset.const_data_ptr<float>() : nullptr, out.mutable_data_ptr<float>());
  return out;
}

Tensor widened_mm(const Tensor& left, const Tensor& right, const std::optional<Tensor>& bias) {
  const Tensor out = at::empty({left.size(0), right.size(1)}, left.options().dtype(at::kFloat));
  const bool add = bias.has_value() && bias->defined();
  if (add) out.copy_(*bias);
  multiply_matrices(left, right, add, out);
  return out;
}

}  // namespace voxtorch::kernels
