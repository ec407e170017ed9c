// LD_PRELOAD this: voxtorch's call that turns cuDNN's attention off is answered here and does nothing, so that ATen's
// default stays. Only scripts/gpu-check.sh uses it, to measure what that call is worth.
#include <stdlib.h>

// at::Context::setSDPUseCuDNN(bool)
void _ZN2at7Context14setSDPUseCuDNNEb(void *context, int on) {
  (void)context;
  (void)on;
  setenv("VOXTORCH_GPU_CHECK_CUDNN", "on", 1);
}
