# Finds LibTorch in CMAKE_PREFIX_PATH (or Torch_DIR), and else in the Python package torch, and
# makes the target LibTorch::LibTorch.
#
# LibTorch's own TorchConfig.cmake asks for a CUDA toolkit whenever its libraries were built with
# CUDA, as those of the Python package are. Running an artifact needs the libraries only, so they
# are linked here directly.

set(_search ${Torch_DIR} ${CMAKE_PREFIX_PATH})
file(TO_CMAKE_PATH "$ENV{CMAKE_PREFIX_PATH}" _environment)
list(APPEND _search ${_environment})

find_path(LibTorch_CONFIG_DIR TorchConfig.cmake
  HINTS ${_search} PATH_SUFFIXES share/cmake/Torch Torch NO_DEFAULT_PATH)
if(NOT LibTorch_CONFIG_DIR)
  execute_process(
    COMMAND "${Python3_EXECUTABLE}" -c "import torch; print(torch.utils.cmake_prefix_path)"
    OUTPUT_VARIABLE _prefix OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  find_path(LibTorch_CONFIG_DIR TorchConfig.cmake
    HINTS "${_prefix}" PATH_SUFFIXES Torch NO_DEFAULT_PATH)
endif()

# <root>/share/cmake/Torch -> <root>
get_filename_component(LibTorch_ROOT "${LibTorch_CONFIG_DIR}/../../.." ABSOLUTE)
find_path(LibTorch_INCLUDE_DIR torch/script.h
  HINTS "${LibTorch_ROOT}/include" "${LibTorch_ROOT}/include/torch/csrc/api/include" NO_DEFAULT_PATH)
foreach(_library torch torch_cpu c10)
  find_library(LibTorch_${_library} ${_library} HINTS "${LibTorch_ROOT}/lib" NO_DEFAULT_PATH)
endforeach()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(LibTorch
  REQUIRED_VARS LibTorch_torch LibTorch_torch_cpu LibTorch_c10 LibTorch_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "Install it with: ${Python3_EXECUTABLE} -m pip install torch, or set CMAKE_PREFIX_PATH to a LibTorch.")

if(LibTorch_FOUND AND NOT TARGET LibTorch::LibTorch)
  add_library(LibTorch::LibTorch INTERFACE IMPORTED)
  target_compile_features(LibTorch::LibTorch INTERFACE cxx_std_20)
  target_include_directories(LibTorch::LibTorch SYSTEM INTERFACE
    "${LibTorch_ROOT}/include" "${LibTorch_ROOT}/include/torch/csrc/api/include")
  # libtorch.so holds no symbols of LibTorch's; linked all the same, it loads the CUDA libraries
  # where there are any. What those need in turn they find themselves when they are loaded. That of
  # LibTorch 2.11 holds parts of the standard library, std::filesystem::remove_all among them, which
  # crash when they are called, so the compiler's own standard library goes first.
  if(UNIX AND NOT APPLE)
    set(_standard)
    if("stdc++" IN_LIST CMAKE_CXX_IMPLICIT_LINK_LIBRARIES)
      set(_standard -lstdc++)
    endif()
    set(_torch -Wl,--allow-shlib-undefined
      -Wl,--no-as-needed ${_standard} "${LibTorch_torch}" -Wl,--as-needed)
  else()
    set(_torch "${LibTorch_torch}")
  endif()
  target_link_libraries(LibTorch::LibTorch INTERFACE
    ${_torch} "${LibTorch_torch_cpu}" "${LibTorch_c10}")
endif()
