/* perf.c: what both benchmarks share. */
#include "perf.h"

#include "train/random.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void perfStop(int code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    putc('\n', stderr);
    exit(code);
}

void perfRequire(gsResult_t result, const char *call)
{
    if (result != GS_SUCCESS)
        perfStop(PERF_EXIT_WRONG, "%.*s: %s: %s", (int)strcspn(call, "("), call, gsGetErrorString(result),
                 gsGetLastError());
}

void *perfAllocate(size_t bytes)
{
    void *memory = aligned_alloc(64, (bytes + 64) / 64 * 64);
    if (!memory)
        perfStop(PERF_EXIT_WRONG, "no memory for %zu bytes", bytes);
    return memory;
}

size_t perfSize(const char *flag, const char *text)
{
    char *end;
    double value = strtod(text, &end);
    const char *units = "KMG";
    const char *unit = *end ? strchr(units, *end & ~0x20) : NULL;
    if (unit && end++)
        value *= (double)(1ull << 10 * (unit - units + 1));
    if (end == text || *end || !(value >= 1 && value < 0x1p50))
        perfStop(PERF_EXIT_USAGE, "%s: got '%s', expected a size such as 4096, 64K, 32M or 1G", flag, text);
    return (size_t)value;
}

double perfNumber(const char *flag, const char *text, double low, double high)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= low && value <= high))
        perfStop(PERF_EXIT_USAGE, "%s: got '%s', expected a number from %g to %g", flag, text, low, high);
    return value;
}

/* nccl-tests' names. */
static const struct {
    const char *name;
    gsDataType_t type;
} types[] = {{"float", GS_FLOAT32}, {"double", GS_FLOAT64}, {"half", GS_FLOAT16}, {"bfloat16", GS_BFLOAT16}};

gsDataType_t perfType(const char *flag, const char *text)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(text, types[i].name) == 0)
            return types[i].type;
    perfStop(PERF_EXIT_USAGE, "%s: got '%s', expected float, double, half or bfloat16", flag, text);
}

static void addTensor(perfList_t *list, uint64_t elements)
{
    list->sizes = realloc(list->sizes, (list->tensors + 1ull) * sizeof *list->sizes);
    if (!list->sizes)
        perfStop(PERF_EXIT_WRONG, "no memory for %u tensors", list->tensors + 1);
    list->sizes[list->tensors++] = elements;
    list->elements += elements;
}

/* Token and position embeddings, twelve layers, the last norm: Radford et al., 2019, with the vocabulary as it is, 50257. */
static void addGpt2(perfList_t *list)
{
    enum { WIDTH = 768, VOCABULARY = 50257, POSITIONS = 1024, LAYERS = 12, SQUARE = WIDTH * WIDTH };
    static const uint64_t layer[] = {
        WIDTH,      WIDTH,                        /* norm */
        3 * SQUARE, 3 * WIDTH, SQUARE,     WIDTH, /* attention */
        WIDTH,      WIDTH,                        /* norm */
        4 * SQUARE, 4 * WIDTH, 4 * SQUARE, WIDTH, /* feed-forward */
    };
    addTensor(list, VOCABULARY * WIDTH);
    addTensor(list, POSITIONS * WIDTH);
    for (int l = 0; l < LAYERS; l++)
        for (size_t i = 0; i < sizeof layer / sizeof *layer; i++)
            addTensor(list, layer[i]);
    addTensor(list, WIDTH);
    addTensor(list, WIDTH);
}

perfList_t perfList(const char *flag, const char *text)
{
    perfList_t list = {0};
    char *end = NULL;
    if (strcmp(text, "gpt2") == 0) {
        addGpt2(&list);
        return list;
    }
    for (const char *at = text; !end || *end == ','; at = end + 1) {
        unsigned long long elements = strtoull(at, &end, 10);
        if (end == at || *at == '-' || (*end && *end != ',') || elements > 1ull << 44)
            perfStop(PERF_EXIT_USAGE, "%s: got '%s', expected gpt2 or elements such as 4096,768,0", flag, text);
        addTensor(&list, elements);
    }
    if (!list.elements)
        perfStop(PERF_EXIT_USAGE, "%s: got '%s', which has no elements", flag, text);
    return list;
}

