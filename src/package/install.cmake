# Installation: libraries, the header, programs, a CMake package and pkg-config files. Included once all targets are defined.
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

set(GS_PROGRAMS "")
foreach(program gs_all_reduce_perf gs_stage_perf gs_plan gs_hosts gs_train gs_papers gs_kernels)
    if(TARGET ${program})
        list(APPEND GS_PROGRAMS ${program})
        file(RELATIVE_PATH libraries /prefix/${CMAKE_INSTALL_BINDIR} /prefix/${CMAKE_INSTALL_LIBDIR})
        set_target_properties(${program} PROPERTIES
            INSTALL_RPATH $ORIGIN/${libraries}
            INSTALL_RPATH_USE_LINK_PATH ON)
    endif()
endforeach()
install(TARGETS ${GS_PROGRAMS} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})

install(TARGETS ${GS_LIBRARIES} EXPORT gradsieve-targets
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
# For LD_PRELOAD, and for gs_train --device cuda: nobody links them.
foreach(module gradsieve_preload gs_train_cuda)
    if(TARGET ${module})
        set_target_properties(${module} PROPERTIES INSTALL_RPATH $ORIGIN INSTALL_RPATH_USE_LINK_PATH ON)
        install(TARGETS ${module} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
    endif()
endforeach()
install(FILES ${PROJECT_SOURCE_DIR}/include/gradsieve.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT gradsieve-targets NAMESPACE gradsieve:: DESTINATION ${GS_PACKAGE_DIR})

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/gradsieve-config.cmake.in
    ${PROJECT_BINARY_DIR}/package/gradsieve-config.cmake INSTALL_DESTINATION ${GS_PACKAGE_DIR})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/package/gradsieve-config-version.cmake
    COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/package/gradsieve-config.cmake
    ${PROJECT_BINARY_DIR}/package/gradsieve-config-version.cmake DESTINATION ${GS_PACKAGE_DIR})

# The prefix is found from where the file lies, so that an installed tree can be moved.
function(gs_install_pkgconfig name template)
    file(RELATIVE_PATH GS_PREFIX_FROM_PKGCONFIG /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
    configure_file(${PROJECT_SOURCE_DIR}/src/package/${template} ${PROJECT_BINARY_DIR}/package/${name}.pc @ONLY)
    install(FILES ${PROJECT_BINARY_DIR}/package/${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endfunction()

# A part's flags are its library's own: gradsieve's libraries by name, the MPI, CUDA or NCCL it was linked with by path.
function(gs_install_part part GS_PART_IS)
    if(NOT TARGET gradsieve_${part})
        return()
    endif()
    get_target_property(dirs gradsieve_${part} INTERFACE_INCLUDE_DIRECTORIES)
    get_target_property(linked gradsieve_${part} INTERFACE_LINK_LIBRARIES)
    set(paths ${linked})
    list(FILTER paths INCLUDE REGEX "^/")
    list(FILTER linked INCLUDE REGEX "^gradsieve")
    list(TRANSFORM linked REPLACE "_" "-")
    list(TRANSFORM linked APPEND " = ${PROJECT_VERSION}")
    list(TRANSFORM dirs PREPEND "-I")
    list(JOIN linked ", " GS_PART_NEEDS)
    list(JOIN paths " " GS_PART_LIBS)
    list(JOIN dirs " " GS_PART_CFLAGS)
    gs_install_pkgconfig(gradsieve-${part} gradsieve-part.pc.in)
endfunction()

gs_install_pkgconfig(gradsieve gradsieve.pc.in)
gs_install_part(mpi "ranks as MPI processes")
gs_install_part(cuda "kernels for NVIDIA GPUs")
gs_install_part(nccl "ranks as NCCL ranks")
