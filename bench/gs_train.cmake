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
    train/device.c train/dtype.c train/exchange.c train/failure.c train/flags.c train/gnuplot.c train/json.c train/json_values.c train/linear.c train/model.c
    train/network.c train/options.c train/plot.c train/ranks.c train/report.c train/run.c
    train/layers/conv.c train/layers/dense.c train/layers/pool.c train/layers/relu.c train/layers/softmax.c)
set_target_properties(gs_train PROPERTIES C_STANDARD 11 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF)
# --device cuda loads a part that calls back into the program: softmax.c's neighbours, failures, ranks.
set_target_properties(gs_train PROPERTIES ENABLE_EXPORTS ON C_VISIBILITY_PRESET default BUILD_RPATH $ORIGIN)
target_compile_definitions(gs_train PRIVATE _GNU_SOURCE)
target_include_directories(gs_train PRIVATE ${CMAKE_CURRENT_LIST_DIR})
target_include_directories(gs_train SYSTEM PRIVATE ${OPENBLAS_INCLUDE_DIR})
target_link_libraries(gs_train PRIVATE gradsieve ${OPENBLAS_LIBRARY} ZLIB::ZLIB Threads::Threads ${CMAKE_DL_LIBS} m)
if(TARGET gradsieve_mpi)
    find_package(MPI REQUIRED COMPONENTS C)
    target_compile_definitions(gs_train PRIVATE GS_HAVE_MPI)
    target_link_libraries(gs_train PRIVATE gradsieve_mpi MPI::MPI_C)
endif()

if(NOT TARGET gradsieve_nccl OR NOT TARGET CUDA::cublas)
    message(STATUS "gs_train: without --device cuda, which needs CUDA, NCCL and cuBLAS")
    return()
endif()
add_library(gs_train_cuda MODULE train/device_cuda.cu)
gs_set_cuda(gs_train_cuda)
target_include_directories(gs_train_cuda PRIVATE ${CMAKE_CURRENT_LIST_DIR} ${CMAKE_CURRENT_LIST_DIR}/train)
target_link_libraries(gs_train_cuda PRIVATE gs_train gradsieve_nccl CUDA::cudart CUDA::cublas)
