#!/usr/bin/env bash
# test/tools/emulated/run.sh: whether the AVX-512 builds of kernels give the bits of the AVX2 builds, on a processor with AVX2, by
# emulation. Needs g++ and SIMDe (apt-get install libsimde-dev). Two minutes.
set -euo pipefail
cd "$(dirname "$0")/../../.."
here=test/tools/emulated
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
flags=(-std=c++20 -O2 -Wno-psabi -ffp-contract=off -fno-math-errno -I native)

build() { # build SET LANES "FLAGS" UNIT…: prints the digests
  local set=$1 lanes=$2 own=$3
  shift 3
  local objects=()
  for unit in "$@"; do
    # shellcheck disable=SC2086
    g++ "${flags[@]}" $own -DVOXTORCH_LANES="$lanes" -DVOXTORCH_INSTRUCTION_SET="$set" -c "native/core/kernels/$unit/rows.cc" -o "$folder/$set-$unit.o"
    objects+=("$folder/$set-$unit.o")
  done
  local plain=()
  [ $# -gt 1 ] || plain=(-DPLAIN)
  g++ "${flags[@]}" "${plain[@]}" -DSET="$set" "$here/kernels.cc" "${objects[@]}" -o "$folder/$set"
  "$folder/$set" >"$folder/$set.txt"
}

avx2="-mavx2 -mfma -mf16c"
emulated="$avx2 -include $here/instructions.h"
build avx2 8 "$avx2" many_rows few_rows float_attention float_product
build avx512 16 "$emulated" many_rows few_rows float_attention float_product
build avx512_vnni 16 "$emulated -DEMULATED_VNNI" many_rows
build default 4 "-march=x86-64-v2" many_rows
cat "$folder/avx2.txt"
for set in avx512 avx512_vnni default; do
  if diff <(grep -f <(cut -d' ' -f1 "$folder/$set.txt" | sort -u) "$folder/avx2.txt") "$folder/$set.txt"; then
    echo "$set: the same"
  else
    echo "$set: differs"
    exit 1
  fi
done
