// The limits of a machine with a number of threads: how fast memory is read, and how many multiplications and additions
// the registers do when nothing has to be loaded. Prints one JSON line. Compiled by ../limits.ts with -march=native.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__AMX_TILE__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

using Clock = std::chrono::steady_clock;
constexpr double kSeconds = 0.4;
constexpr int kChains = 12;  // independent sums: more than latency times ports

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Operations a second of all threads; `block` does a number of operations and returns it.
double rate(int threads, const std::function<double()>& block) {
  std::vector<double> rates(static_cast<size_t>(threads));
  std::vector<std::thread> all;
  for (int t = 0; t < threads; ++t) {
    all.emplace_back([&, t] {
      block();
      const auto start = Clock::now();
      double done = 0;
      while (seconds_since(start) < kSeconds) done += block();
      rates[static_cast<size_t>(t)] = done / seconds_since(start);
    });
  }
  for (std::thread& one : all) one.join();
  double sum = 0;
  for (const double one : rates) sum += one;
  return sum;
}

template <typename T>
void keep(T& value) {
#if defined(__x86_64__)
  asm volatile("" : "+x"(value));
#else
  asm volatile("" : "+w"(value));
#endif
}

// `Step` adds a product of two registers to a third; `operations` counts multiplications and additions in one.
template <typename Register, typename Step>
double chains(Register a, Register b, Register zero, double operations, Step step) {
  constexpr int kRounds = 100000;
  Register sums[kChains];
  for (Register& sum : sums) sum = zero;
  for (int round = 0; round < kRounds; ++round) {
    for (Register& sum : sums) sum = step(sum, a, b);
    keep(a);
  }
  for (Register& sum : sums) keep(sum);
  return operations * kRounds * kChains;
}

typedef float Floats __attribute__((vector_size(64)));

double float32() {
#if defined(__AVX512F__)
  return chains(_mm512_set1_ps(1.0f), _mm512_set1_ps(0.5f), _mm512_setzero_ps(), 32,
                [](__m512 sum, __m512 a, __m512 b) { return _mm512_fmadd_ps(a, b, sum); });
#elif defined(__FMA__)
  return chains(_mm256_set1_ps(1.0f), _mm256_set1_ps(0.5f), _mm256_setzero_ps(), 16,
                [](__m256 sum, __m256 a, __m256 b) { return _mm256_fmadd_ps(a, b, sum); });
#else
  typedef float Four __attribute__((vector_size(16)));
  return chains(Four{1, 1, 1, 1}, Four{}, Four{}, 8, [](Four sum, Four a, Four b) { return sum + a * b; });
#endif
}

double int8() {
#if defined(__AVX512VNNI__)
  return chains(_mm512_set1_epi8(1), _mm512_set1_epi8(2), _mm512_setzero_si512(), 128,
                [](__m512i sum, __m512i a, __m512i b) { return _mm512_dpbusd_epi32(sum, a, b); });
#elif defined(__AVXVNNI__)
  return chains(_mm256_set1_epi8(1), _mm256_set1_epi8(2), _mm256_setzero_si256(), 64,
                [](__m256i sum, __m256i a, __m256i b) { return _mm256_dpbusd_avx_epi32(sum, a, b); });
#elif defined(__AVX2__)
  const __m256i ones = _mm256_set1_epi16(1);
  return chains(_mm256_set1_epi8(1), _mm256_set1_epi8(2), _mm256_setzero_si256(), 64,
                [ones](__m256i sum, __m256i a, __m256i b) {
                  return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
                });
#else
  return 0;
#endif
}

double bfloat16() {
#if defined(__AVX512BF16__)
  const auto a = (__m512bh)_mm512_set1_epi16(0x3f80), b = (__m512bh)_mm512_set1_epi16(0x3f00);
  return chains(_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), 64,
                [a, b](__m512 sum, __m512, __m512) { return _mm512_dpbf16_ps(sum, a, b); });
#else
  return 0;
#endif
}

#if defined(__AMX_TILE__)
struct TileConfig {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t bytes[16] = {};
  uint8_t rows[16] = {};
};

bool allow_tiles() {
  constexpr int kRequest = 0x1023, kTileData = 18;  // arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}

void configure() {
  TileConfig config;
  for (int i = 0; i < 8; ++i) {
    config.bytes[i] = 64;
    config.rows[i] = 16;
  }
  _tile_loadconfig(&config);
}

double tiles(bool is_int8) {
  constexpr int kRounds = 2000;
  configure();
  for (int i = 0; i < kRounds; ++i) {
    if (is_int8) {
      _tile_dpbssd(0, 4, 6);
      _tile_dpbssd(1, 4, 7);
      _tile_dpbssd(2, 5, 6);
      _tile_dpbssd(3, 5, 7);
    } else {
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  return 4.0 * kRounds * 16 * 16 * 2 * (is_int8 ? 64 : 32);
}
#endif

// Bytes a second that all threads read of memory that no cache holds.
double reading(int threads) {
  constexpr size_t kBytes = size_t{256} << 20;
  const size_t count = kBytes / sizeof(Floats);
  auto* const memory = static_cast<Floats*>(std::aligned_alloc(64, kBytes));
  if (memory == nullptr) return 0;
  std::memset(memory, 1, kBytes);
  double best = 0;
  for (int repeat = 0; repeat < 5; ++repeat) {
    std::vector<std::thread> all;
    const auto start = Clock::now();
    for (int t = 0; t < threads; ++t) {
      all.emplace_back([=] {
        const size_t first = count * static_cast<size_t>(t) / static_cast<size_t>(threads);
        const size_t last = count * static_cast<size_t>(t + 1) / static_cast<size_t>(threads);
        Floats sums[4] = {};
        for (size_t i = first; i + 4 <= last; i += 4) {
          for (size_t k = 0; k < 4; ++k) sums[k] += memory[i + k];
        }
        volatile float sink = (sums[0] + sums[1] + sums[2] + sums[3])[0];
        (void)sink;
      });
    }
    for (std::thread& one : all) one.join();
    const double rate = static_cast<double>(kBytes) / seconds_since(start);
    if (rate > best) best = rate;
  }
  std::free(memory);
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  if (threads < 1 || threads > 4096) {
    std::fprintf(stderr, "limits: expected a number of threads from 1 to 4096\n");
    return 2;
  }
  double amx_int8 = 0, amx_bfloat16 = 0;
#if defined(__AMX_TILE__)
  if (allow_tiles()) {
    amx_int8 = rate(threads, [] { return tiles(true); });
    amx_bfloat16 = rate(threads, [] { return tiles(false); });
  }
#endif
  std::printf("{\"reading\": %.6g, \"float32\": %.6g, \"bfloat16\": %.6g, \"int8\": %.6g, \"amx_bfloat16\": %.6g, "
              "\"amx_int8\": %.6g}\n",
              reading(threads), rate(threads, float32), rate(threads, bfloat16), rate(threads, int8), amx_bfloat16,
              amx_int8);
  return 0;
}
