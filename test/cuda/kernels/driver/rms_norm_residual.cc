#include "core/kernels/rms_norm_residual/args.h"

#include "checks.h"

namespace driver {
namespace {

using namespace voxtorch::kernels;

struct Case {
  int64_t rows, dim;
  bool residual, weight;
  int64_t blocks;
  int64_t shift = 0;  // in elements, so that 16 bytes at once do not fit
};

template <typename T>
void run(const Case& c) {
  using Acc = typename Type<T>::Acc;
  const auto type = static_cast<RowType>(Type<T>::index);
  const std::string name = std::string("rms_norm_residual ") + Type<T>::name + " [" + std::to_string(c.rows) + ", " +
                           std::to_string(c.dim) + "] ";
  const size_t size = static_cast<size_t>(c.rows * c.dim);
  Array<T> input(size + c.shift), residual(size), weight(c.dim), grad(size), grad_hidden(size);
  Array<T> hidden(size), output(size), grad_input(size);
  Array<Acc> partials(c.blocks * c.dim);
  for (auto* each : {&input, &residual, &grad, &grad_hidden}) each->draw();
  weight.draw(1);
  partials.zero();
  const T* const x = input.data + c.shift;
  const T* const r = c.residual ? residual.data : nullptr;
  const T* const w = c.weight ? weight.data : nullptr;
  const double eps = 1e-6;
  check(launch_rms_norm_forward(type, {x, r, w, hidden.data, output.data, c.rows, c.dim, eps}, nullptr) == 0,
        name + "forward is launched");
  const RmsNormBackward backward{
      grad.data, c.residual ? grad_hidden.data : nullptr, hidden.data, w, grad_input.data, c.rows, c.dim, eps};
  check(launch_rms_norm_backward(type, backward, c.weight ? partials.data : nullptr, c.blocks, nullptr) == 0,
        name + "backward is launched");

  std::vector<double> sums(size), y(size), dx(size), dw(c.dim);
  for (int64_t row = 0; row < c.rows; ++row) {
    const auto at = [&](int64_t d) { return static_cast<size_t>(row * c.dim + d); };
    const auto weighted = [&](int64_t d) { return c.weight ? weight[d] : 1.0; };
    double squares = 0, products = 0;
    for (int64_t d = 0; d < c.dim; ++d) {
      sums[at(d)] = static_cast<double>(x[at(d)]) + (c.residual ? residual[at(d)] : 0);
      squares += hidden[at(d)] * hidden[at(d)];
    }
    const double scale = 1 / std::sqrt(squares / static_cast<double>(c.dim) + eps);
    for (int64_t d = 0; d < c.dim; ++d) products += grad[at(d)] * weighted(d) * hidden[at(d)] * scale;
    for (int64_t d = 0; d < c.dim; ++d) {
      const double normed = hidden[at(d)] * scale;
      y[at(d)] = normed * weighted(d);
      dx[at(d)] = scale * (grad[at(d)] * weighted(d) - normed * products / static_cast<double>(c.dim));
      if (c.residual) dx[at(d)] += grad_hidden[at(d)];
      dw[d] += grad[at(d)] * normed;
    }
  }
  compare(name + "hidden", hidden, sums, Type<T>::rounded);
  compare(name + "output", output, y, Type<T>::rounded);
  compare(name + "gradient of input", grad_input, dx, Type<T>::rounded);
  if (!c.weight) return;
  Array<double> summed(c.dim);
  summed.zero();
  for (size_t i = 0; i < partials.size; ++i) summed.data[i % c.dim] += partials[i];
  compare(name + "gradient of weight", summed, dw, Type<T>::exact);
}

template <typename T>
void cases() {
  run<T>({5, 768, true, true, 3});
  run<T>({3, 17, false, true, 2});  // no whole warp, no whole vector
  run<T>({6, 1, true, true, 6});
  run<T>({2, 4099, true, false, 2});     // one more than registers hold in vectors of one
  run<T>({3, 1032, false, true, 2, 1});  // not aligned
  run<T>({2, 20480, true, true, 1});     // more than registers hold
}

}  // namespace

void rms_norm_residual(bool quick) {
  cases<float>();
  if (quick) return;
  cases<c10::BFloat16>();
  cases<c10::Half>();
  cases<double>();
}

}  // namespace driver
