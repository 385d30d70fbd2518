/* gs_stage_perf: encode and decode-and-sum beside plain copies of the same buffers, in one run on one machine. */
#define GS_ADVANCED
#include "copy.h"
#include "perf.h"
#include "step_perf.h"
#include "train/clock.h"
#include "train/random.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "gs_stage_perf: the stages of an exchange, against the speed of memory\n\n"
    "usage: gs_stage_perf [flags]\n\n"
    "  --recipe R      measure this recipe; may be given several times (default threshold:density=0.01)\n"
    "  --count N       elements, with K, M or G (default 25557032, a ResNet-50)\n"
    "  --dtype T       float, double, half or bfloat16 (default float)\n"
    "  --threads N     threads of a stage and of a copy (default 1)\n"
    "  --isa I         instruction set, as in GS_CPU (default: the best there is)\n"
    "  --ranks P       records that decode sums (default 1)\n"
    "  --optimizer O   momentum, amsgrad or adamw: its step, too, on one rank, of float and double: \"apart\" is\n"
    "                  gsAllReduce and gsOptimizerStep, \"fused\" gsAllReduceStep\n"
    "  --json FILE     write the rows, a list with one object for each\n\n"
    "ns are per element, bytes what a stage cannot do without: encode reads the gradient and, with feedback, reads\n"
    "and writes 4 bytes of residual, and writes its record; decode reads P records and writes the sum. The floor is\n"
    "the same bytes without records (float32 with feedback: 12) at the speed of the better of the two copies, for\n"
    "decode that of memset; ratio is the best time by it. The gradient is heavy-tailed and fixed but for 10 % of\n"
    "noise that changes from step to step; 20 steps come before the first that counts.\n";

enum { WARMUP = 20, REPETITIONS = 15, NOISES = 65536, RANK_SHIFT = 65536, STEP_SHIFT = 7919 };

typedef struct {
    perfRecipes_t recipes;
    size_t count;
    gsDataType_t type;
    int threads, ranks, optimizer; /* gsOptimizerKind_t; -1: none */
    const char *isa, *json;
} settings_t;

/* All buffers, for all recipes. Rank r's gradient begins r * RANK_SHIFT elements into the common one. */
typedef struct {
    const settings_t *settings;
    size_t width, all; /* bytes of an element; elements of the common gradient */
    float *fixed, *noise;
    char *gradient;
    void *sum;
} bench_t;

/* The ranks of one recipe. Only rank 0 is timed; the others make the records that it sums. */
typedef struct {
    gsComm_t *comms;
    gsReducer_t *reducers;
    size_t slotBytes;
    char *records;
} ranks_t;

enum { COPY_PLAIN, COPY_STREAMING, FILL, ENCODE, DECODE, APART, FUSED, PASSES };

typedef struct {
    double seconds[PASSES][REPETITIONS];
    double best[PASSES], median[PASSES]; /* ns an element */
    double payload;                      /* mean bytes of rank 0's record, an element */
    double density;
    bool feedback;
} figures_t;

/* ---- the gradient of a step ---- */

static bench_t benchMake(const settings_t *settings)
{
    bench_t bench = {.settings = settings, .width = perfTypeBytes(settings->type)};
    random_t random = randomMake(3, 0);
    bench.all = settings->count + (size_t)(settings->ranks - 1) * RANK_SHIFT;
    bench.fixed = perfAllocate(bench.all * sizeof *bench.fixed);
    bench.noise = perfAllocate(NOISES * sizeof *bench.noise);
    bench.gradient = perfAllocate(bench.all * bench.width);
    bench.sum = perfAllocate(settings->count * bench.width);
    perfGradient(bench.fixed, bench.all, GS_FLOAT32, 0);
    for (int i = 0; i < NOISES; i++)
        bench.noise[i] = 1.0f + 0.1f * randomSigned(&random);
    return bench;
}

static void benchFree(bench_t *bench)
{
    free(bench->fixed);
    free(bench->noise);
    free(bench->gradient);
    free(bench->sum);
}

static void drawGradient(bench_t *bench, int step)
{
    size_t shift = (size_t)step * STEP_SHIFT;
    for (size_t i = 0; i < bench->all; i++)
        perfStore(bench->gradient, i, bench->settings->type, bench->fixed[i] * bench->noise[(i + shift) % NOISES]);
}

static const void *gradientOf(const bench_t *bench, int rank)
{
    return bench->gradient + (size_t)rank * RANK_SHIFT * bench->width;
}

/* ---- the ranks ---- */

