// gated_position_attention on the CPU: blocks of whole rows of one head. BLAS makes the products, one thread a block,
// and the rows in between (softmax, bias, dropout and their gradients) are vector code for float32 in the widest build
// the processor has (ATEN_CPU_CAPABILITY narrows it, as it does ATen's) and plain loops for float64. Half precision is
// computed in float32; of bfloat16 without a gradient to come the products are bfloat16, which the backward, that makes
// the scores again, could not follow.
#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/kernels/gated_position_attention/dropout.h"
#include "core/kernels/gated_position_attention/gated_position_attention.h"
#include "core/runtime/recording.h"

namespace voxtorch::kernels {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

constexpr int64_t kColumns = 16;         // rows are padded to whole vectors
constexpr int64_t kBlockBytes = 262144;  // of scores: a few blocks fit in the second-level cache

const AttentionRows& vector_rows() { return VOXTORCH_BEST_BUILD(attention_rows); }

void forward_plain(const AttentionBlock<double>& args, double* scores, double* logsumexp) {
  const double infinity = std::numeric_limits<double>::infinity();
  for (int64_t r = 0; r < args.rows; ++r) {
    double* row = scores + r * args.stride;
    const double* relative = args.relative + (args.time - 1 - (args.row + r));
    double top = -infinity;
    for (int64_t j = 0; j < args.stride; ++j) {
      row[j] = args.attend[j] ? row[j] + (j < args.free_keys ? 0 : args.gate[r] * relative[j]) : -infinity;
      top = row[j] > top ? row[j] : top;
    }
    const double shift = top == -infinity ? 0 : top;
    double weight = 0;
    for (int64_t j = 0; j < args.stride; ++j) weight += row[j] = std::exp(row[j] - shift);
    logsumexp[r] = weight == 0 ? infinity : top + std::log(weight);
    for (int64_t j = 0; j < args.stride; ++j) {
      row[j] = weight == 0 ? 0 : row[j] / weight;
      if (args.dropout.threshold != 0) {
        row[j] = keeps(args.dropout, args.head, args.row + r, j) ? row[j] * args.dropout.scale : 0;
      }
    }
  }
}

void backward_plain(const AttentionBlock<double>& args, double* scores, double* grads, const double* logsumexp,
                    double* grad_gate, double* grad_relative, double* probabilities) {
  for (int64_t r = 0; r < args.rows; ++r) {
    double* row = scores + r * args.stride;
    double* grad = grads + r * args.stride;
    const int64_t shift = args.time - 1 - (args.row + r);
    const double* relative = args.relative + shift;
    double weight = 0;
    double products = 0;
    for (int64_t j = 0; j < args.stride; ++j) {
      const double bias = j < args.free_keys ? 0 : args.gate[r] * relative[j];
      probabilities[j] = args.attend[j] ? std::exp(row[j] + bias - logsumexp[r]) : 0;
      row[j] = probabilities[j];
      if (!args.attend[j]) grad[j] = 0;
      if (args.dropout.threshold != 0) {
        const double factor = keeps(args.dropout, args.head, args.row + r, j) ? args.dropout.scale : 0;
        row[j] *= factor;
        grad[j] *= factor;
      }
      weight += probabilities[j];
      products += probabilities[j] * grad[j];
    }
    const double mean = weight == 0 ? 0 : products / weight;
    grad_gate[r] = 0;
    for (int64_t j = 0; j < args.stride; ++j) {
      grad[j] = probabilities[j] * (grad[j] - mean);
      if (j < args.free_keys) continue;
      grad_gate[r] += grad[j] * relative[j];
      grad_relative[shift + j] += grad[j] * args.gate[r];
    }
  }
}

template <typename Acc>
AttentionForwardRows<Acc> forward_rows() {
  if constexpr (std::is_same_v<Acc, float>) {
    return vector_rows().forward;
  } else {
    return forward_plain;
  }
}

template <typename Acc>
AttentionBackwardRows<Acc> backward_rows() {
  if constexpr (std::is_same_v<Acc, float>) {
    return vector_rows().backward;
  } else {
    return backward_plain;
  }
}

int64_t padded(int64_t columns) { return (columns + kColumns - 1) / kColumns * kColumns; }

// So that BLAS can read its rows; half precision is copied anyway when it is converted.
Tensor readable(const Tensor& tensor, at::ScalarType type) {
  const bool has_rows = tensor.stride(3) == 1 && tensor.stride(2) >= tensor.size(3);
  return has_rows || tensor.scalar_type() != type ? tensor : tensor.contiguous();
}

// Rows of one head of [batch, heads, time, dim] as a matrix.
Tensor matrix(const Tensor& tensor, int64_t batch, int64_t head, int64_t row, int64_t rows) {
  return tensor.as_strided(
      {rows, tensor.size(3)}, {tensor.stride(2), tensor.stride(3)},
      tensor.storage_offset() + batch * tensor.stride(0) + head * tensor.stride(1) + row * tensor.stride(2));
}

// run(begin, end) over the tasks. Two at least: with one, parallel_for would stay outside of a parallel region, where
// BLAS takes threads of its own, and BLAS does not promise the same bits for any number of them.
template <typename Run>
void each_task(int64_t tasks, Run run) {
  at::parallel_for(0, std::max<int64_t>(tasks, 2), 1, [&](int64_t begin, int64_t end) {
    // The caller's dispatch state does not reach this thread.
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    if (begin < tasks) run(begin, std::min(end, tasks));
  });
}

// What both directions read: the inputs made readable, the mask, and how the work is cut.
template <typename Acc>
struct Work {
  explicit Work(const GatedAttention& call)
      : type(call.accumulator()),
        batch(call.query.size(0)),
        heads(call.query.size(1)),
        time(call.query.size(2)),
        dim(call.query.size(3)),
        query(readable(call.query, type)),
        key(readable(call.key, type)),
        value(readable(call.value, type)),
        gate(call.gate.to(type).contiguous()),
        relative(at::constant_pad_nd(call.relative.to(type), {0, kColumns})),
        scale(call.score_scale()),
        free_keys(call.free_keys),
        dropout(call.dropped()),
        keys(batch, time),
        attend(padded(time) * batch, 0) {
    const Tensor mask = call.mask();
    const bool* attended = mask.defined() ? mask.const_data_ptr<bool>() : nullptr;
    for (int64_t b = 0; b < batch; ++b) {
      int64_t last = 0;
      for (int64_t j = 0; j < time; ++j) {
        if (attended != nullptr && !attended[b * time + j]) continue;
        attend[b * padded(time) + j] = ~0u;
        last = j + 1;
      }
      keys[b] = last;
    }
    const int64_t fitting = kBlockBytes / static_cast<int64_t>(sizeof(Acc)) / padded(time);
    block_rows = std::min(time, std::clamp<int64_t>(fitting / 16 * 16, 16, 256));
    blocks = (time + block_rows - 1) / block_rows;
  }

