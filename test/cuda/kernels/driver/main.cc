// driver [kernel] [quick]: runs the emulated kernels, all dtypes or with `quick` float32 alone, and compares them with
// plain loops. EMULATION_SEED draws other inputs and another order of threads.
#include "checks.h"

int main(int count, char** values) {
  const std::string kernel = count > 1 ? values[1] : "all";
  const bool quick = count > 2;
  if (const char* seed = std::getenv("EMULATION_SEED"))
    driver::random_bits.seed(static_cast<unsigned>(std::atoi(seed)));
  const auto wanted = [&](const char* name) { return kernel == "all" || kernel == name; };
  if (wanted("adamw_8bit")) driver::adamw_8bit(quick);
  if (wanted("anti_aliased_snake")) driver::anti_aliased_snake(quick);
  if (wanted("rms_norm_residual")) driver::rms_norm_residual(quick);
  if (wanted("transducer_loss")) driver::transducer_loss(quick);
  if (wanted("window_cross_attention")) driver::window_cross_attention(quick);
  if (wanted("few_rows_joined")) driver::few_rows_joined(quick);
  if (wanted("few_rows_tiles")) driver::few_rows_tiles(quick);
  if (wanted("rotary_append")) driver::rotary_append(quick);
  if (wanted("decode_attention")) driver::decode_attention(quick);
  if (wanted("gated_position_attention")) driver::gated_position_attention(quick);
  std::printf("%d passed, %d failed\n", driver::passed, driver::failed);
  return driver::failed > 0 || driver::passed == 0;
}
