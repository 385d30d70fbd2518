/* model.h: what the training loop knows of a model: what it is called, its data's counts, and a table of functions. */
#ifndef TRAIN_MODEL_H
#define TRAIN_MODEL_H

#include "device.h"
#include "options.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The figure that tells how well a model does on the items it is tested on: a mean over them. */
typedef struct {
    const char *key;  /* in JSON */
    const char *name; /* in tables and plots */
    double scale;     /* of the figure as people read it */
    const char *unit;
} measure_t;

typedef struct modelType modelType_t;

enum { MODEL_MAX_PARTS = 16 };

/* The parameters of a layer. */
typedef struct {
    size_t first, count;
} part_t;

/* Who wants to know of each part of a gradient when it is there. */
typedef struct {
    void (*partDone)(void *context, int part);
    void *context;
} watcher_t;

/* A model with its data, alike on every rank and only read while they train. */
typedef struct {
    const modelType_t *type;
    const device_t *device; /* where its numbers are */
    const char *data;       /* what the data are called */
    uint32_t trainCount;    /* items to train on */
    uint32_t testCount;     /* items to test on */
    bool ownTest;           /* these are others than the training items */
    uint32_t features;      /* of one item */
    size_t parameters;      /* elements of parameters and gradient: double under --dtype f64, else float */
    int partCount;
    part_t parts[MODEL_MAX_PARTS]; /* in the order in which their gradients are there */
    void *content;                 /* the type's own */
} model_t;

struct modelType {
    const char *name;
    const char *items, *features; /* what the items and their features are called */
    const char *defaultData;      /* NULL: a file has to be named */
    bool doubles;                 /* --dtype f64 is possible */
    const measure_t *measure;

    bool (*make)(model_t *model, const options_t *options); /* false with a failure text; `free` in either case */
    void (*free)(model_t *model);
    void (*start)(const model_t *model, void *parameters, uint64_t seed);

    /* What one rank needs for `batch` items at a time; NULL where there is no memory. */
    void *(*workspaceMake)(const model_t *model, int batch);
    void (*workspaceFree)(void *workspace);

    /* The gradient of the mean loss over these training items; returns the sum of the losses. watcher: may be NULL. */
    double (*gradient)(const model_t *model, void *workspace, const void *parameters, const uint32_t *items, int count,
                       void *gradient, const watcher_t *watcher);

    /* The sum of the measure over the test items first .. end - 1. */
    double (*test)(const model_t *model, void *workspace, const void *parameters, uint32_t first, uint32_t end);
};

extern const measure_t accuracy;
extern const modelType_t softmaxModel, mlpModel, cnnModel, logregModel, linregModel;

/* False, with a failure text, where the other options do not go with the model. Names the default data. */
bool modelSettle(options_t *options);

bool modelMake(model_t *model, const options_t *options, const device_t *device);
void modelFree(model_t *model);

#endif