  AttentionBlock<Acc> block(int64_t b, int64_t h, int64_t row, int64_t rows) const {
    const int64_t head = b * heads + h;
    return {gate.const_data_ptr<Acc>() + head * time + row,
            relative.const_data_ptr<Acc>() + h * relative.size(1),
            attend.data() + b * padded(time),
            time,
            row,
            rows,
            padded(keys[b]),
            free_keys,
            static_cast<uint32_t>(head),
            dropout};
  }

  // Rows of one head of the query, the key, ... in the dtype that computes.
  Tensor rows_of(const Tensor& tensor, int64_t b, int64_t h, int64_t row, int64_t rows) const {
    return matrix(tensor, b, h, row, rows).to(type);
  }

  Tensor scratch(int64_t rows, int64_t columns) const {
    return at::empty({rows, columns}, at::TensorOptions().dtype(type));
  }

  at::ScalarType type;
  int64_t batch, heads, time, dim;
  Tensor query, key, value, gate, relative;
  double scale;
  int64_t free_keys;
  AttentionDropout dropout;
  std::vector<int64_t> keys;  // of each batch row: the last key attended to and those before it
  std::vector<uint32_t> attend;
  int64_t block_rows, blocks;
};

bool needs_gradient(const GatedAttention& call) {
  if (RunsAgain::active()) return true;
  for (const Tensor* tensor : {&call.query, &call.key, &call.value, &call.gate, &call.relative}) {
    if (tensor->requires_grad()) return true;
  }
  return false;
}

template <typename Acc>
void forward(const GatedAttention& call, const Tensor& output, const Tensor& logsumexp) {
  Work<Acc> work(call);
  const bool halves = output.scalar_type() == at::kBFloat16 && !needs_gradient(call);
  if (halves) {
    work.query = work.query.mul(work.scale).contiguous();
    work.key = work.key.contiguous();
    work.value = work.value.contiguous();
  }
  const bool converts = output.scalar_type() != work.type;
  const auto softmax = forward_rows<Acc>();
  Acc* levels = logsumexp.mutable_data_ptr<Acc>();
  each_task(work.batch * work.heads * work.blocks, [&](int64_t begin, int64_t end) {
    const Tensor space = work.scratch(work.block_rows, padded(work.time));
    const Tensor result = converts ? work.scratch(work.block_rows, work.dim) : Tensor();
    const Tensor half_space =
        halves ? at::empty({work.block_rows, padded(work.time)}, output.options()) : Tensor();  // scores, then weights
    Tensor keys, values;  // of the head whose blocks these are
    for (int64_t task = begin; task < end; ++task) {
      const int64_t b = task / work.blocks / work.heads;
      const int64_t h = task / work.blocks % work.heads;
      const int64_t row = task % work.blocks * work.block_rows;
      const int64_t rows = std::min(work.block_rows, work.time - row);
      if (task == begin || row == 0) {
        keys = halves ? matrix(work.key, b, h, 0, work.keys[b]) : work.rows_of(work.key, b, h, 0, work.keys[b]);
        values = halves ? matrix(work.value, b, h, 0, work.keys[b]) : work.rows_of(work.value, b, h, 0, work.keys[b]);
      }
      const AttentionBlock<Acc> block = work.block(b, h, row, rows);
      Acc* level = levels + (b * work.heads + h) * work.time + row;
      Tensor out = matrix(output, b, h, row, rows);
      if (work.keys[b] == 0) {
        out.zero_();
        std::fill_n(level, rows, std::numeric_limits<Acc>::infinity());
        continue;
      }
      Tensor scores = space.as_strided({rows, work.keys[b]}, {block.stride, 1});
      if (halves) {
        Tensor half = half_space.as_strided({rows, work.keys[b]}, {work.keys[b], 1});
        at::mm_out(half, matrix(work.query, b, h, row, rows), keys.t());
        scores.copy_(half);
        softmax(block, scores.mutable_data_ptr<Acc>(), level);
        half.copy_(scores);
        at::mm_out(out, half, values);
        continue;
      }
      at::addmm_out(scores, scores, work.rows_of(work.query, b, h, row, rows), keys.t(), 0, work.scale);
      softmax(block, scores.mutable_data_ptr<Acc>(), level);
      if (converts) {
        Tensor product = result.narrow(0, 0, rows);
        at::mm_out(product, scores, values);
        out.copy_(product);
      } else {
        at::mm_out(out, scores, values);
      }
    }
  });
}

// One head a task, its blocks in order: the sums over blocks are the same on any number of threads.
template <typename Acc>
AttentionGradients backward(const GatedAttention& call, const Tensor& grad_output, const Tensor& logsumexp) {
  const Work<Acc> work(call);
  const Tensor grads = readable(grad_output, work.type);
  const bool converts = call.query.scalar_type() != work.type;
  const auto differentiate = backward_rows<Acc>();
  const int64_t heads = work.batch * work.heads;
  const Tensor grad_query = at::empty_like(call.query);
  const Tensor grad_key = at::empty_like(call.key);
  const Tensor grad_value = at::empty_like(call.value);
  const Tensor grad_gate = at::zeros({work.batch, work.heads, work.time}, work.gate.options());
  const Tensor grad_relative = at::zeros({work.batch, work.heads, work.relative.size(1)}, work.relative.options());
  Acc* to_gate = grad_gate.mutable_data_ptr<Acc>();
  Acc* to_relative = grad_relative.mutable_data_ptr<Acc>();
  const Acc* levels = logsumexp.const_data_ptr<Acc>();

  each_task(heads, [&](int64_t begin, int64_t end) {
    const Tensor score_space = work.scratch(work.block_rows, padded(work.time));
    const Tensor grad_space = work.scratch(work.block_rows, padded(work.time));
    const Tensor spare = work.scratch(1, padded(work.time));
    const Tensor sums = converts ? work.scratch(3 * work.time, work.dim) : Tensor();
    for (int64_t head = begin; head < end; ++head) {
      const int64_t b = head / work.heads;
      const int64_t h = head % work.heads;
      const int64_t keys = work.keys[b];
      Tensor whole[3];  // the gradients of query, key and value
      Tensor into[3];   // where they are summed
      for (int i = 0; i < 3; ++i) {
        whole[i] = matrix(i == 0 ? grad_query : i == 1 ? grad_key : grad_value, b, h, 0, work.time);
        into[i] = converts ? sums.narrow(0, i * work.time, work.time) : whole[i];
      }
      if (keys == 0) {
        for (Tensor& grad : whole) grad.zero_();
        continue;
      }
      if (keys < work.time) {
        for (int i = 1; i < 3; ++i) into[i].narrow(0, keys, work.time - keys).zero_();
      }
      const Tensor k = work.rows_of(work.key, b, h, 0, keys);
      const Tensor v = work.rows_of(work.value, b, h, 0, keys);
      Tensor key_sum = into[1].narrow(0, 0, keys);
      Tensor value_sum = into[2].narrow(0, 0, keys);
      for (int64_t row = 0; row < work.time; row += work.block_rows) {
        const int64_t rows = std::min(work.block_rows, work.time - row);
        const AttentionBlock<Acc> block = work.block(b, h, row, rows);
        const Tensor q = work.rows_of(work.query, b, h, row, rows);
        const Tensor grad = work.rows_of(grads, b, h, row, rows);
        Tensor scores = score_space.as_strided({rows, keys}, {block.stride, 1});
        Tensor grad_scores = grad_space.as_strided({rows, keys}, {block.stride, 1});
        at::addmm_out(scores, scores, q, k.t(), 0, work.scale);
        at::mm_out(grad_scores, grad, v.t());
        differentiate(block, scores.mutable_data_ptr<Acc>(), grad_scores.mutable_data_ptr<Acc>(),
                      levels + head * work.time + row, to_gate + head * work.time + row,
                      to_relative + head * work.relative.size(1), spare.mutable_data_ptr<Acc>());
        const int beta = row == 0 ? 0 : 1;
        Tensor query_rows = into[0].narrow(0, row, rows);
        at::addmm_out(query_rows, query_rows, grad_scores, k, 0, work.scale);
        at::addmm_out(key_sum, key_sum, grad_scores.t(), q, beta, work.scale);
        at::addmm_out(value_sum, value_sum, scores.t(), grad, beta, 1);
      }
      if (converts) {
        for (int i = 0; i < 3; ++i) whole[i].copy_(into[i]);
      }
    }
  });
  return {grad_query, grad_key, grad_value, grad_gate.to(call.gate.scalar_type()),
          grad_relative.narrow(2, 0, 2 * work.time - 1).sum({0}).to(call.relative.scalar_type())};
}

AttentionOutput forward_cpu(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& gate,
                            const Tensor& relative, const OptionalTensor& key_mask, double dropout, int64_t seed,
                            std::optional<double> scale, int64_t free_keys) {
  const GatedAttention call{query, key, value, gate, relative, key_mask, dropout, seed, scale, free_keys};
  check_attention("gated_position_attention", call);
  const Tensor output = empty_attention_output(call);
  const Tensor logsumexp = empty_logsumexp(call);
  if (output.numel() == 0) return {output, logsumexp};
  if (call.accumulator() == at::kDouble) {
    forward<double>(call, output, logsumexp);
  } else {
    forward<float>(call, output, logsumexp);
  }
  return {output, logsumexp};
}

AttentionGradients backward_cpu(const Tensor& grad_output, const Tensor& output, const Tensor& logsumexp,
                                const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& gate,
                                const Tensor& relative, const OptionalTensor& key_mask, double dropout, int64_t seed,
                                std::optional<double> scale, int64_t free_keys) {
  const GatedAttention call{query, key, value, gate, relative, key_mask, dropout, seed, scale, free_keys};
  check_attention_backward(call, grad_output, output, logsumexp);
  return call.accumulator() == at::kDouble ? backward<double>(call, grad_output, logsumexp)
                                           : backward<float>(call, grad_output, logsumexp);
}

}  // namespace

TORCH_LIBRARY_IMPL(voxtorch, CPU, m) {
  m.impl("gated_position_attention_forward", forward_cpu);
  m.impl("gated_position_attention_backward", backward_cpu);
}

}  // namespace voxtorch::kernels
