/* perf.h: what both benchmarks share: input data, names of types, and a plain way to stop. */
#ifndef PERF_H
#define PERF_H

#include "gradsieve.h"
#include "rules/numeric.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum { PERF_MAX_RECIPES = 32, PERF_EXIT_WRONG = 1, PERF_EXIT_USAGE = 2 };

typedef struct {
    const char *recipes[PERF_MAX_RECIPES];
    int count;
} perfRecipes_t;

/* A list of tensors: elements of each, and of all; no tensors: one gradient. */
typedef struct {
    uint64_t *sizes;
    uint32_t tensors;
    size_t elements;
} perfList_t;

/* Prints one line and ends the program: a benchmark has nothing to save, and its other ranks must not wait for it. */
void perfStop(int code, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));

/* Stops with the library's own text unless the call went well. */
void perfRequire(gsResult_t result, const char *call);
#define PERF_REQUIRE(call) perfRequire((call), #call)

void *perfAllocate(size_t bytes); /* aligned to 64, never NULL */

/* Values of command-line flags; a text that makes no sense stops the program. */
size_t perfSize(const char *flag, const char *text); /* 4096, 64K, 1.5M, 2G */
double perfNumber(const char *flag, const char *text, double low, double high);
gsDataType_t perfType(const char *flag, const char *text);
perfList_t perfList(const char *flag,
                    const char *text); /* gpt2: the 148 tensors of GPT-2 124M; or sizes, with commas */
void perfAddRecipe(perfRecipes_t *recipes, const char *recipe);

/* Stops with the library's reason if a recipe cannot work for what the configuration says besides. */
void perfCheckRecipes(const perfRecipes_t *recipes, gsReducerConfig_t config, int nranks);
/* Of one gradient, or of these tensors; list may be NULL. */
gsReducerConfig_t perfConfig(const char *recipe, size_t count, const perfList_t *list, gsDataType_t type);

/* A file that holds a list; rows are written in between, with their commas. */
FILE *perfJsonOpen(const char *path);
void perfJsonClose(FILE *json, const char *path);

/* Whether a recipe has error feedback, and whether it sends records at all: both show in the memory it asks for. plain: what comes
 * out of one rank's record can be held against its gradient, coordinate by coordinate. */
typedef struct {
    bool sparse, feedback, plain;
} perfKind_t;
perfKind_t perfKindOf(const char *recipe, size_t count, gsDataType_t type, int nranks);

const char *perfTypeName(gsDataType_t type);

static inline size_t perfTypeBytes(gsDataType_t type)
{
    return type == GS_FLOAT64 ? 8 : type == GS_FLOAT32 ? 4 : 2;
}

static inline float perfElement(const void *data, size_t i, gsDataType_t type)
{
    switch (type) {
    case GS_BFLOAT16: return gsFromBf16(((const uint16_t *)data)[i]);
    case GS_FLOAT16: return gsFromF16(((const uint16_t *)data)[i]);
    case GS_FLOAT64: return (float)((const double *)data)[i];
    default: return ((const float *)data)[i];
    }
}

static inline void perfStore(void *data, size_t i, gsDataType_t type, float x)
{
    switch (type) {
    case GS_BFLOAT16: ((uint16_t *)data)[i] = gsToBf16(x); break;
    case GS_FLOAT16: ((uint16_t *)data)[i] = gsToF16(x); break;
    case GS_FLOAT64: ((double *)data)[i] = x; break;
    default: ((float *)data)[i] = x; break;
    }
}

/* A heavy-tailed gradient, half of it common to all ranks: sums of two draws from Student's t with two degrees of
 * freedom, in layers of 65536 elements whose scales differ. The same numbers for the same rank, always. */
void perfGradient(void *gradient, size_t count, gsDataType_t type, int rank);

#endif
