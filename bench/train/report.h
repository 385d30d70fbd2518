/* report.h: what the terminal shows: progress, a line per epoch, the table at the end. */
#ifndef TRAIN_REPORT_H
#define TRAIN_REPORT_H

#include "run.h"

void reportJob(const job_t *job, const ranks_t *ranks);
void reportRecipe(const options_t *options, const char *recipe);

/* A bar that redraws itself on a terminal; nothing elsewhere. */
void reportProgress(const options_t *options, int epoch, uint64_t step, uint64_t steps);

/* The epoch that `run` has noted last. */
void reportEpoch(const options_t *options, const run_t *run);

void reportTable(const run_t *runs, int count);

/* Of pairs of runs: the times of a step with the exchange after the backward pass, and during it. */
void reportOverlap(const run_t *runs, int count);

#endif
