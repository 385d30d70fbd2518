# Tests of the transports; included by CMakeLists.txt, whose functions it uses.

gs_add_test(test_threads 25)
gs_add_test(test_hierarchy 220)
gs_add_test(test_silence 17)

if(TARGET gradsieve_mpi)
  find_package(MPI COMPONENTS C)
  add_executable(test_mpi test_mpi.cpp)
  target_include_directories(test_mpi PRIVATE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
  target_compile_definitions(test_mpi PRIVATE OMPI_SKIP_MPICXX MPICH_SKIP_MPICXX)
  target_link_libraries(test_mpi PRIVATE gradsieve_mpi gradsieve MPI::MPI_C GTest::gtest Threads::Threads)
  foreach(ranks 1 2 3 4)
    add_test(NAME test_mpi_${ranks} COMMAND ${MPIEXEC_EXECUTABLE} ${MPIEXEC_NUMPROC_FLAG} ${ranks} $<TARGET_FILE:test_mpi>)
    # Open MPI: more ranks than processors, as root in a container too. Others ignore these.
    set_tests_properties(test_mpi_${ranks} PROPERTIES LABELS mpi TIMEOUT 300 RUN_SERIAL ON ENVIRONMENT
      "OMPI_ALLOW_RUN_AS_ROOT=1;OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1;OMPI_MCA_rmaps_base_oversubscribe=1;\
OMPI_MCA_mpi_yield_when_idle=1;OMPI_MCA_btl_vader_single_copy_mechanism=none")
  endforeach()

  add_executable(test_recovery test_recovery.cpp)
  target_include_directories(test_recovery PRIVATE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
  target_compile_definitions(test_recovery PRIVATE OMPI_SKIP_MPICXX MPICH_SKIP_MPICXX)
  target_link_libraries(test_recovery PRIVATE gradsieve_mpi gradsieve MPI::MPI_C GTest::gtest Threads::Threads)
  add_test(NAME test_recovery COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/test_recovery.sh $<TARGET_FILE:test_recovery>)
  set_tests_properties(test_recovery PROPERTIES LABELS mpi TIMEOUT 900 RUN_SERIAL ON SKIP_RETURN_CODE 77)
endif()

# One rank a device, up to 4: with one device, 8 tests run.
if(TARGET gradsieve_nccl)
  separate_arguments(gs_launcher UNIX_COMMAND "${GS_DEVICE_LAUNCHER}")
  gs_add_test(test_nccl 8 LABELS cuda LAUNCHER ${gs_launcher} SOURCES test_nccl.cpp test_nccl_steps.cpp LIBRARIES gradsieve_nccl gradsieve_cuda ${NCCL_LIBRARY}
                                                                      CUDA::cudart)
  target_include_directories(test_nccl PRIVATE ${NCCL_INCLUDE_DIR})
  target_link_options(test_nccl PRIVATE LINKER:--enable-new-dtags)

  gs_add_test(test_llmc 1 LABELS cuda LAUNCHER ${gs_launcher} LIBRARIES gradsieve_nccl CUDA::cudart)
  target_include_directories(test_llmc PRIVATE ${PROJECT_SOURCE_DIR}/bench)
  target_link_options(test_llmc PRIVATE LINKER:--enable-new-dtags)
endif()

# A job that knows nothing of gradsieve, under the library that is preloaded.
if(TARGET gradsieve_preload)
  add_executable(preload_job preload_job.c)
  target_compile_definitions(preload_job PRIVATE _GNU_SOURCE)
  target_include_directories(preload_job PRIVATE ${NCCL_INCLUDE_DIR})
  target_link_libraries(preload_job PRIVATE ${NCCL_LIBRARY} CUDA::cudart Threads::Threads ${CMAKE_DL_LIBS})
  target_link_options(preload_job PRIVATE LINKER:--enable-new-dtags)
  add_test(NAME test_preload COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/test_preload.sh $<TARGET_FILE:preload_job>
                                     $<TARGET_FILE:gradsieve_preload> ${gs_launcher})
  set_tests_properties(test_preload PROPERTIES LABELS cuda TIMEOUT 1800 SKIP_RETURN_CODE 77)
endif()

# The tests of NCCL on the simulator, which captures no graphs.
if(TARGET gradsieve_cuda_sim AND TARGET nccl_sim)
  # The project hides symbols by default; these two stand in for libraries that show theirs.
  set_target_properties(cudart_sim nccl_sim PROPERTIES CXX_VISIBILITY_PRESET default)
  gs_add_test(test_nccl_sim 20 LABELS sim SOURCES test_nccl.cpp test_nccl_steps.cpp ${PROJECT_SOURCE_DIR}/nccl_plugin/nccl.c
                               LIBRARIES gradsieve_cuda_sim nccl_sim cudasim)
  target_compile_definitions(test_nccl_sim PRIVATE _GNU_SOURCE GS_SIMULATED)
  set_property(TEST test_nccl_sim APPEND PROPERTY ENVIRONMENT CUDASIM_DEVICES=4)
endif()
