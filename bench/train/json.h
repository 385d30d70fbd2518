/* json.h: all figures of all runs as one JSON list. */
#ifndef TRAIN_JSON_H
#define TRAIN_JSON_H

#include "run.h"

bool jsonWrite(const char *path, const run_t *runs, int count);

#endif
