# Kernels that are compiled once for each instruction set and chosen at run time (native/core/kernels/builds.h). In such a unit VOXTORCH_BUILD(name) is
# the name with the instruction set, and VOXTORCH_LANES the number of floats in a register.
#
# A multiply-add is fused only where a kernel says so, so that every build gives the same bits. The units take no precompiled header and include
# nothing of ATen: an inline function that was compiled with AVX-512 could be the copy that the linker keeps for everyone.
include(CheckCXXCompilerFlag)

# Compile the sources for one instruction set, into the target.
function(voxtorch_instruction_set target name lanes flags)
  add_library(voxtorch_${name} OBJECT ${ARGN})
  target_link_libraries(voxtorch_${name} PRIVATE voxtorch_flags)
  target_compile_options(voxtorch_${name} PRIVATE -O3 -fno-math-errno -ffp-contract=off ${flags})
  target_compile_definitions(voxtorch_${name} PRIVATE VOXTORCH_INSTRUCTION_SET=${name} VOXTORCH_LANES=${lanes})
  set_target_properties(voxtorch_${name} PROPERTIES CXX_VISIBILITY_PRESET default)
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:voxtorch_${name}>)
endfunction()

# SSE on x86-64-v2, NEON on arm64.
voxtorch_instruction_set(voxtorch_core default 4 "" ${simd_rows} ${simd_pairs})
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  voxtorch_instruction_set(voxtorch_core avx2 8 "-mavx2;-mf16c;-mfma" ${simd_rows} ${simd_pairs})
  # GCC 12 reports the undefined lanes of its own intrinsics as a mistake.
  set(avx512 -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl -Wno-uninitialized -Wno-maybe-uninitialized)
  voxtorch_instruction_set(voxtorch_core avx512 16 "${avx512}" ${simd_rows})
  voxtorch_instruction_set(voxtorch_core avx512_vnni 16 "${avx512};-mavx512vnni" native/core/kernels/few_rows/rows.cc
                           native/core/kernels/many_rows/rows.cc)
  set(amx -mamx-tile -mamx-bf16 -mamx-int8)
  list(JOIN amx " " amx_flags)
  check_cxx_compiler_flag("${amx_flags}" VOXTORCH_COMPILES_AMX)
  if(VOXTORCH_COMPILES_AMX)
    voxtorch_instruction_set(voxtorch_core amx 16 "${avx512};${amx}" native/core/kernels/tile_linear/amx.cc)
    set_source_files_properties(native/core/kernels/tile_linear/tile_linear.cc PROPERTIES COMPILE_DEFINITIONS VOXTORCH_AMX)
  endif()
endif()
