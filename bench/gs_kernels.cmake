# gs_kernels: the stages on a CUDA device. Left out where the CUDA backend is.
if(NOT TARGET gradsieve_cuda)
    return()
endif()
gs_add_bench(gs_kernels)
target_link_libraries(gs_kernels PRIVATE gradsieve_cuda CUDA::cudart)
