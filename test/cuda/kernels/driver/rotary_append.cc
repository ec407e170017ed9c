#include "core/kernels/rotary_append/args.h"

#include "checks.h"

namespace driver {
namespace {

using namespace voxtorch::kernels;

struct Case {
  int64_t rows, heads, kv_heads, capacity, dim, position;
  bool shared = false;      // one rotation for all rows
  bool transposed = false;  // the cache is [rows, capacity, kv_heads, dim] in memory
  int64_t rotated = 0;      // the first dimensions of a head; 0: all
};

template <typename T>
void run(const Case& c) {
  const auto type = static_cast<RotaryType>(Type<T>::index);
  const int64_t R = c.rows, H = c.heads, K = c.kv_heads, D = c.dim, all = H + 2 * K;
  const int64_t half = (c.rotated > 0 ? c.rotated : D) / 2;
  const std::string name = std::string("rotary_append ") + Type<T>::name + " [" + std::to_string(R) + ", " +
                           std::to_string(H) + " + 2 * " + std::to_string(K) + ", " + std::to_string(D) + "] at " +
                           std::to_string(c.position) + " of " + std::to_string(c.capacity) + " ";
  Array<T> qkv(R * all * D), cos((c.shared ? 1 : R) * half), sin(cos.size), query(R * H * D);
  Array<T> keys(R * K * c.capacity * D), values(keys.size);
  Array<int64_t> position(1);
  for (auto* each : {&qkv, &cos, &sin, &keys, &values}) each->draw();
  position.data[0] = c.position;
  const int64_t head = c.transposed ? D : c.capacity * D, place = c.transposed ? K * D : D;
  const auto places = [&](const Array<T>& of) { return CachePlaces{of.data, K * c.capacity * D, head, place, 1}; };
  std::vector<double> q(query.size), k(keys.size), v(values.size);
  for (size_t i = 0; i < k.size(); ++i) {
    k[i] = keys[i];
    v[i] = values[i];
  }
  for (int64_t i = 0; i < R * all * half; ++i) {
    const int64_t row = i / half / all, block = i / half % all, d = i % half;
    const double x = qkv[(row * all + block) * D + d], y = qkv[(row * all + block) * D + d + half];
    const double a = cos[(c.shared ? 0 : row * half) + d], b = sin[(c.shared ? 0 : row * half) + d];
    const auto cached = [&](int64_t h) { return row * K * c.capacity * D + h * head + c.position * place + d; };
    if (block < H) {
      q[(row * H + block) * D + d] = x * a - y * b;
      q[(row * H + block) * D + d + half] = y * a + x * b;
    } else if (c.position >= 0 && c.position < c.capacity && block < H + K) {
      k[cached(block - H)] = x * a - y * b;
      k[cached(block - H) + half] = y * a + x * b;
    } else if (c.position >= 0 && c.position < c.capacity) {
      v[cached(block - H - K)] = x;
      v[cached(block - H - K) + half] = y;
    }
  }
  for (int64_t i = 0; i < R * all * (D - 2 * half); ++i) {
    const int64_t rest = D - 2 * half, row = i / rest / all, block = i / rest % all, d = 2 * half + i % rest;
    const double x = qkv[(row * all + block) * D + d];
    const auto cached = [&](int64_t h) { return row * K * c.capacity * D + h * head + c.position * place + d; };
    if (block < H) {
      q[(row * H + block) * D + d] = x;
    } else if (c.position >= 0 && c.position < c.capacity) {
      (block < H + K ? k[cached(block - H)] : v[cached(block - H - K)]) = x;
    }
  }
  const RotaryAppend args{qkv.data,       cos.data,   sin.data, c.shared ? 0 : half, places(keys), places(values),
                          position.data, query.data, R,        H,                   K,            c.capacity,
                          D,          2 * half};
  check(launch_rotary_append(type, args, nullptr) == 0, name + "is launched");
  compare(name + "query", query, q, Type<T>::rounded);
  compare(name + "keys", keys, k, Type<T>::rounded);
  compare(name + "values", values, v, 0);
}

template <typename T>
void cases() {
  run<T>({1, 8, 2, 5, 16, 0});
  run<T>({3, 4, 4, 3, 10, 2, true});  // the last place, not as many pairs as a block has threads
  run<T>({2, 3, 1, 7, 128, 4, false, true});
  run<T>({1, 1, 1, 1, 2, 0});
  run<T>({2, 3, 1, 4, 16, 1, false, false, 12});
  run<T>({3, 2, 2, 4, 8, 3, true, true, 2});
  run<T>({1, 2, 1, 3, 6, 3});   // no such place: nothing is written
  run<T>({1, 2, 1, 3, 6, -1});
}

}  // namespace

void rotary_append(bool quick) {
  cases<float>();
  if (quick) return;
  cases<c10::BFloat16>();
  cases<c10::Half>();
  cases<double>();
}

}  // namespace driver
