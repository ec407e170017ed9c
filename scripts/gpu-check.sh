#!/usr/bin/env bash
# Builds and checks the CUDA variant on a rented GPU machine that has Python with a CUDA torch, nvcc and a C++20 compiler,
# but neither Node nor network.
#
#   here:   scripts/gpu-check.sh pack          fills .gpu/pack (git ignores it; below 64 MiB); carry that folder over
#   there:  cd .gpu/pack
#           scripts/gpu-check.sh build         configure and compile; going on where it was cut off
#           scripts/gpu-check.sh parity        CUDA against CPU, in Python and in Node
#           scripts/gpu-check.sh sanitize      compute-sanitizer over our kernels
#           scripts/gpu-check.sh tokens        a language model's tokens: from a graph those of its launches and of the CPU,
#                                              and how many a second, with and without cuDNN's attention
#           scripts/gpu-check.sh pictures      an InternVL's logits, gradients and answers against the CPU, and how long each part takes
#           scripts/gpu-check.sh encoders        LanguageBind's embeddings and a LoRA step against the CPU, and how long each encoder takes
#           scripts/gpu-check.sh voices        USDM's units, speech and banned tokens against the CPU, and how long its networks take
#           scripts/gpu-check.sh memory        what two ranks hold on each GPU
#           scripts/gpu-check.sh bench         our kernels against plain operators
#
# Each phase ends within 9 minutes, can be run again, and adds to one report: gpu-check.txt in $OUT, or here without it.
# The exit status is that of the worst step.
#
#   PYTHON                        the Python that has torch (python3)
#   VOXTORCH_GPU_CHECK_DEVICE     cpu tries the phases where there is no GPU (cuda)
#   VOXTORCH_GPU_CHECK_BUILD      the build folder (build-gpu-cuda beside the pack, or in the checkout)
#   VOXTORCH_GPU_CHECK_JOBS       compilers at a time (the cores)
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
phase=${1:-}
device=${VOXTORCH_GPU_CHECK_DEVICE:-cuda}
python=${PYTHON:-python3}
[ -f "$root/packed.txt" ] && work=$(dirname "$root") || work=$root
build=${VOXTORCH_GPU_CHECK_BUILD:-$work/build-gpu-$device}
log=$build/gpu-check.txt
failed=0

say() { printf '%s\n' "$*" | tee -a "$log"; }

finish() {
  say "== $phase: $([ "$failed" = 0 ] && echo passed || echo FAILED) after $SECONDS s"
  cp "$log" "${OUT:-.}/gpu-check.txt"
  exit "$failed"
}

# step NAME SECONDS COMMAND...: runs it within the time, its output into the report.
step() {
  local name=$1 limit=$2 began=$SECONDS status
  shift 2
  say "-- $name"
  timeout --kill-after=5 "$limit" "$@" 2>&1 | tee -a "$log"
  status=${PIPESTATUS[0]}
  case $status in
    0) say "-- $name: ok ($((SECONDS - began)) s)" ;;
    124 | 137) say "-- $name: STOPPED after $limit s" ;;
    *) say "-- $name: FAILED with $status ($((SECONDS - began)) s)" ;;
  esac
  [ "$status" = 0 ] || failed=1
  return "$status"
}

torch_home() { "$python" -c 'import os, torch; print(os.path.dirname(torch.__file__))'; }

machine() {
  say "commit: $(cat "$root/packed.txt" 2>/dev/null || git -C "$root" describe --always --dirty 2>/dev/null || echo unknown)"
  say "torch: $("$python" -c 'import torch; print(torch.__version__, "CUDA", torch.version.cuda, torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")' 2>&1 | tail -1)"
  say "nvcc: $(nvcc --version 2>/dev/null | tail -2 | head -1 || true)"
  say "driver: $(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo none)"
  say "cores: $(nproc), $(c++ --version | head -1)"
}

