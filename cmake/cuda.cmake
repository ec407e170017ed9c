# The .cu files, in the CUDA build (VOXTORCH_CUDA) and, to check only that they compile, in the CPU build (VOXTORCH_CHECK_CUDA_COMPILE).
# Reads core_cuda_sources (the *.cu, *_cuda.cc and cuda.cc of native/core), VOXTORCH_LIBTORCH and the target voxtorch_core. Nothing of Caffe2's
# CMake files is used: they ask for the whole CUDA toolkit, of which the compiler and the runtime headers are enough.
set(cuda_kernels ${core_cuda_sources})
list(FILTER cuda_kernels INCLUDE REGEX "\\.cu$")
set(cuda_launchers ${core_cuda_sources})
list(FILTER cuda_launchers INCLUDE REGEX "[/_]cuda\\.cc$")

if(VOXTORCH_CUDA)
  foreach(library torch_cuda c10_cuda)
    if(NOT EXISTS "${VOXTORCH_LIBTORCH}/lib/lib${library}.so")
      message(FATAL_ERROR "VOXTORCH_CUDA is on, but the libtorch in ${VOXTORCH_LIBTORCH} is a CPU build: it has no "
        "lib/lib${library}.so. Point VOXTORCH_LIBTORCH to a CUDA build, or leave VOXTORCH_CUDA off.")
    endif()
  endforeach()
endif()

# A100, H100 and H200 in machine code, newer ones through PTX.
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 90-virtual)
endif()
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  if(VOXTORCH_CUDA)
    message(FATAL_ERROR "VOXTORCH_CUDA is on, but there is no nvcc: put it on PATH, or set CUDACXX or CMAKE_CUDA_COMPILER to it.")
  endif()
  message(STATUS "No nvcc: the .cu files are not compiled")
  return()
endif()
# libtorch_cuda brings the one CUDA runtime; a second, static one would have its own state.
set(CMAKE_CUDA_RUNTIME_LIBRARY None)
enable_language(CUDA)

# A target of its own: voxtorch_flags speaks to g++, and nvcc refuses its options.
add_library(voxtorch_cuda_kernels OBJECT ${cuda_kernels})
target_include_directories(voxtorch_cuda_kernels PRIVATE ${CMAKE_SOURCE_DIR}/native)
set_target_properties(voxtorch_cuda_kernels PROPERTIES CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON)
target_compile_options(voxtorch_cuda_kernels PRIVATE -Xcompiler=-Wall)

if(VOXTORCH_CUDA)
  target_sources(voxtorch_core PRIVATE ${cuda_launchers} $<TARGET_OBJECTS:voxtorch_cuda_kernels>)
  target_include_directories(voxtorch_core SYSTEM PRIVATE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
  # NCCL's header, and those of the libraries that ATen's name, lie beside a libtorch that pip installed.
  set_source_files_properties(${CMAKE_SOURCE_DIR}/native/core/distributed/nccl_cuda.cc PROPERTIES INCLUDE_DIRECTORIES
    "${VOXTORCH_LIBTORCH}/../nvidia/nccl/include;${VOXTORCH_LIBTORCH}/../nvidia/cu13/include")
  # Nothing else in core refers to them by name, so without --no-as-needed the linker would drop them, and their operators with them.
  target_link_libraries(voxtorch_core PRIVATE -Wl,--no-as-needed
    ${VOXTORCH_LIBTORCH}/lib/libtorch_cuda.so ${VOXTORCH_LIBTORCH}/lib/libc10_cuda.so)
  set_target_properties(voxtorch_core PROPERTIES LINKER_LANGUAGE CXX)
endif()
