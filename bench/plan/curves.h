/* curves.h: the modes' times against ranks, links and density, as a picture. */
#ifndef PLAN_CURVES_H
#define PLAN_CURVES_H

#include "gradsieve.h"

#include <stdbool.h>

/* SVG. False, with a failure text, where it cannot be drawn. */
bool curvesDraw(const char *path, const gsReducerConfig_t *config, const gsCluster_t *cluster);

#endif
