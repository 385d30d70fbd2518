# gs_papers: the papers' tables. Needs zlib, and is left out where it is missing.
find_package(ZLIB QUIET)
find_package(Threads REQUIRED)

if(NOT ZLIB_FOUND)
    message(STATUS "gs_papers: left out; it needs zlib (Debian: zlib1g-dev)")
    return()
endif()

add_executable(gs_papers gs_papers.c
    data/libsvm.c papers/bits.c papers/cdadam.c papers/data.c papers/descent.c papers/gdsec.c papers/gspar.c papers/lag.c
    papers/paper.c papers/plot.c papers/problem.c papers/table.c papers/team.c papers/tng.c train/failure.c train/flags.c
    train/gnuplot.c train/json_values.c train/ranks.c)
set_target_properties(gs_papers PROPERTIES C_STANDARD 11 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF)
target_compile_definitions(gs_papers PRIVATE _GNU_SOURCE)
target_include_directories(gs_papers PRIVATE ${CMAKE_CURRENT_LIST_DIR})
target_link_libraries(gs_papers PRIVATE gradsieve ZLIB::ZLIB Threads::Threads m)
