/* problem.c: values, gradients, smoothness and minimum of linear and logistic problems over sparse rows. */
#include "problem.h"

#include "vector.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { POWER_STEPS = 3000, MINIMUM_STEPS = 200000 };

static const double powerAccuracy = 1e-13, minimumAccuracy = 1e-22;

/* One exponential serves the value and the slope, and neither overflows. */
static inline double logisticLoss(double z, double y, double *slope)
{
    double margin = y * z, e = exp(-fabs(margin));
    *slope = -y * (margin > 0 ? e : 1.0) / (1.0 + e);
    return log1p(e) + (margin > 0 ? 0.0 : -margin);
}

/* As above, where only the slope is wanted: the logarithm costs more than all the rest. */
static inline double logisticSlope(double z, double y)
{
    return -y / (1.0 + exp(y * z));
}

static inline double rowLoss(loss_t loss, double z, double y, double *slope)
{
    if (loss == LOSS_LOGISTIC)
        return logisticLoss(z, y, slope);
    *slope = z - y;
    return 0.5 * (z - y) * (z - y);
}

static inline double rowSlope(loss_t loss, double z, double y)
{
    return loss == LOSS_LOGISTIC ? logisticSlope(z, y) : z - y;
}

static double rowProduct(const libsvm_t *data, int row, const double *x)
{
    double z = 0.0;
    for (size_t at = data->rowStart[row]; at < data->rowStart[row + 1]; at++)
        z += data->value[at] * x[data->column[at]];
    return z;
}

static void addRow(const libsvm_t *data, int row, double factor, double *gradient)
{
    for (size_t at = data->rowStart[row]; at < data->rowStart[row + 1]; at++)
        gradient[data->column[at]] += factor * data->value[at];
}

static double penaltyValue(const problem_t *problem, const double *x)
{
    double sum = 0.0;
    for (int i = 0; i < problem->dimension; i++)
        sum += problem->penalty == PENALTY_SQUARES ? 0.5 * x[i] * x[i] : x[i] * x[i] / (1.0 + x[i] * x[i]);
    return problem->lambda * sum;
}

static inline double penaltySlope(const problem_t *problem, double x)
{
    double bend = 1.0 + x * x;
    return problem->lambda * (problem->penalty == PENALTY_SQUARES ? x : 2.0 * x / (bend * bend));
}

static void startGradient(const problem_t *problem, int lanes, const double *x, double *gradient)
{
    for (int i = 0; i < problem->dimension * lanes; i++)
        gradient[i] = penaltySlope(problem, x[i]);
}

static double sumLosses(const problem_t *problem, const double *x, double *gradient)
{
    double sum = 0.0, slope;
    for (int row = problem->first; row < problem->first + problem->rows; row++) {
        sum += rowLoss(problem->loss, rowProduct(problem->data, row, x), problem->data->label[row], &slope);
        if (gradient)
            addRow(problem->data, row, problem->scale * slope, gradient);
    }
    return sum;
}

double problemEvaluate(const problem_t *problem, const double *x, double *gradient)
{
    if (gradient)
        startGradient(problem, 1, x, gradient);
    return problem->scale * sumLosses(problem, x, gradient) + penaltyValue(problem, x);
}

void problemBatchGradient(const problem_t *problem, const int *rows, int count, const double *x, double *gradient)
{
    startGradient(problem, 1, x, gradient);
    for (int i = 0; i < count; i++) {
        int row = problem->first + rows[i];
        double slope = rowSlope(problem->loss, rowProduct(problem->data, row, x), problem->data->label[row]);
        addRow(problem->data, row, slope / count, gradient);
    }
}

/* Compiled twice: for whatever runs, and for AVX2, which does it in half the time. */
static inline __attribute__((always_inline)) void addLanes(const problem_t *problem, int lanes, const double *x,
                                                           double *gradient)
{
    const libsvm_t *data = problem->data;
    for (int row = problem->first; row < problem->first + problem->rows; row++) {
        double z[PROBLEM_MAX_LANES] = {0};
        for (size_t at = data->rowStart[row]; at < data->rowStart[row + 1]; at++)
            vectorAddMultiple(z, data->value[at], x + data->column[at] * lanes, lanes);
        for (int l = 0; l < lanes; l++)
            z[l] = problem->scale * rowSlope(problem->loss, z[l], data->label[row]);
        for (size_t at = data->rowStart[row]; at < data->rowStart[row + 1]; at++)
            vectorAddMultiple(gradient + data->column[at] * lanes, data->value[at], z, lanes);
    }
}

