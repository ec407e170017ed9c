// Forward derivatives of operators for which libtorch has none: PyTorch registers these formulas from Python.
#pragma once

namespace voxtorch {

// Registers the formulas, once in the process.
void add_forward_formulas();

}  // namespace voxtorch
