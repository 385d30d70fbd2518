# cpack: the installation as a .deb and a .tar.gz. Included behind install.cmake.
set(CPACK_GENERATOR DEB TGZ)
set(CPACK_PACKAGE_CONTACT "gradsieve developers")
set(CPACK_PACKAGE_VENDOR gradsieve)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION libdevel)

# Dependencies are the packages of what was linked. A CUDA or an NCCL that no package has brought is in none of them: it is found where
# it was at build time.
find_program(GS_SHLIBDEPS dpkg-shlibdeps)
mark_as_advanced(GS_SHLIBDEPS)
if(GS_SHLIBDEPS)
    set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
else()
    set(CPACK_DEBIAN_PACKAGE_DEPENDS libc6)
endif()
include(CPack)
