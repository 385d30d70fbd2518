/*
 * linear.c: linear models of LIBSVM rows, without an intercept: least squares, and l2-regularised logistic regression.
 * Sums are in double; parameters and gradient are double under --dtype f64, else float.
 */
#include "data/libsvm.h"
#include "failure.h"
#include "model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    libsvm_t train;
    libsvm_t test; /* empty: none was named */
    size_t columns;
    bool doubles;
    double l2;
    double (*loss)(double product, double label, double *slope); /* of a row; slope: by the product */
    double (*measure)(double product, double label);
} linear_t;

typedef struct {
    double *parameters;
    double *gradient;
} workspace_t;

/* ---- the two losses ---- */

/* log(1 + exp(-label * product)), label -1 or 1, by exponents that do not overflow. */
static double logisticLoss(double product, double label, double *slope)
{
    double margin = label * product, small = exp(-fabs(margin));
    *slope = -label * (margin > 0.0 ? small : 1.0) / (1.0 + small);
    return log1p(small) + (margin > 0.0 ? 0.0 : -margin);
}

static double isRight(double product, double label)
{
    return (product > 0.0) == (label > 0.0);
}

static double squareLoss(double product, double label, double *slope)
{
    *slope = product - label;
    return *slope * *slope / 2.0;
}

static double squaredError(double product, double label)
{
    return (product - label) * (product - label);
}

/* ---- making ---- */

/* `data` and `test` are paths; without the latter the training rows are tested. */
static linear_t *load(model_t *model, const options_t *options)
{
    linear_t *linear = model->content = calloc(1, sizeof *linear);
    if (!linear) {
        fail("no memory for a linear model");
        return NULL;
    }
    if (!libsvmRead(&linear->train, options->data) || (options->test && !libsvmRead(&linear->test, options->test)))
        return NULL;
    int columns = linear->train.columns > linear->test.columns ? linear->train.columns : linear->test.columns;
    linear->columns = (size_t)columns;
    linear->doubles = options->dtype == DTYPE_F64;
    model->trainCount = (uint32_t)linear->train.rows;
    model->testCount = (uint32_t)(options->test ? linear->test.rows : linear->train.rows);
    model->ownTest = options->test;
    model->features = (uint32_t)columns;
    model->parameters = linear->columns;
    model->parts[model->partCount++] = (part_t){0, linear->columns};
    return linear;
}

/* The smallest label becomes -1, the largest 1, and there must be no other. */
static bool makeSigns(libsvm_t *set, double low, double high, const char *path)
{
    for (int row = 0; row < set->rows; row++) {
        double label = set->label[row];
        if (label != low && label != high)
            return fail("%s: label %g of row %d, expected two classes: %g and %g", path, label, row + 1, low, high);
        set->label[row] = label == low ? -1.0 : 1.0;
    }
    return true;
}

static bool makeLogreg(model_t *model, const options_t *options)
{
    linear_t *linear = load(model, options);
    if (!linear)
        return false;
    linear->l2 = options->l2;
    linear->loss = logisticLoss;
    linear->measure = isRight;
    double low = INFINITY, high = -INFINITY;
    for (int row = 0; row < linear->train.rows; row++) {
        low = fmin(low, linear->train.label[row]);
        high = fmax(high, linear->train.label[row]);
    }
    if (low == high)
        return fail("%s: all labels are %g, expected two classes", options->data, low);
    return makeSigns(&linear->train, low, high, options->data) && makeSigns(&linear->test, low, high, options->test);
}

static bool makeLinreg(model_t *model, const options_t *options)
{
    linear_t *linear = load(model, options);
    if (!linear)
        return false;
    linear->loss = squareLoss;
    linear->measure = squaredError;
    return true;
}

static void freeLinear(model_t *model)
{
    linear_t *linear = model->content;
    if (linear) {
        libsvmFree(&linear->train);
        libsvmFree(&linear->test);
    }
    free(linear);
}

/* All zero. */
static void start(const model_t *model, void *parameters, uint64_t seed)
{
    const linear_t *linear = model->content;
    (void)seed;
    memset(parameters, 0, linear->columns * (linear->doubles ? sizeof(double) : sizeof(float)));
}

