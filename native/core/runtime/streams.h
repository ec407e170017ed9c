// One pooled CUDA stream per device, shared by the executor and the JavaScript threads, so that work on both is ordered
// and none of it is on the legacy stream, which would serialize with everything else in the process. It is taken when
// the device is first named: taking it makes a context there, which costs a few hundred megabytes.
#pragma once

#include <c10/core/Device.h>

namespace voxtorch {

// Says that a CUDA device is about to be used; cheap when said again.
void expect_cuda(c10::Device device);
// Puts the calling thread on the shared streams of the devices that are expected.
void use_shared_streams();

}  // namespace voxtorch
