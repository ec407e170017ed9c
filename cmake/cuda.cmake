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
# There is one CUDA runtime, libtorch's (below); a second, static one would have its own state.
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
  # The CUDA runtime that libtorch itself names: core calls it, so it stands among what core needs, and no symbol is found only because another
  # library happens to bring it. Before core is loaded libtorch has it mapped, from wherever its own run path leads.
  find_program(VOXTORCH_READELF NAMES readelf llvm-readelf REQUIRED)
  execute_process(COMMAND ${VOXTORCH_READELF} -d "${VOXTORCH_LIBTORCH}/lib/libc10_cuda.so" OUTPUT_VARIABLE needed COMMAND_ERROR_IS_FATAL ANY)
  if(NOT needed MATCHES "\\[(libcudart[^]]*)\\]")
    message(FATAL_ERROR "${VOXTORCH_LIBTORCH}/lib/libc10_cuda.so names no libcudart among what it needs: is this a CUDA build of libtorch?")
  endif()
  set(cudart_name ${CMAKE_MATCH_1})
  # Beside libtorch, where pip installs it (cu13, before CUDA 13 cuda_runtime), and in the toolkit.
  get_filename_component(toolkit "${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES}" DIRECTORY)
  find_file(VOXTORCH_CUDART ${cudart_name} REQUIRED NO_DEFAULT_PATH PATHS ${VOXTORCH_LIBTORCH}/lib ${VOXTORCH_LIBTORCH}/../nvidia/cu13/lib
    ${VOXTORCH_LIBTORCH}/../nvidia/cuda_runtime/lib ${toolkit}/lib64 ${toolkit}/lib)

  # Nothing else in core refers to them by name, so without --no-as-needed the linker would drop them, and their operators with them.
  target_link_libraries(voxtorch_core PRIVATE -Wl,--no-as-needed
    ${VOXTORCH_LIBTORCH}/lib/libtorch_cuda.so ${VOXTORCH_LIBTORCH}/lib/libc10_cuda.so ${VOXTORCH_CUDART})
  # The target is older than the settings above, and takes the C++ standard, which not every nvcc is known to have, for CUDA's.
  set_target_properties(voxtorch_core PROPERTIES LINKER_LANGUAGE CXX CUDA_STANDARD 17 CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}"
    CUDA_RUNTIME_LIBRARY None)
endif()
