/* problem.h: what the papers minimise: linear and logistic losses over rows of a data set, with a penalty, in double.
 * */
#ifndef PAPERS_PROBLEM_H
#define PAPERS_PROBLEM_H

#include "data/libsvm.h"

#include <stdbool.h>

/* 1/2 (z - y)^2 and log(1 + exp(-y z)), of z = a row times x. */
typedef enum { LOSS_SQUARES, LOSS_LOGISTIC } loss_t;

/* lambda/2 |x|^2 and lambda sum x^2 / (1 + x^2). */
typedef enum { PENALTY_SQUARES, PENALTY_BOUNDED } penalty_t;

/* One worker's share: f(x) = scale * sum of its rows' losses + penalty. */
typedef struct {
    const libsvm_t *data;
    int first, rows; /* of the data */
    int dimension;
    loss_t loss;
    double scale;
    penalty_t penalty;
    double lambda;
} problem_t;

enum { PROBLEM_MAX_LANES = 64 };

/* f(x), and its gradient unless that is NULL. */
double problemEvaluate(const problem_t *problem, const double *x, double *gradient);

/* The gradient of the mean loss over `count` rows, counted from the problem's first, with the penalty. */
void problemBatchGradient(const problem_t *problem, const int *rows, int count, const double *x, double *gradient);

/* Gradients at `lanes` points in one pass over the data: lane l of coordinate i is at [i * lanes + l]. */
void problemLaneGradients(const problem_t *problem, int lanes, const double *x, double *gradient);

/* The smoothness constant of the sum of the problems: the Hessian's largest eigenvalue where the losses bend most, by
 * power iteration, plus the penalties' own. */
double problemSmoothness(const problem_t *problems, int count);

/* The least value of the sum of the problems, by accelerated gradient descent with restarts. For convex problems. */
double problemMinimum(const problem_t *problems, int count);

/* Cuts rows 0 .. data->rows - 1 into `count` runs, row n to run floor(n count / rows), each a copy of `whole` but for
 * first and rows. */
void problemSplit(problem_t *problems, int count, const problem_t *whole);

#endif
