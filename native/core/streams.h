// One pooled CUDA stream per device, shared by the executor and the JavaScript threads, so that work on both is ordered
// and none of it is on the legacy stream, which would serialise with everything else in the process.
#pragma once

namespace voxtorch {

// Says that CUDA is about to be used; cheap when said again.
void expect_cuda();
// Puts the calling thread on the shared streams, once CUDA is expected.
void use_shared_streams();

}  // namespace voxtorch
