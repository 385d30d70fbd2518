/* device.h: where a rank computes: a table of functions, for the CPU and for CUDA devices. */
#ifndef TRAIN_DEVICE_H
#define TRAIN_DEVICE_H

#include "layers/layer.h"
#include "options.h"
#include "ranks.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    /* Whether there is a device for each of so many ranks in one process; else false, with a failure text. */
    bool (*check)(int ranks);

    /* The calling thread computes for this rank from now on, until leave. *comm: the communicator of this place; to be freed by
     * leave, after the memory. Collective. */
    bool (*enter)(const rank_t *rank, gsComm_t *comm);
    void (*leave)(gsComm_t comm);

    void *(*allocate)(size_t bytes); /* zeros; NULL where there is no memory */
    void (*release)(void *memory);
    void (*upload)(void *to, const void *from, size_t bytes); /* from the host's memory, and back */
    void (*download)(void *to, const void *from, size_t bytes);
    bool (*finish)(void); /* waits; false, with a failure text, where anything on this thread has failed since enter */

    layer_t (*dense)(shape_t in, int outputs);
    layer_t (*relu)(shape_t in);
    layer_t (*conv)(shape_t in, int channels); /* these two: NULL where there are none */
    layer_t (*pool)(shape_t in);

    /* As softmaxLoss. */
    double (*loss)(const float *logits, float *slopes, const uint8_t *labels, int classes, int rows, float *scratch);
} device_t;

extern const device_t cpuDevice;

/* What the options name; NULL, with a failure text, where this build or machine has none, or the other options do not go with it. */
const device_t *deviceOpen(const options_t *options, int localRanks);

#endif
