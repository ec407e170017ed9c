#include "core/kernels/decode_attention/args.h"

#include "checks.h"

namespace driver {
namespace {

using namespace voxtorch::kernels;

// The cache in memory: [heads, places, dims], [places, heads, dims], [heads, dims, places]; the first with room for three
// more dims, or with a hole after each.
enum class Layout { kHeads, kPlaces, kDims, kRoom, kHoles };

struct Case {
  int64_t rows, heads, kv_heads, capacity, dim, position;
  int64_t window = 0;
  int64_t columns = 0;  // of the mask; 0: none
  Layout layout = Layout::kHeads;
  size_t shift = 0;  // in elements, so that 16 bytes at once do not fit
};

template <typename T>
void run(const Case& c) {
  const auto type = static_cast<DecodeType>(Type<T>::index);
  const int64_t R = c.rows, H = c.heads, K = c.kv_heads, C = c.capacity, D = c.dim;
  const std::string name = std::string("decode_attention ") + Type<T>::name + " [" + std::to_string(R) + ", " +
                           std::to_string(H) + " of " + std::to_string(K) + ", " + std::to_string(D) + "] at " +
                           std::to_string(c.position) + " of " + std::to_string(C) + " window " +
                           std::to_string(c.window) + " ";
  const int64_t step = c.layout == Layout::kDims ? C : c.layout == Layout::kHoles ? 2 : 1;
  const int64_t inner = c.layout == Layout::kRoom ? D + 3 : c.layout == Layout::kHoles ? 2 * D : D;
  const int64_t head = c.layout == Layout::kPlaces ? D : C * inner;
  const int64_t place = c.layout == Layout::kPlaces ? K * D : c.layout == Layout::kDims ? 1 : inner;
  Array<T> query(R * H * D), output(query.size), keys(R * K * C * inner + c.shift), values(keys.size);
  Array<bool> mask(R * c.columns);
  Array<int64_t> position(1);
  Array<float> partial(R * H * decode_splits(C) * (D + 2));
  Array<unsigned> tickets(R * K * decode_passes(H, K));
  tickets.zero();
  position.data[0] = c.position;
  for (auto* each : {&query, &keys, &values}) each->draw();
  // The token sees itself, whatever the mask says.
  for (size_t i = 0; i < mask.size; ++i)
    mask.data[i] = random_bits() % 3 > 0 && static_cast<int64_t>(i) % c.columns != c.position;

  const auto at = [&](int64_t row, int64_t h, int64_t p, int64_t d) {
    return static_cast<size_t>(c.shift + row * K * C * inner + h * head + p * place + d * step);
  };
  const int64_t last = std::min(c.position, C - 1);
  const auto sees = [&](int64_t row, int64_t p) {
    if (p > last || (c.window > 0 && p <= last - c.window)) return false;
    return p == last || c.columns == 0 || (p < c.columns && mask.data[row * c.columns + p]);
  };
  for (int64_t i = 0; i < R * C * K * D; ++i) {
    const int64_t row = i / C / K / D, p = i / K / D % C, h = i / D % K, d = i % D;
    if (sees(row, p)) continue;
    keys.data[at(row, h, p, d)] = static_cast<T>(kNaN);
    values.data[at(row, h, p, d)] = static_cast<T>(d % 2 == 0 ? kInfinity : kNaN);
  }

  const float scale = 0.3f;
  std::vector<double> expected(query.size);
  for (int64_t row = 0; row < R; ++row) {
    for (int64_t h = 0; h < H; ++h) {
      std::vector<double> weights(C);
      double top = -kInfinity, sum = 0;
      for (int64_t p = 0; p < C; ++p) {
        if (!sees(row, p)) continue;
        for (int64_t d = 0; d < D; ++d) weights[p] += scale * query[(row * H + h) * D + d] * keys[at(row, h / (H / K), p, d)];
        top = std::max(top, weights[p]);
      }
      for (int64_t p = 0; p < C; ++p) sum += weights[p] = sees(row, p) ? std::exp(weights[p] - top) : 0;
      for (int64_t p = 0; p < C; ++p) {
        for (int64_t d = 0; d < D && sees(row, p); ++d)
          expected[(row * H + h) * D + d] += weights[p] / sum * values[at(row, h / (H / K), p, d)];
      }
    }
  }

  const auto places = [&](const Array<T>& of) {
    return DecodePlaces{of.data + c.shift, K * C * inner, head, place, step};
  };
  const DecodeAttention args{query.data,
                             places(keys),
                             places(values),
                             position.data,
                             c.columns > 0 ? mask.data : nullptr,
                             c.columns,
                             c.columns,
                             output.data,
                             partial.data,
                             tickets.data,
                             R,
                             H,
                             K,
                             C,
                             D,
                             c.window,
                             scale};
  // Again with what the first launch left, as a graph is replayed.
  for (const char* which : {"once", "again"}) {
    std::memset(static_cast<void*>(output.data), 0xff, output.size * sizeof(T));
    check(launch_decode_attention(type, args, nullptr) == 0, name + "is launched");
    compare(name + which, output, expected, Type<T>::rounded);
  }
  check(std::all_of(tickets.data, tickets.data + tickets.size, [](unsigned t) { return t == 0; }),
        name + "leaves its tickets zero");
}

template <typename T>
void cases() {
  run<T>({2, 4, 2, 100, 64, 0});                           // the first token
  run<T>({1, 6, 2, 200, 64, 199, 0, 200});                 // a full cache, four parts, a mask
  run<T>({2, 3, 3, 130, 33, 64, 0, 65});                   // the first place of a part, an odd dim
  run<T>({1, 8, 1, 150, 128, 127, 70});                    // a window that begins within a part, the last place of one
  run<T>({1, 9, 1, 70, 40, 66, 3, 67});                    // more query heads than a block takes, a window of one part
  run<T>({2, 2, 1, 80, 256, 70, 0, 90, Layout::kPlaces});  // the largest dim, a mask that is wider than the cache
  run<T>({1, 4, 2, 90, 16, 88, 0, 0, Layout::kDims});
  run<T>({2, 4, 2, 200, 5, 199, 0, 0, Layout::kRoom});   // places that are whole vectors apart, which a dim is not
  run<T>({1, 2, 2, 70, 16, 69, 0, 0, Layout::kHoles});
  run<T>({1, 4, 1, 66, 24, 65, 65, 0, Layout::kHeads, 1});  // not aligned
  run<T>({1, 5, 1, 4200, 8, 300, 0, 301});                 // parts of 128
  run<T>({1, 1, 1, 300, 8, 290, 0, 100});                  // a mask without columns for the last parts: they see nothing
  run<T>({1, 2, 2, 3, 4, 7});                              // no such place: the last one
  run<T>({1, 1, 1, 1, 1, 0, 1});
}

}  // namespace

void decode_attention(bool quick) {
  cases<float>();
  if (quick) return;
  cases<c10::BFloat16>();
  cases<c10::Half>();
}

}  // namespace driver