static void workspaceFree(void *pointer)
{
    workspace_t *workspace = pointer;
    if (!workspace)
        return;
    free(workspace->parameters);
    free(workspace->gradient);
    free(workspace);
}

static void *workspaceMake(const model_t *model, int batch)
{
    const linear_t *linear = model->content;
    workspace_t *workspace = calloc(1, sizeof *workspace);
    (void)batch;
    if (!workspace)
        return NULL;
    workspace->parameters = malloc(linear->columns * sizeof(double));
    workspace->gradient = malloc(linear->columns * sizeof(double));
    if (workspace->parameters && workspace->gradient)
        return workspace;
    workspaceFree(workspace);
    return NULL;
}

/* ---- gradient and test ---- */

static void widen(const linear_t *linear, const void *vector, double *wide)
{
    for (size_t i = 0; i < linear->columns; i++)
        wide[i] = linear->doubles ? ((const double *)vector)[i] : (double)((const float *)vector)[i];
}

static void narrow(const linear_t *linear, const double *wide, void *vector)
{
    for (size_t i = 0; i < linear->columns; i++)
        if (linear->doubles)
            ((double *)vector)[i] = wide[i];
        else
            ((float *)vector)[i] = (float)wide[i];
}

static double rowProduct(const libsvm_t *set, size_t row, const double *parameters)
{
    double sum = 0.0;
    for (size_t i = set->rowStart[row]; i < set->rowStart[row + 1]; i++)
        sum += set->value[i] * parameters[set->column[i]];
    return sum;
}

static void addRow(const libsvm_t *set, size_t row, double scale, double *gradient)
{
    for (size_t i = set->rowStart[row]; i < set->rowStart[row + 1]; i++)
        gradient[set->column[i]] += scale * set->value[i];
}

/* Adds that of l2 / 2 times the squared norm, which it returns. */
static double regularize(const linear_t *linear, const double *parameters, double *gradient)
{
    double norm = 0.0;
    for (size_t i = 0; i < linear->columns; i++) {
        norm += parameters[i] * parameters[i];
        gradient[i] += linear->l2 * parameters[i];
    }
    return linear->l2 / 2.0 * norm;
}

static double gradient(const model_t *model, void *pointer, const void *parameters, const uint32_t *items, int count,
                       void *gradient, const watcher_t *watcher)
{
    const linear_t *linear = model->content;
    const workspace_t *workspace = pointer;
    double loss = 0.0;
    widen(linear, parameters, workspace->parameters);
    memset(workspace->gradient, 0, linear->columns * sizeof(double));
    for (int i = 0; i < count; i++) {
        double slope, product = rowProduct(&linear->train, items[i], workspace->parameters);
        loss += linear->loss(product, linear->train.label[items[i]], &slope);
        addRow(&linear->train, items[i], slope / count, workspace->gradient);
    }
    loss += count * regularize(linear, workspace->parameters, workspace->gradient);
    narrow(linear, workspace->gradient, gradient);
    if (watcher)
        watcher->partDone(watcher->context, 0);
    return loss;
}

static double test(const model_t *model, void *pointer, const void *parameters, uint32_t first, uint32_t end)
{
    const linear_t *linear = model->content;
    const libsvm_t *set = model->ownTest ? &linear->test : &linear->train;
    const workspace_t *workspace = pointer;
    double sum = 0.0;
    widen(linear, parameters, workspace->parameters);
    for (uint32_t row = first; row < end; row++)
        sum += linear->measure(rowProduct(set, row, workspace->parameters), set->label[row]);
    return sum;
}

static const measure_t meanSquaredError = {"mean_squared_error", "mse", 1.0, ""};

#define LINEAR_TYPE(called, maker, figure)                                                                         \
    {                                                                                                              \
        .name = called, .items = "rows", .features = "columns", .doubles = true, .measure = figure, .make = maker, \
        .free = freeLinear, .start = start, .workspaceMake = workspaceMake, .workspaceFree = workspaceFree,        \
        .gradient = gradient, .test = test                                                                         \
    }
const modelType_t logregModel = LINEAR_TYPE("logreg", makeLogreg, &accuracy);
const modelType_t linregModel = LINEAR_TYPE("linreg", makeLinreg, &meanSquaredError);
