# gs_train: the training job. Needs OpenBLAS and zlib, and is left out where one of them is missing.
find_package(ZLIB QUIET)
find_package(Threads REQUIRED)
set(openblas_suffixes openblas openblas-pthread openblas-openmp openblas-serial)
find_library(OPENBLAS_LIBRARY openblas PATH_SUFFIXES ${openblas_suffixes})
find_path(OPENBLAS_INCLUDE_DIR openblas_config.h PATH_SUFFIXES ${openblas_suffixes})
mark_as_advanced(OPENBLAS_LIBRARY OPENBLAS_INCLUDE_DIR)

if(NOT ZLIB_FOUND OR NOT OPENBLAS_LIBRARY OR NOT OPENBLAS_INCLUDE_DIR)
    message(STATUS "gs_train: left out; it needs OpenBLAS and zlib (Debian: libopenblas-dev zlib1g-dev)")
    return()
endif()

add_executable(gs_train gs_train.c
    data/images.c data/libsvm.c
    train/dtype.c train/exchange.c train/failure.c train/flags.c train/gnuplot.c train/json.c train/json_values.c train/linear.c train/model.c
    train/network.c train/options.c train/plot.c train/ranks.c train/report.c train/run.c
    train/layers/conv.c train/layers/dense.c train/layers/pool.c train/layers/relu.c)
set_target_properties(gs_train PROPERTIES C_STANDARD 11 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF)
target_compile_definitions(gs_train PRIVATE _GNU_SOURCE)
target_include_directories(gs_train PRIVATE ${CMAKE_CURRENT_LIST_DIR})
target_include_directories(gs_train SYSTEM PRIVATE ${OPENBLAS_INCLUDE_DIR})
target_link_libraries(gs_train PRIVATE gradsieve ${OPENBLAS_LIBRARY} ZLIB::ZLIB Threads::Threads m)
if(TARGET gradsieve_mpi)
    find_package(MPI REQUIRED COMPONENTS C)
    target_compile_definitions(gs_train PRIVATE GS_HAVE_MPI)
    target_link_libraries(gs_train PRIVATE gradsieve_mpi MPI::MPI_C)
endif()
