/* Which of a product's cases run: all with GS_TEST_LONG; else the simulator and devices take every other one each. */
#ifndef GS_TESTS_DRAW_H
#define GS_TESTS_DRAW_H

#include <cstddef>
#include <cstdlib>

namespace gst
{

inline bool runsLong()
{
    return std::getenv("GS_TEST_LONG") != nullptr;
}

#ifdef GS_SIMULATED
const size_t ownCases = 1;
#else
const size_t ownCases = 0;
#endif

inline bool isDrawn(size_t number)
{
    return runsLong() || number % 2 == ownCases;
}

} // namespace gst

#endif
