# find_package(healthgpt) gives healthgpt::healthgpt, the shared library, and healthgpt::static, the static one.
# Movable: everything is found from this file's place.
get_filename_component(_healthgpt_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)

if(NOT TARGET healthgpt::healthgpt)
  add_library(healthgpt::healthgpt SHARED IMPORTED)
  set_target_properties(healthgpt::healthgpt PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${_healthgpt_prefix}/include")
  if(WIN32)
    set_target_properties(healthgpt::healthgpt PROPERTIES
      IMPORTED_LOCATION "${_healthgpt_prefix}/bin/healthgpt.dll"
      IMPORTED_IMPLIB "${_healthgpt_prefix}/lib/healthgpt.dll.lib")
  elseif(APPLE)
    set_target_properties(healthgpt::healthgpt PROPERTIES
      IMPORTED_LOCATION "${_healthgpt_prefix}/lib/libhealthgpt.1.dylib"
      IMPORTED_SONAME "@rpath/libhealthgpt.1.dylib")
  else()
    set_target_properties(healthgpt::healthgpt PROPERTIES
      IMPORTED_LOCATION "${_healthgpt_prefix}/lib/libhealthgpt.so.1"
      IMPORTED_SONAME "libhealthgpt.so.1")
  endif()

  add_library(healthgpt::static STATIC IMPORTED)
  set_target_properties(healthgpt::static PROPERTIES
    INTERFACE_INCLUDE_DIRECTORIES "${_healthgpt_prefix}/include"
    INTERFACE_COMPILE_DEFINITIONS HGPT_STATIC)
  if(WIN32)
    set_target_properties(healthgpt::static PROPERTIES IMPORTED_LOCATION "${_healthgpt_prefix}/lib/healthgpt.lib")
  else()
    set_target_properties(healthgpt::static PROPERTIES IMPORTED_LOCATION "${_healthgpt_prefix}/lib/libhealthgpt.a")
  endif()
  if(NOT WIN32 AND NOT APPLE)
    set_target_properties(healthgpt::static PROPERTIES INTERFACE_LINK_LIBRARIES "gcc_s;pthread;dl;m")
  endif()
endif()

unset(_healthgpt_prefix)
