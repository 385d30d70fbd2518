/* What the address and thread sanitizers must be told about fibers; nothing without them. */
#ifndef CUDASIM_SANITIZER_H
#define CUDASIM_SANITIZER_H

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#elif defined(CUDASIM_THREAD_SANITIZER)
#include <sanitizer/tsan_interface.h>
extern "C" void AnnotateIgnoreWritesBegin(const char *file, int line);
extern "C" void AnnotateIgnoreWritesEnd(const char *file, int line);
#endif

namespace cudasim
{

#if defined(__SANITIZE_ADDRESS__)

inline void startSwitch(void **fakeStack, const void *bottom, size_t size, void *)
{
    __sanitizer_start_switch_fiber(fakeStack, bottom, size);
}
inline void finishSwitch(void *fakeStack)
{
    __sanitizer_finish_switch_fiber(fakeStack, nullptr, nullptr);
}
/* A stack left in mid-kernel still has its red zones. */
inline void forgetStack(const void *bottom, size_t size)
{
    __asan_unpoison_memory_region(bottom, size);
}

#else

inline void startSwitch(void **, const void *, size_t, [[maybe_unused]] void *raceContext)
{
#ifdef CUDASIM_THREAD_SANITIZER
    __tsan_switch_to_fiber(raceContext, __tsan_switch_to_fiber_no_sync);
#endif
}
inline void finishSwitch(void *)
{
}
inline void forgetStack(const void *, size_t)
{
}

#endif

/* For the thread sanitizer a fiber is a thread, and only what CUDA calls synchronisation orders two of them. */
#ifdef CUDASIM_THREAD_SANITIZER
inline void *currentRaceContext()
{
    return __tsan_get_current_fiber();
}
inline void *createRaceContext()
{
    return __tsan_create_fiber(0);
}
inline void destroyRaceContext(void *context)
{
    __tsan_destroy_fiber(context);
}
inline void publish(void *place)
{
    __tsan_release(place);
}
inline void observe(void *place)
{
    __tsan_acquire(place);
}

/* While one lives, what this fiber does with memory is not the kernel's doing. */
class Unwatched
{
  public:
    Unwatched()
    {
        AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
    }
    ~Unwatched()
    {
        AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    }
};
#else
inline void *currentRaceContext()
{
    return nullptr;
}
inline void *createRaceContext()
{
    return nullptr;
}
inline void destroyRaceContext(void *)
{
}
inline void publish(void *)
{
}
inline void observe(void *)
{
}
struct Unwatched {
    Unwatched()
    {
    }
};
#endif

} // namespace cudasim

#endif /* CUDASIM_SANITIZER_H */