#if defined(__x86_64__) && defined(__GNUC__)
__attribute__((target("avx2"))) static void addLanesAvx2(const problem_t *problem, int lanes, const double *x,
                                                         double *gradient)
{
    addLanes(problem, lanes, x, gradient);
}

static bool hasAvx2(void)
{
    return __builtin_cpu_supports("avx2");
}
#else
#define addLanesAvx2 addLanes
static bool hasAvx2(void)
{
    return false;
}
#endif

void problemLaneGradients(const problem_t *problem, int lanes, const double *x, double *gradient)
{
    startGradient(problem, lanes, x, gradient);
    if (hasAvx2())
        addLanesAvx2(problem, lanes, x, gradient);
    else
        addLanes(problem, lanes, x, gradient);
}

/* ---- smoothness -------------------------------------------------------------------------------------------------- */

/* A logistic loss bends by 1/4 at most. */
static double largestBend(loss_t loss)
{
    return loss == LOSS_LOGISTIC ? 0.25 : 1.0;
}

/* out += the largest Hessian of the losses, times v */
static void addHessianProduct(const problem_t *problem, const double *v, double *out)
{
    double bend = problem->scale * largestBend(problem->loss);
    for (int row = problem->first; row < problem->first + problem->rows; row++)
        addRow(problem->data, row, bend * rowProduct(problem->data, row, v), out);
}

static double penaltySmoothness(const problem_t *problems, int count)
{
    double sum = 0.0;
    for (int i = 0; i < count; i++)
        sum += problems[i].lambda * (problems[i].penalty == PENALTY_SQUARES ? 1.0 : 2.0);
    return sum;
}

double problemSmoothness(const problem_t *problems, int count)
{
    int dimension = problems[0].dimension;
    double v[dimension], out[dimension], largest = 0.0;
    for (int i = 0; i < dimension; i++)
        v[i] = 1.0 + 1.0 / (1.0 + i); /* no eigenvector, and orthogonal to none but by accident */
    for (int step = 0; step < POWER_STEPS; step++) {
        double before = largest;
        vectorScale(v, 1.0 / vectorNorm(v, dimension), dimension);
        memset(out, 0, sizeof out);
        for (int i = 0; i < count; i++)
            addHessianProduct(&problems[i], v, out);
        largest = vectorDot(v, out, dimension);
        memcpy(v, out, sizeof v);
        if (fabs(largest - before) <= powerAccuracy * largest)
            break;
    }
    return largest + penaltySmoothness(problems, count);
}

/* ---- minimum ----------------------------------------------------------------------------------------------------- */

static double evaluateSum(const problem_t *problems, int count, const double *x, double *gradient, double *share)
{
    int dimension = problems[0].dimension;
    double value = 0.0;
    memset(gradient, 0, (size_t)dimension * sizeof *gradient);
    for (int i = 0; i < count; i++) {
        value += problemEvaluate(&problems[i], x, share);
        vectorAddMultiple(gradient, 1.0, share, dimension);
    }
    return value;
}

/* Nesterov's momentum, begun anew where it points uphill (O'Donoghue and Candes 2015). */
double problemMinimum(const problem_t *problems, int count)
{
    int dimension = problems[0].dimension;
    double step = 1.0 / problemSmoothness(problems, count), value = 0.0, momentum = 0.0;
    double x[dimension], y[dimension], gradient[dimension], share[dimension];
    memset(x, 0, sizeof x);
    memset(y, 0, sizeof y);
    for (int k = 0; k < MINIMUM_STEPS; k++) {
        value = evaluateSum(problems, count, y, gradient, share);
        double slope = vectorDot(gradient, gradient, dimension), uphill = 0.0;
        if (slope * step <= minimumAccuracy * fabs(value))
            break;
        double next = 0.5 * (1.0 + sqrt(1.0 + 4.0 * momentum * momentum)), weight = (momentum - 1.0) / next;
        for (int i = 0; i < dimension; i++) {
            double moved = y[i] - step * gradient[i];
            uphill += gradient[i] * (moved - x[i]);
            y[i] = moved + (momentum > 0.0 ? weight : 0.0) * (moved - x[i]);
            x[i] = moved;
        }
        momentum = uphill > 0.0 ? 0.0 : next;
        if (uphill > 0.0)
            memcpy(y, x, sizeof y);
    }
    return value;
}

void problemSplit(problem_t *problems, int count, const problem_t *whole)
{
    long rows = whole->rows;
    for (int m = 0; m < count; m++) {
        int first = (int)((m * rows + count - 1) / count), last = (int)(((m + 1) * rows + count - 1) / count);
        problems[m] = *whole;
        problems[m].first = whole->first + first;
        problems[m].rows = last - first;
    }
}
