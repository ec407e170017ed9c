#include "core/kernels/gated_position_attention/args.h"

#include "checks.h"

namespace driver {
namespace {

using namespace voxtorch::kernels;

enum class Mask { kNone, kHoles, kEmptyRow };

struct Case {
  int64_t batch, heads, time, dim;
  Mask mask;
  double dropout;
  bool transposed = false;  // dim before time in memory, else [batch, time, heads, dim]
  double masked = kNaN;     // what masked keys and values hold: none of it may reach a result
  int64_t shift = 0;        // in elements, so that 16 bytes at once do not fit
  int64_t free_keys = 0;
};

template <typename T>
void run(const Case& c) {
  using Acc = typename Type<T>::Acc;
  const auto type = static_cast<AttentionType>(Type<T>::index);
  const int64_t B = c.batch, H = c.heads, N = c.time, D = c.dim, distances = 2 * N - 1;
  const std::string name = std::string("gated_position_attention ") + Type<T>::name + " [" + std::to_string(B) + ", " +
                           std::to_string(H) + ", " + std::to_string(N) + ", " + std::to_string(D) + "] mask " +
                           std::to_string(static_cast<int>(c.mask)) + " dropout " + std::to_string(c.dropout) + " free " +
                           std::to_string(c.free_keys) + " ";
  const int64_t batch_stride = N * H * D, head_stride = c.transposed ? D * N : D;
  const int64_t time_stride = c.transposed ? 1 : H * D, dim_stride = c.transposed ? N : 1;
  const auto at = [&](int64_t b, int64_t h, int64_t t, int64_t d) {
    return static_cast<size_t>(c.shift + b * batch_stride + h * head_stride + t * time_stride + d * dim_stride);
  };
  const auto read = [&](const Array<T>& from) {
    return Strided<const void>{from.data + c.shift, batch_stride, head_stride, time_stride, dim_stride};
  };
  const auto written = [&](const Array<T>& to) {
    return Strided<void>{to.data + c.shift, batch_stride, head_stride, time_stride, dim_stride};
  };

  Array<T> query(c.shift + B * H * N * D), key(query.size), value(query.size), grad(query.size);
  Array<T> output(query.size), grad_query(query.size), grad_key(query.size), grad_value(query.size);
  Array<Acc> gate(B * H * N), relative(H * distances), logsumexp(gate.size), correction(gate.size);
  Array<Acc> grad_gate(gate.size), grad_relative(relative.size);
  Array<bool> mask(B * N);
  for (auto* each : {&query, &key, &value, &grad}) each->draw();
  for (auto* each : {&output, &grad_query, &grad_key, &grad_value}) std::fill_n(each->data, c.shift, static_cast<T>(0));
  gate.draw(1);
  relative.draw();
  for (size_t i = 0; i < mask.size; ++i) {
    const bool empty = c.mask == Mask::kEmptyRow && i < static_cast<size_t>(N);
    mask.data[i] = c.mask == Mask::kNone || (!empty && random_bits() % 5 > 1);
  }
  for (int64_t b = 0; b < B; ++b) {
    for (int64_t t = 0; t < N; ++t) {
      for (int64_t i = 0; i < H * D && !mask.data[b * N + t]; ++i) {
        key.data[at(b, i / D, t, i % D)] = static_cast<T>(c.masked);
        value.data[at(b, i / D, t, i % D)] = static_cast<T>(c.masked);
      }
    }
  }
  const double scale = 1 / std::sqrt(static_cast<double>(D));
  const bool* const key_mask = c.mask == Mask::kNone ? nullptr : mask.data;
  const AttentionInputs inputs{read(query), read(key), read(value), gate.data, relative.data, key_mask,
                               B,           H,         N,           D,         scale,         dropout_of(c.dropout),
                               c.free_keys};
  check(launch_attention_forward(type, {inputs, written(output), logsumexp.data}, nullptr) == 0,
        name + "forward is launched");

  std::vector<double> o(query.size), dq(query.size), dk(query.size), dv(query.size);
  std::vector<double> dg(gate.size), dr(relative.size), weight(gate.size);
  double subtracted = 1e-2;  // the largest number whose difference to another is part of a distance's gradient
  for (int64_t row = 0; row < B * H * N; ++row) {
    const int64_t b = row / N / H, h = row / N % H, i = row % N;
    std::vector<int64_t> keys;
    for (int64_t j = 0; j < N; ++j) {
      if (mask.data[b * N + j]) keys.push_back(j);
    }
    const auto distance = [&](int64_t j) { return static_cast<size_t>(h * distances + j - i + N - 1); };
    std::vector<double> p(N), dp(N), factor(N);
    double top = -kInfinity, sum = 0, pull = 0;
    for (const int64_t j : keys) {
      p[j] = j < c.free_keys ? 0 : gate[row] * relative[distance(j)];
      for (int64_t d = 0; d < D; ++d) p[j] += scale * query[at(b, h, i, d)] * key[at(b, h, j, d)];
      factor[j] = factor_of(inputs.dropout, b * H + h, i, j);
      top = std::max(top, p[j]);
    }
    for (const int64_t j : keys) sum += p[j] = std::exp(p[j] - top);
    weight[row] = keys.empty() ? kInfinity : top + std::log(sum);
    for (const int64_t j : keys) {
      p[j] /= sum;
      for (int64_t d = 0; d < D; ++d) {
        o[at(b, h, i, d)] += p[j] * factor[j] * value[at(b, h, j, d)];
        dp[j] += factor[j] * grad[at(b, h, i, d)] * value[at(b, h, j, d)];
        dv[at(b, h, j, d)] += p[j] * factor[j] * grad[at(b, h, i, d)];
      }
      pull += p[j] * dp[j];
    }
    for (const int64_t j : keys) {
      const double to_score = p[j] * (dp[j] - pull);
      if (j >= c.free_keys) {
        dg[row] += to_score * relative[distance(j)];
        dr[distance(j)] += to_score * gate[row];
      }
      subtracted = std::max(subtracted, std::fabs(p[j] * dp[j] * gate[row]));
      for (int64_t d = 0; d < D; ++d) {
        dq[at(b, h, i, d)] += scale * to_score * key[at(b, h, j, d)];
        dk[at(b, h, j, d)] += scale * to_score * query[at(b, h, i, d)];
      }
    }
  }

  // As the host makes it, from the rounded output.
  for (int64_t row = 0; row < B * H * N; ++row) {
    double sum = 0;
    for (int64_t d = 0; d < D; ++d) {
      const size_t one = at(row / N / H, row / N % H, row % N, d);
      sum += grad[one] * output[one];
    }
    correction.data[row] = static_cast<Acc>(sum);
  }
  Array<Acc> partials(attention_partials(type, inputs));
  partials.zero();
  const AttentionBackward backward{inputs,
                                   read(grad),
                                   logsumexp.data,
                                   correction.data,
                                   written(grad_query),
                                   written(grad_key),
                                   written(grad_value),
                                   grad_gate.data,
                                   grad_relative.data,
                                   partials.data};
  check(launch_attention_backward(type, backward, nullptr) == 0, name + "backward is launched");
  compare(name + "output", output, o, Type<T>::rounded);
  compare(name + "gradient of query", grad_query, dq, Type<T>::rounded);
  compare(name + "gradient of key", grad_key, dk, Type<T>::rounded);
  compare(name + "gradient of value", grad_value, dv, Type<T>::rounded);
  compare(name + "gradient of gate", grad_gate, dg, Type<T>::exact);
  compare(name + "gradient of relative", grad_relative, dr, Type<T>::rounded, subtracted);
  bool rows = true;
  for (size_t i = 0; i < weight.size(); ++i) {
    rows = rows && (weight[i] == kInfinity ? logsumexp[i] == kInfinity : std::fabs(logsumexp[i] - weight[i]) < 1e-4);
  }
  check(rows, name + "logsumexp");
}

template <typename T>
void cases() {
  run<T>({1, 2, 7, 8, Mask::kNone, 0.3});
  run<T>({2, 1, 70, 64, Mask::kEmptyRow, 0.3});              // more than a tile of 64 or 32, one batch row without keys
  run<T>({1, 2, 65, 33, Mask::kHoles, 0, true, kInfinity});  // one more than a tile, an odd dim
  run<T>({1, 1, 40, 80, Mask::kHoles, 0});                   // the tiles of large dims
  run<T>({1, 1, 17, 128, Mask::kNone, 1, true});             // the largest dim, all dropped
  run<T>({1, 1, 64, 3, Mask::kNone, 0});                     // exactly one tile
  run<T>({1, 1, 1, 1, Mask::kNone, 0});
  run<T>({1, 2, 70, 8, Mask::kHoles, 0, false, kNaN, 0, 1});  // a key without a bias
  run<T>({1, 1, 70, 8, Mask::kNone, 0.3, false, kNaN, 0, 66});  // and more of them than a tile has
}

// Of what tensor cores compute.
template <typename T>
void half_cases() {
  run<T>({1, 2, 130, 64, Mask::kHoles, 0.3});                   // three tiles
  run<T>({1, 1, 70, 128, Mask::kNone, 0.3});                    // two of the largest dim
  run<T>({1, 1, 66, 16, Mask::kHoles, 0});                      // one step of 16
  run<T>({1, 1, 65, 24, Mask::kNone, 0, false, kNaN, 1});       // sixteen bytes do not lie so
  run<T>({1, 1, 40, 96, Mask::kHoles, 0.3, true, kInfinity});   // columns that lie apart
}

}  // namespace

void gated_position_attention(bool quick) {
  cases<float>();
  run<c10::BFloat16>({1, 2, 65, 33, Mask::kHoles, 0.3, true, kInfinity});
  run<c10::Half>({1, 1, 65, 24, Mask::kNone, 0, false, kNaN, 1});
  run<c10::Half>({1, 1, 65, 24, Mask::kNone, 0, false, kNaN, 0, 1});
  if (quick) return;
  half_cases<c10::BFloat16>();
  half_cases<c10::Half>();
  cases<c10::BFloat16>();
  cases<c10::Half>();
  cases<double>();
  const int asked = emulation::shared_requests;
  cases<float>();
  check(emulation::shared_requests == asked, "shared memory is asked for once a kernel, not at every launch");
}

}  // namespace driver
