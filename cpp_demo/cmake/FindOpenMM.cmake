# Finds OpenMM in CMAKE_PREFIX_PATH (or OpenMM_DIR), and else in the Python package openmm, whose
# wheel ships headers and libraries, and makes the target OpenMM::OpenMM.
#
# OpenMM_PLUGIN_DIR is the folder of its platforms' libraries; OpenMM_VERSION is left unset, because
# the headers do not tell it. The header asked for came with OpenMM 8.1.

set(_search ${OpenMM_DIR} ${CMAKE_PREFIX_PATH})
file(TO_CMAKE_PATH "$ENV{CMAKE_PREFIX_PATH}" _environment)
list(APPEND _search ${_environment})

find_library(OpenMM_LIBRARY OpenMM HINTS ${_search} PATH_SUFFIXES lib NO_DEFAULT_PATH)
if(NOT OpenMM_LIBRARY)
  execute_process(
    COMMAND "${Python3_EXECUTABLE}" -c
      "from openmm.version import openmm_library_path; print(openmm_library_path)"
    OUTPUT_VARIABLE _folder OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(_folder)
    find_library(OpenMM_LIBRARY OpenMM HINTS "${_folder}" NO_DEFAULT_PATH)
  endif()
endif()

# <root>/lib/libOpenMM.so -> <root>
get_filename_component(_lib "${OpenMM_LIBRARY}" DIRECTORY)
get_filename_component(_root "${_lib}" DIRECTORY)
find_path(OpenMM_INCLUDE_DIR openmm/internal/CustomCPPForceImpl.h
  HINTS "${_root}/include" NO_DEFAULT_PATH)
set(OpenMM_PLUGIN_DIR "${_lib}/plugins")

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(OpenMM
  REQUIRED_VARS OpenMM_LIBRARY OpenMM_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "Install it with: ${Python3_EXECUTABLE} -m pip install openmm, or set CMAKE_PREFIX_PATH to an OpenMM.")

if(OpenMM_FOUND AND NOT TARGET OpenMM::OpenMM)
  add_library(OpenMM::OpenMM INTERFACE IMPORTED)
  target_include_directories(OpenMM::OpenMM SYSTEM INTERFACE "${OpenMM_INCLUDE_DIR}")
  target_link_libraries(OpenMM::OpenMM INTERFACE "${OpenMM_LIBRARY}")
endif()