build_phase() {
  machine
  local cuda=ON cmake=cmake generator=(-G 'Unix Makefiles')
  [ "$device" = cpu ] && cuda=OFF
  command -v cmake >/dev/null || cmake="$python -m cmake"
  $cmake --version >/dev/null 2>&1 || { say "there is no cmake, nor Python's package cmake"; failed=1; return; }
  command -v ninja >/dev/null && generator=(-G Ninja)
  # shellcheck disable=SC2086
  step configure 60 $cmake -S "$root" -B "$build" "${generator[@]}" -Wno-dev --log-level=NOTICE -DVOXTORCH_CUDA=$cuda \
    "-DVOXTORCH_LIBTORCH=$(torch_home)" "-DVOXTORCH_NODE_API_INCLUDE=$root/node_modules/node-api-headers/include" \
    "-DVOXTORCH_NODE_ADDON_API_INCLUDE=$root/node_modules/node-addon-api" || return
  # shellcheck disable=SC2086
  step compile 440 $cmake --build "$build" --parallel "${VOXTORCH_GPU_CHECK_JOBS:-$(nproc)}" || return
  step 'load in Python' 60 "$python" "$root/bench/gpu/kernels.py" load "$build" "$device"
  step 'load in Node' 60 bash -c 'in_node load'
}

# Runs the checks in Node, which is carried compressed and unpacked by Python, once.
in_node() {
  local node=$build/node packed
  packed=$(ls "$root"/node-*.xz 2>/dev/null | head -1)
  if [ -z "$packed" ]; then
    node=node
  elif [ ! -x "$node" ]; then
    "$python" -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), open(sys.argv[2], "wb"))' "$packed" "$node.part"
    chmod +x "$node.part" && mv "$node.part" "$node"
  fi
  # TF32 would differ from the CPU by 1e-3.
  NVIDIA_TF32_OVERRIDE=0 LIBTORCH=$(torch_home) VOXTORCH_ADDON=$build VOXTORCH_GPU_CHECK_DEVICE=$device LD_PRELOAD=${preload:-} \
    "$node" "$root/bench/gpu/${script:-parity}.mjs" "$@"
}
export -f in_node torch_home
export root build device python

parity_phase() {
  step 'kernels in Python' 200 "$python" "$root/bench/gpu/kernels.py" parity "$build" "$device"
  step 'operators, training and errors in Node' 300 bash -c 'in_node parity'
}

sanitize_phase() {
  local tool sanitizer
  sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
  if [ "$device" = cpu ] || [ -z "$sanitizer" ]; then
    say 'no compute-sanitizer here: running the same calls without it'
    step plain 120 "$python" "$root/bench/gpu/kernels.py" small "$build" "$device"
    return
  fi
  # Without PyTorch's caching, so that every tensor is an allocation of its own with ends that memcheck sees.
  export PYTORCH_NO_CUDA_MEMORY_CACHING=1
  for tool in memcheck racecheck synccheck initcheck; do
    step "$tool" 125 "$sanitizer" --tool "$tool" --kernel-name kns=voxtorch --error-exitcode 9 --target-processes application-only \
      "$python" "$root/bench/gpu/kernels.py" small "$build" "$device"
  done
}

tokens_phase() {
  step 'tokens by graph, by launches and on the CPU' 140 bash -c 'script=tokens in_node same'
  step 'speed without cuDNN attention' 190 bash -c 'script=tokens in_node speed'
  # ATen's switch is turned off by the library, which is told from outside to leave it.
  step 'a library that keeps it on' 10 c++ -x c -shared -fPIC -o "$build/cudnn-on.so" "$root/bench/gpu/cudnn-on.c" || return
  step 'speed with cuDNN attention' 190 bash -c 'script=tokens preload=$build/cudnn-on.so in_node speed cudnn'
}

pictures_phase() {
  machine
  step 'InternVL against the CPU' 140 bash -c 'script=internvl in_node same'
  step 'how long its parts take' 240 bash -c 'script=internvl in_node speed'
}

encoders_phase() {
  machine
  step 'LanguageBind against the CPU' 140 bash -c 'script=languagebind in_node same'
  step 'how long its encoders take' 240 bash -c 'script=languagebind in_node speed'
}

voices_phase() {
  machine
  step "USDM's networks against the CPU" 200 bash -c 'script=usdm in_node same'
  step 'how long they take' 240 bash -c 'script=usdm in_node speed'
}

memory_phase() {
  machine
  step 'two ranks in Node' 240 bash -c 'script=memory in_node'
}

bench_phase() {
  machine
  step bench 480 "$python" "$root/bench/gpu/kernels.py" bench "$build" "$device"
}

case $phase in
  pack) exec node "$root/bench/gpu/pack.mjs" ;;
  build | parity | sanitize | tokens | pictures | encoders | voices | memory | bench) ;;
  *)
    sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit 2
    ;;
esac
mkdir -p "$build"
say "== $phase on $device, $(date -u '+%Y-%m-%d %H:%M:%S') UTC"
trap 'failed=1; finish' INT TERM
"${phase}_phase"
finish
