/* simulate.h: one call of the cost model's, run message by message. */
#ifndef PLAN_SIMULATE_H
#define PLAN_SIMULATE_H

#include "plan.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Seconds until the last rank has ended; lengths of records and loads of owners are drawn by the seed. Below 0: no memory. */
double simulateSchedule(const gsSchedule *schedule, uint64_t seed);

#ifdef __cplusplus
}
#endif

#endif
