/* Fibers: stacks of their own and a switch between them, known to the address and thread sanitizers.
 *
 * One fiber runs one CUDA thread, so a launch makes millions of switches: each saves six registers and no signal mask.
 */
#ifndef CUDASIM_FIBER_H
#define CUDASIM_FIBER_H

#include <cstddef>

namespace cudasim
{

class Fiber
{
  public:
    /* The calling thread itself, as something one can switch back to. */
    Fiber();
    /* A new stack on which `entry` runs at the first switch; it must not return. */
    explicit Fiber(void (*entry)());
    ~Fiber();
    Fiber(const Fiber &) = delete;
    Fiber &operator=(const Fiber &) = delete;

    /* Leaves this fiber, which must be the running one, for `other`; returns when somebody switches back. */
    void switchTo(Fiber &other);
    /* To be called first in `entry`. */
    static void begin();

  private:
    void *savedStackPointer = nullptr;
    void *mapping = nullptr; /* the whole mapping, guard page included; null for a thread's own stack */
    const void *stackBottom = nullptr;
    size_t stackSize = 0;
    void *fakeStack = nullptr;
    void *raceContext = nullptr;
};

} // namespace cudasim

#endif /* CUDASIM_FIBER_H */