void perfAddRecipe(perfRecipes_t *recipes, const char *recipe)
{
    if (recipes->count == PERF_MAX_RECIPES)
        perfStop(PERF_EXIT_USAGE, "--recipe: more than %d of them", PERF_MAX_RECIPES);
    recipes->recipes[recipes->count++] = recipe;
}

gsReducerConfig_t perfConfig(const char *recipe, size_t count, const perfList_t *list, gsDataType_t type)
{
    gsReducerConfig_t config = GS_REDUCER_CONFIG_INIT;
    config.recipe = recipe;
    config.count = count;
    config.datatype = type;
    if (list && list->tensors) {
        config.segments = list->sizes;
        config.segmentCount = list->tensors;
    }
    return config;
}

static gsResult_t memoryOf(const char *recipe, size_t count, const perfList_t *list, gsDataType_t type, int nranks,
                           gsMemory_t *memory)
{
    gsReducerConfig_t config = perfConfig(recipe, count, list, type);
    return gsReducerGetMemory(&config, nranks, memory);
}

void perfCheckRecipes(const perfRecipes_t *recipes, gsReducerConfig_t config, int nranks)
{
    gsMemory_t memory;
    for (int i = 0; i < recipes->count; i++) {
        config.recipe = recipes->recipes[i];
        if (gsReducerGetMemory(&config, nranks, &memory) != GS_SUCCESS)
            perfStop(PERF_EXIT_USAGE, "--recipe %s: %s", config.recipe, gsGetLastError());
    }
}

/* Whether each coordinate of a record stands for itself: sparse, in plain numbers, against nothing but a residual. */
static bool isPlain(const char *recipe)
{
    static const char *const names[] = {"threshold", "topk", "chunk-topk", "gspar", "randk", "uniform"};
    size_t length = strcspn(recipe, ":");
    if (strstr(recipe, "2bit") || strstr(recipe, "twoway=1"))
        return false;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i]) == length && strncmp(names[i], recipe, length) == 0)
            return true;
    return false;
}

/* Only recipes that send records need scratch, and only those with feedback keep more state than the dense one. */
perfKind_t perfKindOf(const char *recipe, size_t count, gsDataType_t type, int nranks)
{
    gsMemory_t dense, own;
    PERF_REQUIRE(memoryOf("dense", count, NULL, type, nranks, &dense));
    PERF_REQUIRE(memoryOf(recipe, count, NULL, type, nranks, &own));
    return (perfKind_t){.sparse = own.scratchBytes > 0,
                        .feedback = own.stateBytes > dense.stateBytes,
                        .plain = own.scratchBytes == 0 || isPlain(recipe)};
}

FILE *perfJsonOpen(const char *path)
{
    FILE *json = fopen(path, "w");
    if (!json)
        perfStop(PERF_EXIT_USAGE, "--json %s: cannot be written", path);
    fputs("[\n", json);
    return json;
}

void perfJsonClose(FILE *json, const char *path)
{
    fputs("\n]\n", json);
    if (ferror(json) | fclose(json))
        perfStop(PERF_EXIT_WRONG, "--json %s: not all of it was written", path);
}

const char *perfTypeName(gsDataType_t type)
{
    size_t i = 0;
    while (types[i].type != type)
        i++;
    return types[i].name;
}

/* Student's t with two degrees of freedom by its quantile function, cut at 141. */
static float heavyTailed(random_t *random)
{
    float u = randomSigned(random);
    return u * sqrtf(2.0f / (1.0001f - u * u));
}

void perfGradient(void *gradient, size_t count, gsDataType_t type, int rank)
{
    random_t common = randomMake(1, 0), own = randomMake(2, (uint64_t)rank);
    for (size_t i = 0; i < count; i++) {
        float layer = 0.01f / (float)(1 << (i >> 16 & 3));
        perfStore(gradient, i, type, layer * (heavyTailed(&common) + heavyTailed(&own)));
    }
}
