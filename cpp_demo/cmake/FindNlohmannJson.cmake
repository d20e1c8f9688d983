# Finds nlohmann-json as a CMake package, and else in the Python package nlohmann-json, and makes
# the target nlohmann_json::nlohmann_json.

find_package(nlohmann_json QUIET CONFIG)
if(TARGET nlohmann_json::nlohmann_json)
  set(NlohmannJson_INCLUDE_DIR "${nlohmann_json_DIR}")
else()
  execute_process(
    COMMAND "${Python3_EXECUTABLE}" -c
      "import importlib.util as util; print(*util.find_spec('nlohmann_json').submodule_search_locations)"
    OUTPUT_VARIABLE _package OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  find_path(NlohmannJson_INCLUDE_DIR nlohmann/json.hpp HINTS "${_package}/include")
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(NlohmannJson
  REQUIRED_VARS NlohmannJson_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "Install it with: ${Python3_EXECUTABLE} -m pip install nlohmann-json")

if(NlohmannJson_FOUND AND NOT TARGET nlohmann_json::nlohmann_json)
  add_library(nlohmann_json::nlohmann_json INTERFACE IMPORTED)
  target_include_directories(nlohmann_json::nlohmann_json SYSTEM INTERFACE
    "${NlohmannJson_INCLUDE_DIR}")
endif()