static ranks_t ranksMake(const settings_t *settings, const char *recipe)
{
    ranks_t ranks = {perfAllocate((size_t)settings->ranks * sizeof(gsComm_t)),
                     perfAllocate((size_t)settings->ranks * sizeof(gsReducer_t)), 0, NULL};
    gsReducerConfig_t config = GS_REDUCER_CONFIG_INIT;
    config.datatype = settings->type;
    config.recipe = recipe;
    config.count = settings->count;
    config.cpuThreads = settings->threads;
    for (int r = 0; r < settings->ranks; r++) {
        PERF_REQUIRE(gsCommInitStages(&ranks.comms[r], r, settings->ranks, NULL));
        PERF_REQUIRE(gsReducerCreate(&ranks.reducers[r], ranks.comms[r], &config));
    }
    PERF_REQUIRE(gsReducerGetSlotBytes(ranks.reducers[0], &ranks.slotBytes));
    if (ranks.slotBytes == 0)
        perfStop(PERF_EXIT_USAGE, "--recipe %s: has no stages; expected one that sends records", recipe);
    ranks.records = perfAllocate(ranks.slotBytes * (size_t)settings->ranks);
    return ranks;
}

static void ranksFree(ranks_t *ranks, int count)
{
    for (int r = 0; r < count; r++) {
        PERF_REQUIRE(gsReducerDestroy(ranks->reducers[r]));
        PERF_REQUIRE(gsCommDestroy(ranks->comms[r]));
    }
    free(ranks->comms);
    free(ranks->reducers);
    free(ranks->records);
}

static double encode(const bench_t *bench, const ranks_t *ranks, int r)
{
    const settings_t *s = bench->settings;
    double start = clockSeconds();
    PERF_REQUIRE(gsEncode(gradientOf(bench, r), ranks->records + (size_t)r * ranks->slotBytes, s->count, s->type,
                          ranks->reducers[r], NULL));
    return clockSeconds() - start;
}

static double decode(const bench_t *bench, const ranks_t *ranks, int r)
{
    const settings_t *s = bench->settings;
    double start = clockSeconds();
    PERF_REQUIRE(gsDecode(ranks->records, bench->sum, s->count, s->type, GS_SUM, ranks->reducers[r], NULL));
    return clockSeconds() - start;
}

static double copy(const bench_t *bench, void (*pass)(void *, const void *, size_t, int))
{
    double start = clockSeconds();
    pass(bench->sum, bench->gradient, bench->settings->count * bench->width, bench->settings->threads);
    return clockSeconds() - start;
}

/* ---- one recipe ---- */

static int passesOf(const settings_t *settings)
{
    return settings->optimizer < 0 ? APART : PASSES;
}

