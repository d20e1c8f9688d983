# Finds vesin in VESIN_ROOT (or CMAKE_PREFIX_PATH), and else in the Python package vesin, whose wheel
# ships its header and library, and makes the target Vesin::Vesin. The package is not imported: it
# would load PyTorch.

set(_search ${VESIN_ROOT} $ENV{VESIN_ROOT} ${CMAKE_PREFIX_PATH})
execute_process(
  COMMAND "${Python3_EXECUTABLE}" -c
    "import importlib.util as util; print(*util.find_spec('vesin').submodule_search_locations)"
  OUTPUT_VARIABLE _package OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
find_path(Vesin_INCLUDE_DIR vesin.h HINTS ${_search} "${_package}" PATH_SUFFIXES include)
find_library(Vesin_LIBRARY vesin HINTS ${_search} "${_package}" PATH_SUFFIXES lib lib64)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Vesin
  REQUIRED_VARS Vesin_LIBRARY Vesin_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "Install it with: ${Python3_EXECUTABLE} -m pip install vesin, or set VESIN_ROOT.")

if(Vesin_FOUND AND NOT TARGET Vesin::Vesin)
  add_library(Vesin::Vesin UNKNOWN IMPORTED)
  set_target_properties(Vesin::Vesin PROPERTIES
    IMPORTED_LOCATION "${Vesin_LIBRARY}")
  target_include_directories(Vesin::Vesin SYSTEM INTERFACE "${Vesin_INCLUDE_DIR}")
endif()
