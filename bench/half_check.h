/*
 * half_check.h: gsReduceScatter and gsAllGather in gs_all_reduce_perf, and what counts as #wrong of them, for a few steps from a fresh
 * state: elements of a scattered sum that are not those of the all-reduce with the same recipe, until a part's slot is too small; gathered
 * elements that are not the same bits on all ranks, or, of `dense`, not what was given.
 */
#ifndef HALF_CHECK_H
#define HALF_CHECK_H

#include "all_reduce_check.h"

const char *halfName(gsCollective_t collective);

/* In place job->result holds the gradient, and gets the result. */
void halfCall(const checkJob_t *job, bool inPlace);

/* Every rank calls it. */
checkResult_t halfCheck(const checkJob_t *job);

#endif