/* One step of all ranks: state advances only when encode and decode alternate. Counts from `repetition` 0 on. */
static void runStep(bench_t *bench, const ranks_t *ranks, stepPerf_t *step, int repetition, figures_t *figures)
{
    double seconds[PASSES] = {0};
    drawGradient(bench, repetition + WARMUP);
    for (int r = 1; r < bench->settings->ranks; r++)
        encode(bench, ranks, r);
    seconds[COPY_PLAIN] = copy(bench, copyPlain);
    seconds[COPY_STREAMING] = copy(bench, copyStreaming);
    seconds[FILL] = copy(bench, copyFill);
    seconds[ENCODE] = encode(bench, ranks, 0);
    seconds[DECODE] = decode(bench, ranks, 0);
    for (int r = 1; r < bench->settings->ranks; r++)
        decode(bench, ranks, r);
    if (step) {
        seconds[APART] = stepPerfApart(step, bench->gradient);
        seconds[FUSED] = stepPerfFused(step, bench->gradient);
    }
    for (int pass = 0; pass < PASSES && repetition >= 0; pass++)
        figures->seconds[pass][repetition] = seconds[pass];
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void settle(figures_t *figures, size_t count)
{
    for (int pass = 0; pass < PASSES; pass++) {
        double *seconds = figures->seconds[pass];
        qsort(seconds, REPETITIONS, sizeof *seconds, ascending);
        figures->best[pass] = seconds[0] * 1e9 / (double)count;
        figures->median[pass] = seconds[REPETITIONS / 2] * 1e9 / (double)count;
    }
}

static figures_t measure(bench_t *bench, const char *recipe)
{
    const settings_t *settings = bench->settings;
    figures_t figures = {.feedback = perfKindOf(recipe, settings->count, settings->type, settings->ranks).feedback};
    gsStats_t before = {0}, after;
    ranks_t ranks = ranksMake(settings, recipe);
    stepPerf_t step;
    bool steps = settings->optimizer >= 0;
    if (steps)
        step = stepPerfMake((gsOptimizerKind_t)settings->optimizer, recipe, settings->count, settings->type,
                            settings->threads);
    for (int repetition = -WARMUP; repetition < REPETITIONS; repetition++) {
        if (repetition == 0)
            PERF_REQUIRE(gsReducerGetStats(ranks.reducers[0], &before));
        runStep(bench, &ranks, steps ? &step : NULL, repetition, &figures);
    }
    PERF_REQUIRE(gsReducerGetStats(ranks.reducers[0], &after));
    figures.payload = (double)(after.payloadBytes - before.payloadBytes) / REPETITIONS / (double)settings->count;
    figures.density = (double)(after.sentTotal - before.sentTotal) / REPETITIONS / (double)settings->count;
    settle(&figures, settings->count);
    ranksFree(&ranks, settings->ranks);
    if (steps)
        stepPerfFree(&step);
    return figures;
}

/* ---- output ---- */

typedef struct {
    const char *name;
    double best, median;
    double bytes; /* an element */
    double floor; /* ns an element; 0: none */
} row_t;

static void makeRows(row_t rows[PASSES], const settings_t *settings, const figures_t *f)
{
    double width = (double)perfTypeBytes(settings->type);
    double copyBest = f->best[COPY_STREAMING] < f->best[COPY_PLAIN] ? f->best[COPY_STREAMING] : f->best[COPY_PLAIN];
    double least = width + (f->feedback ? 8.0 : 0.0);
    /* parameters and moments, read and written */
    double vectors = settings->optimizer < 0 ? 0.0
                                             : 2 * width *
                                                   (settings->optimizer == GS_MOMENTUM ? 2
                                                    : settings->optimizer == GS_ADAMW  ? 3
                                                                                       : 4);
    static const char *const names[PASSES] = {"memcpy", "copy-nt", "memset", "encode", "decode", "apart", "fused"};
    const double bytes[PASSES] = {2 * width,
                                  2 * width,
                                  width,
                                  least + f->payload,
                                  width + settings->ranks * f->payload,
                                  least + vectors + 2 * width + 2 * f->payload,
                                  least + vectors + 2 * f->payload};
    const double copied[] = {least, least + vectors + 2 * width, least + vectors};
    const double floors[PASSES] = {0,
                                   0,
                                   0,
                                   copied[0] / (2 * width) * copyBest,
                                   f->best[FILL],
                                   copied[1] / (2 * width) * copyBest,
                                   copied[2] / (2 * width) * copyBest};
    for (int pass = 0; pass < PASSES; pass++)
        rows[pass] = (row_t){names[pass], f->best[pass], f->median[pass], bytes[pass], floors[pass]};
}

static void printRows(const row_t rows[PASSES], const settings_t *settings, const char *recipe,
                      const figures_t *figures)
{
    printf("\n# %s: density %.5f, record %.3f bits an element\n", recipe, figures->density, 8.0 * figures->payload);
    printf("#%9s %9s %9s %9s %9s %9s %9s\n", "stage", "best", "median", "bytes", "rate", "floor", "ratio");
    printf("#%9s %9s %9s %9s %9s %9s\n", "", "(ns)", "(ns)", "", "(GB/s)", "(ns)");
    for (const row_t *row = rows; row < rows + passesOf(settings); row++) {
        printf("%10s %9.3f %9.3f %9.3f %9.2f", row->name, row->best, row->median, row->bytes, row->bytes / row->best);
        if (row->floor > 0)
            printf(" %9.3f %9.2f", row->floor, row->best / row->floor);
        putchar('\n');
    }
    if (settings->ranks > 1)
        printf("# decode sums %d records: %.3f ns a record\n", settings->ranks, rows[DECODE].best / settings->ranks);
    fflush(stdout);
}

static void writeRows(FILE *json, bool first, const row_t rows[PASSES], const settings_t *settings, const char *recipe,
                      const figures_t *figures)
{
    for (const row_t *row = rows; row < rows + passesOf(settings); row++) {
        fprintf(json,
                "%s{\"recipe\": \"%s\", \"stage\": \"%s\", \"count\": %zu, \"type\": \"%s\", \"threads\": %d, "
                "\"ranks\": %d, \"isa\": \"%s\",\n",
                first && row == rows ? "  " : ",\n  ", recipe, row->name, settings->count, perfTypeName(settings->type),
                settings->threads, settings->ranks, settings->isa ? settings->isa : "best");
        fprintf(json,
                "   \"density\": %.6g, \"record_bytes\": %.6g, \"best_ns\": %.6g, \"median_ns\": %.6g, "
                "\"bytes\": %.6g, \"floor_ns\": ",
                figures->density, figures->payload, row->best, row->median, row->bytes);
        if (row->floor > 0)
            fprintf(json, "%.6g, \"ratio\": %.6g}", row->floor, row->best / row->floor);
        else
            fputs("null, \"ratio\": null}", json);
    }
}

/* ---- command line ---- */

enum {
    FLAG_RECIPE = 256,
    FLAG_COUNT,
    FLAG_DTYPE,
    FLAG_THREADS,
    FLAG_ISA,
    FLAG_RANKS,
    FLAG_OPTIMIZER,
    FLAG_JSON,
    FLAG_HELP
};

static const struct option flags[] = {
    {"recipe", required_argument, NULL, FLAG_RECIPE},
    {"count", required_argument, NULL, FLAG_COUNT},
    {"dtype", required_argument, NULL, FLAG_DTYPE},
    {"threads", required_argument, NULL, FLAG_THREADS},
    {"isa", required_argument, NULL, FLAG_ISA},
    {"ranks", required_argument, NULL, FLAG_RANKS},
    {"optimizer", required_argument, NULL, FLAG_OPTIMIZER},
    {"json", required_argument, NULL, FLAG_JSON},
    {"help", no_argument, NULL, FLAG_HELP},
    {0},
};

static int optimizerOf(const char *name)
{
    static const char *const names[] = {"momentum", "amsgrad", "adamw"}; /* as gsOptimizerKind_t counts */
    for (int kind = 0; kind <= GS_ADAMW; kind++)
        if (strcmp(name, names[kind]) == 0)
            return kind;
    perfStop(PERF_EXIT_USAGE, "--optimizer: got %s, expected momentum, amsgrad or adamw", name);
}

static void takeFlag(settings_t *settings, int flag)
{
    switch (flag) {
    case FLAG_RECIPE: perfAddRecipe(&settings->recipes, optarg); break;
    case FLAG_COUNT: settings->count = perfSize("--count", optarg); break;
    case FLAG_DTYPE: settings->type = perfType("--dtype", optarg); break;
    case FLAG_THREADS: settings->threads = (int)perfNumber("--threads", optarg, 1, 1024); break;
    case FLAG_ISA: settings->isa = optarg; break;
    case FLAG_RANKS: settings->ranks = (int)perfNumber("--ranks", optarg, 1, 1024); break;
    case FLAG_OPTIMIZER: settings->optimizer = optimizerOf(optarg); break;
    case FLAG_JSON: settings->json = optarg; break;
    case FLAG_HELP: fputs(help, stdout); exit(0);
    default: perfStop(PERF_EXIT_USAGE, "--help lists the flags");
    }
}

static settings_t parse(int argc, char **argv)
{
    settings_t settings = {.count = 25557032, .type = GS_FLOAT32, .threads = 1, .ranks = 1, .optimizer = -1};
    int flag;
    while ((flag = getopt_long(argc, argv, "", flags, NULL)) != -1)
        takeFlag(&settings, flag);
    if (optind < argc)
        perfStop(PERF_EXIT_USAGE, "'%s' is no flag; --help lists them", argv[optind]);
    if (settings.recipes.count == 0)
        perfAddRecipe(&settings.recipes, "threshold:density=0.01");
    if (settings.optimizer >= 0 && settings.type != GS_FLOAT32 && settings.type != GS_FLOAT64)
        perfStop(PERF_EXIT_USAGE, "--optimizer: got gradients of %s, expected float or double",
                 perfTypeName(settings.type));
    if (settings.isa)
        setenv("GS_CPU", settings.isa, 1);
    perfCheckRecipes(&settings.recipes, perfConfig(NULL, settings.count, NULL, settings.type), settings.ranks);
    return settings;
}

int main(int argc, char **argv)
{
    settings_t settings = parse(argc, argv);
    bench_t bench = benchMake(&settings);
    FILE *json = settings.json ? perfJsonOpen(settings.json) : NULL;
    printf("# gs_stage_perf: %zu elements of %s, %d threads, %d ranks, instruction set %s; per element\n",
           settings.count, perfTypeName(settings.type), settings.threads, settings.ranks,
           settings.isa ? settings.isa : "best");
    for (int i = 0; i < settings.recipes.count; i++) {
        const char *recipe = settings.recipes.recipes[i];
        row_t rows[PASSES];
        figures_t figures = measure(&bench, recipe);
        makeRows(rows, &settings, &figures);
        printRows(rows, &settings, recipe, &figures);
        if (json)
            writeRows(json, i == 0, rows, &settings, recipe, &figures);
    }
    if (json)
        perfJsonClose(json, settings.json);
    benchFree(&bench);
    return 0;
}
