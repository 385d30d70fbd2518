/* An allocator of the caller's that keeps count, and fails where it is told to. */
#ifndef GS_TESTS_ARENA_H
#define GS_TESTS_ARENA_H

#include "ranks.h"

#include <map>

namespace gst
{

struct Arena {
    std::map<void *, size_t> alive;
    size_t total = 0, calls = 0, failAt = SIZE_MAX;
};

inline void *arenaAllocate(size_t bytes, void *context)
{
    Arena *arena = static_cast<Arena *>(context);
    if (arena->calls++ >= arena->failAt)
        return nullptr;
    void *pointer = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    arena->alive[pointer] = bytes;
    arena->total += bytes;
    return pointer;
}

inline void arenaRelease(void *pointer, void *context)
{
    EXPECT_EQ(static_cast<Arena *>(context)->alive.erase(pointer), 1u);
    std::free(pointer);
}

inline gsReducerConfig_t configOf(const Plan &plan, Arena *arena)
{
    gsReducerConfig_t config = configOf(plan);
    config.allocate = arenaAllocate;
    config.release = arenaRelease;
    config.allocatorContext = arena;
    return config;
}

} // namespace gst
#endif
