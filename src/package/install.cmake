# Installation: libraries, the header, a CMake package and a pkg-config file. Included once all libraries are defined.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(GS_PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/gradsieve)
set(GS_LIBRARIES gradsieve)
foreach(part mpi cuda nccl)
    if(TARGET gradsieve_${part})
        list(APPEND GS_LIBRARIES gradsieve_${part})
        set_target_properties(gradsieve_${part} PROPERTIES EXPORT_NAME ${part})
    endif()
endforeach()

# Users include <gradsieve.h>: from the sources while building, from the prefix once installed. Installed libraries find
# each other in their own folder, and CUDA, NCCL and MPI where they were linked.
set_target_properties(gradsieve PROPERTIES INTERFACE_INCLUDE_DIRECTORIES
    "$<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>;$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
set_target_properties(${GS_LIBRARIES} PROPERTIES
    VERSION ${PROJECT_VERSION}
    SOVERSION ${PROJECT_VERSION_MAJOR}
    INSTALL_RPATH $ORIGIN
    INSTALL_RPATH_USE_LINK_PATH ON)

install(TARGETS ${GS_LIBRARIES} EXPORT gradsieve-targets
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES ${PROJECT_SOURCE_DIR}/include/gradsieve.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT gradsieve-targets NAMESPACE gradsieve:: DESTINATION ${GS_PACKAGE_DIR})

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/gradsieve-config.cmake.in
    ${PROJECT_BINARY_DIR}/package/gradsieve-config.cmake INSTALL_DESTINATION ${GS_PACKAGE_DIR})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/package/gradsieve-config-version.cmake
    COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/package/gradsieve-config.cmake
    ${PROJECT_BINARY_DIR}/package/gradsieve-config-version.cmake DESTINATION ${GS_PACKAGE_DIR})

# The prefix is found from where the file lies, so that an installed tree can be moved.
file(RELATIVE_PATH GS_PREFIX_FROM_PKGCONFIG /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
configure_file(${CMAKE_CURRENT_LIST_DIR}/gradsieve.pc.in ${PROJECT_BINARY_DIR}/package/gradsieve.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/package/gradsieve.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
