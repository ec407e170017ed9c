#include "core/kernels/anti_aliased_snake/args.h"

#include "checks.h"

namespace driver {
namespace {

using namespace voxtorch::kernels;

struct Case {
  int64_t batch, channels, time;
};

// The formula as it stands in anti_aliased_snake.cc, a row at a time.
template <typename T>
void run(const Case& c) {
  using Acc = typename Type<T>::Acc;
  const auto type = static_cast<SnakeType>(Type<T>::index);
  const int64_t rows = c.batch * c.channels, N = c.time, tiles = snake_tiles(N);
  const std::string name = std::string("anti_aliased_snake ") + Type<T>::name + " [" + std::to_string(c.batch) + ", " +
                           std::to_string(c.channels) + ", " + std::to_string(N) + "] ";
  Array<T> input(rows * N), grad(rows * N), output(rows * N), grad_input(rows * N);
  Array<Acc> frequency(c.channels), magnitude(c.channels), up(kSnakeTaps), down(kSnakeTaps);
  Array<Acc> to_frequency(rows * tiles), to_magnitude(rows * tiles);
  input.draw();
  grad.draw();
  frequency.draw(1);
  magnitude.draw(1);
  up.draw();
  down.draw();

  std::vector<double> o(input.size), dx(input.size), df(rows), dm(rows);
  const auto inside = [](int64_t place, int64_t size) { return std::min(std::max<int64_t>(place, 0), size - 1); };
  for (int64_t row = 0; row < rows; ++row) {
    const double f = frequency[row % c.channels], m = magnitude[row % c.channels];
    std::vector<double> doubled(2 * N), active(2 * N), dactive(2 * N);
    for (int64_t n = 0; n < 2 * N; ++n) {
      for (int k = 0; k < kSnakeTaps; ++k) {
        if ((n + 15 - k) % 2 == 0) doubled[n] += 2 * up[k] * input[row * N + inside((n + 15 - k) / 2 - 5, N)];
      }
      active[n] = doubled[n] + m * std::pow(std::sin(f * doubled[n]), 2);
    }
    for (int64_t i = 0; i < N; ++i) {
      for (int k = 0; k < kSnakeTaps; ++k) {
        o[row * N + i] += down[k] * active[inside(2 * i + k - 5, 2 * N)];
        dactive[inside(2 * i + k - 5, 2 * N)] += down[k] * grad[row * N + i];
      }
    }
    for (int64_t n = 0; n < 2 * N; ++n) {
      const double turned = dactive[n] * m * std::sin(2 * f * doubled[n]);
      df[row] += turned * doubled[n];
      dm[row] += dactive[n] * std::pow(std::sin(f * doubled[n]), 2);
      for (int k = 0; k < kSnakeTaps; ++k) {
        if ((n + 15 - k) % 2 == 0)
          dx[row * N + inside((n + 15 - k) / 2 - 5, N)] += 2 * up[k] * (dactive[n] + turned * f);
      }
    }
  }

  const SnakeInputs inputs{input.data, frequency.data, magnitude.data, up.data, down.data, rows, c.channels, N};
  check(launch_snake_forward(type, {inputs, output.data}, nullptr) == 0, name + "forward is launched");
  check(launch_snake_backward(type, {inputs, grad.data, grad_input.data, to_frequency.data, to_magnitude.data},
                              nullptr) == 0,
        name + "backward is launched");
  compare(name + "output", output, o, Type<T>::rounded);
  compare(name + "gradient of input", grad_input, dx, Type<T>::rounded);
  // Each block's part is summed by the host.
  const auto summed = [&](const Array<Acc>& parts) {
    Array<double> sums(rows);
    sums.zero();
    for (size_t i = 0; i < parts.size; ++i) sums.data[i / static_cast<size_t>(tiles)] += parts[i];
    return std::vector<double>(sums.data, sums.data + rows);
  };
  const auto near = [&](const std::string& what, const std::vector<double>& found, const std::vector<double>& wanted) {
    Array<double> as(found.size());
    std::copy(found.begin(), found.end(), as.data);
    // Sums of terms of both signs.
    compare(name + what, as, wanted, 10 * Type<T>::exact, std::sqrt(static_cast<double>(N)));
  };
  near("gradient of frequency", summed(to_frequency), df);
  near("gradient of magnitude", summed(to_magnitude), dm);
}

template <typename T>
void cases() {
  run<T>({2, 3, 1});
  run<T>({1, 2, 2});
  run<T>({1, 2, 7});     // all of it is an end
  run<T>({2, 1, 511});
  run<T>({1, 1, 512});   // exactly a tile
  run<T>({1, 2, 513});   // one more: the first tile sees beyond the end
  run<T>({1, 1, 515});
  run<T>({1, 1, 1100});  // a tile between two
}

}  // namespace

void anti_aliased_snake(bool quick) {
  cases<float>();
  if (quick) return;
  cases<c10::BFloat16>();
  cases<c10::Half>();
  cases<double>();
}

}  // namespace driver
