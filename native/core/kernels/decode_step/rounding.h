// Weights in int8 and what that leaves out, for rows.h: see HeadScreen.

namespace voxtorch::kernels {
namespace {

VOXTORCH_INLINE void store_codes(int8_t* to, const Block& whole) {
  VOXTORCH_EACH_PART {
#if defined(__AVX512F__)
    const __m128i codes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(reinterpret_cast<__m512>(whole.part[k])));
    std::memcpy(to + k * kLanes, &codes, sizeof(codes));
#else
    const Bytes codes = __builtin_convertvector(__builtin_convertvector(whole.part[k], Ints), Bytes);
    std::memcpy(to + k * kLanes, &codes, sizeof(codes));
#endif
  }
}

template <typename T>
void round(const StepRounding& args) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer
  constexpr float kInfinite = __builtin_inff();
  const T* weight = static_cast<const T*>(args.weight);
  Words most[kParts] = {};
  each_block(
      args.in, [&](int64_t at, int64_t count) __attribute__((always_inline)) {
        const Block w = load(weight + at, count);
        VOXTORCH_EACH_PART {
          const Words magnitude = bits_of(w.part[k]) & 0x7fffffffu;
          most[k] = magnitude > most[k] ? magnitude : most[k];
        }
      });
  uint32_t bits = 0;
  VOXTORCH_EACH_PART {
    for (int lane = 0; lane < kLanes; ++lane) bits = most[k][lane] > bits ? most[k][lane] : bits;
  }
  float largest;
  std::memcpy(&largest, &bits, sizeof(largest));
  const bool finite = bits < 0x7f800000u;
  if (!finite || largest < 1e-30f) {
    // Nothing is known of it, or its codes could not be distinguished from zero: the length of so many of the largest.
    std::memset(args.codes, 0, args.in);
    *args.scale = 0;
    *args.error = *args.length = finite ? largest * static_cast<float>(args.in) : kInfinite;
    return;
  }
  const float scale = largest / 127, inverse = 127 / largest;
  Block squares = {}, left = {};  // in units of a code
  each_block(
      args.in, [&](int64_t at, int64_t count) __attribute__((always_inline)) {
        const Block w = load(weight + at, count) * inverse;
        Block whole;
        VOXTORCH_EACH_PART whole.part[k] = (w.part[k] + kRound) - kRound;
        const Block error = w - whole;
        squares = squares + w * w;
        left = left + error * error;
        if (count == kBlock) {
          store_codes(args.codes + at, whole);
        } else {
          int8_t codes[kBlock];
          store_codes(codes, whole);
          std::memcpy(args.codes + at, codes, count);
        }
      });
  // A hundredth of a percent, and as much of a code for each weight: more than rounding takes here.
  const float spread = 1e-4f * __builtin_sqrtf(static_cast<float>(args.in));
  *args.scale = scale;
  *args.error = scale * (__builtin_sqrtf(sum(left)) * 1.0001f + spread);
  *args.length = scale * (__builtin_sqrtf(sum(squares)) * 1.0001f + spread);
}

VOXTORCH_INLINE Block radius(const StepBounds& args, int64_t at, int64_t count) {
  return load(args.errors + at, count) * args.error + load(args.lengths + at, count) * args.length;
}

float floor(const StepBounds& args) {
  Block best = all(-__builtin_inff());
  each_block(
      args.count, [&](int64_t at, int64_t count) __attribute__((always_inline)) {
        Block lower = load(args.products + at, count) - radius(args, at, count);
        if (count < kBlock) {
          float lanes[kBlock];
          store_block(lanes, lower);
          for (int64_t i = count; i < kBlock; ++i) lanes[i] = -__builtin_inff();
          lower = load_block(lanes);
        }
        VOXTORCH_EACH_PART best.part[k] = lower.part[k] > best.part[k] ? lower.part[k] : best.part[k];
      });
  float lanes[kBlock], result = -__builtin_inff();
  store_block(lanes, best);
  for (const float lane : lanes) result = lane > result ? lane : result;
  return result;
}

int64_t reaching(const StepBounds& args, float floor, int64_t from) {
  for (int64_t at = from; at < args.count; at += kBlock) {
    const int64_t count = args.count - at < kBlock ? args.count - at : kBlock;
    const Block upper = load(args.products + at, count) + radius(args, at, count);
    Words below = ~Words{};
    VOXTORCH_EACH_PART below &= reinterpret_cast<Words>(upper.part[k] < floor);
    bool none = count == kBlock;
    for (int lane = 0; lane < kLanes; ++lane) none = none && below[lane] != 0;
    if (none) continue;
    float lanes[kBlock];
    store_block(lanes, upper);
    for (int64_t i = 0; i < count; ++i) {
      if (!(lanes[i] < floor)) return at + i;
    }
  }
  return args.count;
}

}  // namespace
}  // namespace voxtorch::kernels
