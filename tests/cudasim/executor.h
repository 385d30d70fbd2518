/* The executor: runs a launched grid, one fiber per thread, one block after the other. */
#ifndef CUDASIM_EXECUTOR_H
#define CUDASIM_EXECUTOR_H

#include "cudasim.h"

#include <string>

namespace cudasim
{

struct Launch {
    std::string name;
    dim3 grid, block;
    size_t sharedBytes;
    Body body;
};

/* Runs the grid to its end on the calling worker thread; false after an error, which has then been printed. */
bool execute(const Launch &launch);

} // namespace cudasim

#endif /* CUDASIM_EXECUTOR_H */
