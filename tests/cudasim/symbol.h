/* Names of kernels, for messages and traces. */
#ifndef CUDASIM_SYMBOL_H
#define CUDASIM_SYMBOL_H

#include <string>

namespace cudasim
{

/* The demangled name of the function at this address, static functions included; "?" where no symbol table has it. */
std::string functionName(const void *function);

} // namespace cudasim

#endif /* CUDASIM_SYMBOL_H */
