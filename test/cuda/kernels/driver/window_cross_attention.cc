#include "core/kernels/window_cross_attention/args.h"

#include "checks.h"

namespace driver {
namespace {

using namespace voxtorch::kernels;

struct Case {
  int64_t batch, windows, queries, heads, dim, time, window, stride;
  std::vector<int64_t> lengths;  // none: all frames are valid
  double dropout;
  int64_t gap = 0;  // elements between the rows of keys and of values
};

template <typename T>
void run(const Case& c) {
  using Acc = typename Type<T>::Acc;
  const auto type = static_cast<WindowType>(Type<T>::index);
  const std::string name = std::string("window_cross_attention ") + Type<T>::name + " dim " + std::to_string(c.dim) +
                           " time " + std::to_string(c.time) + " dropout " + std::to_string(c.dropout) + " ";
  const int64_t pitch = c.dim + c.gap, rows = c.batch * c.windows * c.queries * c.heads;
  const int64_t frames = c.batch * c.time * c.heads;
  Array<T> query(rows * c.dim), grad(rows * c.dim), output(rows * c.dim), grad_query(rows * c.dim);
  Array<T> key(frames * pitch), value(frames * pitch), grad_key(frames * c.dim), grad_value(frames * c.dim);
  Array<Acc> logsumexp(rows), deltas(rows);
  Array<int64_t> lengths(c.lengths.size());
  for (auto* each : {&query, &grad, &key, &value}) each->draw();
  std::copy(c.lengths.begin(), c.lengths.end(), lengths.data);
  const auto length = [&](int64_t b) { return c.lengths.empty() ? c.time : std::min(c.time, c.lengths[b]); };
  const auto frame = [&](int64_t b, int64_t t, int64_t h) { return (b * c.time + t) * c.heads + h; };
  for (int64_t b = 0; b < c.batch; ++b) {
    // No result may depend on what lies beyond the lengths.
    for (int64_t at = frame(b, length(b), 0) * pitch; at < frame(b + 1, 0, 0) * pitch; ++at) {
      key.data[at] = static_cast<T>(kNaN);
      value.data[at] = static_cast<T>(kNaN);
    }
  }

  const double scale = 1 / std::sqrt(static_cast<double>(c.dim));
  const auto strided = [&](const Array<T>& from) {
    return WindowFrames{from.data, c.time * c.heads * pitch, c.heads * pitch, pitch};
  };
  const WindowAttention call{query.data,     strided(key),
                             strided(value), c.lengths.empty() ? nullptr : lengths.data,
                             c.batch,        c.windows,
                             c.queries,      c.heads,
                             c.dim,          c.time,
                             c.window,       c.stride,
                             scale,          dropout_of(c.dropout)};
  check(launch_window_forward(type, {call, output.data, logsumexp.data}, nullptr) == 0, name + "forward is launched");
  const WindowBackward backward{call, grad.data, logsumexp.data, grad_query.data, grad_key.data, grad_value.data};
  check(launch_window_backward(type, backward, deltas.data, nullptr) == 0, name + "backward is launched");

  std::vector<double> o(output.size), dq(output.size), dk(grad_key.size), dv(grad_key.size);
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t h = row % c.heads, q = row / c.heads % c.queries, w = row / c.heads / c.queries % c.windows;
    const int64_t b = row / c.heads / c.queries / c.windows;
    const int64_t count = std::max<int64_t>(0, std::min(c.window, length(b) - w * c.stride));
    std::vector<double> p(count), dp(count), factor(count);
    double sum = 0, pull = 0;
    for (int64_t j = 0; j < count; ++j) {
      const int64_t at = frame(b, w * c.stride + j, h) * pitch;
      for (int64_t d = 0; d < c.dim; ++d) p[j] += scale * query[row * c.dim + d] * key[at + d];
      factor[j] = factor_of(call.dropout, b * c.heads + h, w * c.queries + q, j);
      sum += p[j] = std::exp(p[j]);
    }
    for (int64_t j = 0; j < count; ++j) {
      const int64_t at = frame(b, w * c.stride + j, h);
      p[j] /= sum;
      for (int64_t d = 0; d < c.dim; ++d) {
        o[row * c.dim + d] += p[j] * factor[j] * value[at * pitch + d];
        dp[j] += factor[j] * grad[row * c.dim + d] * value[at * pitch + d];
        dv[at * c.dim + d] += p[j] * factor[j] * grad[row * c.dim + d];
      }
      pull += p[j] * dp[j];
    }
    for (int64_t j = 0; j < count; ++j) {
      const int64_t at = frame(b, w * c.stride + j, h);
      const double to_score = scale * p[j] * (dp[j] - pull);
      for (int64_t d = 0; d < c.dim; ++d) {
        dq[row * c.dim + d] += to_score * key[at * pitch + d];
        dk[at * c.dim + d] += to_score * query[row * c.dim + d];
      }
    }
  }
  compare(name + "output", output, o, Type<T>::rounded);
  compare(name + "gradient of query", grad_query, dq, Type<T>::rounded);
  compare(name + "gradient of key", grad_key, dk, Type<T>::rounded);
  compare(name + "gradient of value", grad_value, dv, Type<T>::rounded);
}

template <typename T>
void cases() {
  run<T>({2, 3, 1, 2, 64, 50, 17, 17, {50, 20}, 0.3});  // the last windows are short or empty
  run<T>({1, 4, 2, 3, 40, 9, 5, 2, {}, 0, 3});          // windows overlap, a dim of no whole warps
  run<T>({1, 2, 1, 2, 256, 20, 7, 11, {19}, 0.3});      // frames that no window has, the largest dim
  run<T>({1, 3, 1, 1, 8, 11, 4, 4, {}, 0});             // not as many rows as a block's warps
  run<T>({2, 2, 1, 1, 33, 6, 3, 3, {0, 9}, 1});         // an empty row, a length beyond the end, all dropped
  run<T>({1, 1, 1, 1, 1, 1, 1, 1, {}, 0});
}

}  // namespace

void window_cross_attention(bool quick) {
  cases<float>();
  if (quick) return;
  cases<c10::BFloat16>();
  cases<c10::Half>();
  cases<double>();
}

}  // namespace driver
