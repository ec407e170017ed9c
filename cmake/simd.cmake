# Kernels in several builds, one file each, chosen at run time: baseline.cc, avx2.cc, avx512.cc, avx512_vnni.cc
# (or *_avx2.cc, where a folder has several).
# They leave fused multiply-adds alone, so that every build gives the same bits. They take no precompiled header: an inline function of
# ATen that was compiled with AVX-512 could be the copy that the linker keeps for everyone.
function(voxtorch_simd_sources target)
  get_target_property(sources ${target} SOURCES)
  set(common -O3 -fno-math-errno -ffp-contract=off)
  foreach(source IN LISTS sources)
    if(source MATCHES "[/_]baseline\\.cc$")
      set(flags ${common})
    elseif(source MATCHES "[/_]avx2\\.cc$")
      set(flags ${common} -mavx2 -mf16c)
    elseif(source MATCHES "[/_]avx512(_vnni)?\\.cc$")
      # GCC 12 takes the undefined lanes of its own intrinsics for a mistake.
      set(flags ${common} -mavx512f -mavx512bw -mavx512dq -mavx512vl -Wno-uninitialized -Wno-maybe-uninitialized)
      if(source MATCHES "_vnni")
        list(APPEND flags -mavx512vnni)
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
