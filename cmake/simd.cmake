# Kernels in several builds, one file each, chosen at run time: baseline.cc, avx2.cc, avx512.cc
# (or *_avx2.cc, where a folder has several).
# They leave fused multiply-adds alone, so that every build gives the same bits. They take no precompiled header: an inline function of
# ATen that was compiled with AVX-512 could be the copy that the linker keeps for everyone.
include(CheckCXXCompilerFlag)
function(voxtorch_simd_sources target)
  get_target_property(sources ${target} SOURCES)
  set(common -O3 -fno-math-errno -ffp-contract=off)
  foreach(source IN LISTS sources)
    if(source MATCHES "[/_]baseline\\.cc$")
      set(flags ${common})
    elseif(source MATCHES "[/_]avx2\\.cc$")
      set(flags ${common} -mavx2)
    elseif(source MATCHES "[/_]avx512\\.cc$")
      # GCC 12 takes the undefined lanes of its own intrinsics for a mistake.
      set(flags ${common} -mavx512f -mavx512bw -mavx512dq -mavx512vl -Wno-uninitialized -Wno-maybe-uninitialized)
    elseif(source MATCHES "/amx\\.cc$")
      set(flags ${common} -mavx512f -mavx512bw -mavx512dq -mavx512vl -Wno-uninitialized -Wno-maybe-uninitialized)
      check_cxx_compiler_flag("-mamx-tile -mamx-bf16 -mamx-int8" VOXTORCH_COMPILES_AMX)
      if(VOXTORCH_COMPILES_AMX)
        list(APPEND flags -mamx-tile -mamx-bf16 -mamx-int8)
        set_source_files_properties(native/core/kernels/tile_linear/tile_linear.cc PROPERTIES COMPILE_DEFINITIONS VOXTORCH_AMX)
      endif()
    else()
      continue()
    endif()
    if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
      set(flags ${common})  # elsewhere the AVX files are empty
    endif()
    set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${flags}" SKIP_PRECOMPILE_HEADERS ON)
  endforeach()
endfunction()
