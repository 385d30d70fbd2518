/* plot.h: loss and accuracy of all runs, against bytes and against time, drawn by gnuplot. */
#ifndef TRAIN_PLOT_H
#define TRAIN_PLOT_H

#include "run.h"

/* On failure the gnuplot script stays beside the picture, and the failure text says where. */
bool plotDraw(const char *path, const run_t *runs, int count);

#endif
