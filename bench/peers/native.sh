#!/usr/bin/env bash
# bench/peers/native.sh FOLDER: llama.cpp's llama-bench and llama-server for this processor, from the sources in PyPI's llama-cpp-python, in about six
# minutes on two cores. Needs git, cmake, a C++ compiler and pip. Prints the path for VOXTORCH_BENCH_LLAMA.
set -euo pipefail
mkdir -p "$1"
cd "$1"
if [ ! -d sources ]; then
  python3 -m pip download -q --no-deps --no-binary :all: --no-build-isolation llama-cpp-python==0.3.36 >&2 ||
    { echo 'pip needs scikit-build-core to look at the sources: python3 -m pip install scikit-build-core' >&2; exit 1; }
  mkdir sources
  tar xzf llama_cpp_python-0.3.36.tar.gz -C sources --strip-components 1
fi
cmake -S sources/vendor/llama.cpp -B build -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF >&2
cmake --build build --target llama-bench llama-server --parallel "$(nproc)" >&2
echo "$PWD/build/bin/llama-bench"
