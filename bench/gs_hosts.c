/* gs_hosts: gsAllReduce beside MPI_Allreduce, over whatever lies between the ranks. */
#include "perf.h"
#include "train/clock.h"
#include "train/failure.h"
#include "train/options.h"
#include "train/ranks.h"

#include <getopt.h>
#include <mpi.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "gs_hosts: gradients, summed by MPI_Allreduce and by gsAllReduce, in one run\n\n"
    "usage: mpirun -n N gs_hosts [flags]\n\n"
    "  --count N       elements, with K, M or G (default 25557032, a ResNet-50)\n"
    "  --recipe R      measure this recipe on float32; may be given several times\n"
    "  --calls N       timed calls of a row, at most (default 10)\n"
    "  --seconds S     no further call of a row after these (default 10)\n"
    "  --warmup N      calls of a recipe before the timed ones (default 5; dense rows take 1)\n"
    "  --json FILE     write the rows, a list with one object for each\n\n"
    "The first rows are MPI's own sum of float32 and gradsieve's dense sum of bfloat16. Each call sums another\n"
    "gradient, as in training. time is the median over calls of the slowest rank's, all ranks starting together.\n"
    "encode and decode are the codec's part of it and exchange the rest, waiting for slower ranks included: means\n"
    "over calls and ranks. wire is what left a rank in one call. The last columns say how many times faster than\n"
    "the first two rows a row is.\n";

enum { MAX_CALLS = 1000 };

/*
 * Successive gradients of a training are nearly independent. One that stays the same grows in every residual alike, and thresholds let
 * it out in waves. So each call sums another window of one long vector: 64 windows, whole cache lines apart.
 */
enum { WINDOWS = 64, WINDOW_STEP = 4096 + 16, SPARE = WINDOWS * WINDOW_STEP };

static const char mpiRow[] = "MPI_Allreduce";

typedef struct {
    size_t count;
    int calls, warmup;
    double seconds;
    perfRecipes_t recipes;
    const char *json;
} settings_t;

/* What all rows share. */
typedef struct {
    const settings_t *settings;
    const rank_t *rank;
    float *gradient;  /* of SPARE elements more, as `narrow` */
    uint16_t *narrow; /* the same in bfloat16 */
    float *result;
    int calls;
    double baseline[2]; /* milliseconds of the first two rows */
    int rows;
    FILE *json;
} bench_t;

typedef struct {
    const char *name;
    gsDataType_t type;
    gsReducer_t reducer; /* NULL: MPI's own sum */
} row_t;

/* Milliseconds, and bytes that left a rank. */
typedef struct {
    double time, least, encode, exchange, decode;
    double wire;
} figures_t;

/* ---- one row ---- */

static double callOnce(bench_t *bench, const row_t *row)
{
    size_t count = bench->settings->count, window = (size_t)(bench->calls++ % WINDOWS) * WINDOW_STEP;
    const float *gradient = bench->gradient + window;
    const uint16_t *narrow = bench->narrow + window;
    MPI_Barrier(MPI_COMM_WORLD);
    double start = clockSeconds(), seconds;
    if (row->reducer)
        PERF_REQUIRE(gsAllReduce(row->type == GS_BFLOAT16 ? (const void *)narrow : gradient, bench->result, count,
                                 row->type, GS_SUM, row->reducer, NULL));
    else
        MPI_Allreduce(gradient, bench->result, (int)count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
    seconds = clockSeconds() - start;
    MPI_Allreduce(MPI_IN_PLACE, &seconds, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    return 1e3 * seconds;
}

static int byTime(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Every rank has the slowest one's times, so that all stop after the same call. */
static int callMany(bench_t *bench, const row_t *row, double *times)
{
    const settings_t *settings = bench->settings;
    int calls = 0;
    double total = 0.0;
    while (calls < settings->calls && (calls == 0 || total < 1e3 * settings->seconds))
        total += times[calls++] = callOnce(bench, row);
    qsort(times, (size_t)calls, sizeof *times, byTime);
    return calls;
}

static gsStats_t statsOf(const row_t *row)
{
    gsStats_t stats = {0};
    if (row->reducer)
        PERF_REQUIRE(gsReducerGetStats(row->reducer, &stats));
    return stats;
}

static double overRanks(const bench_t *bench, double mine)
{
    int ranks = bench->rank->ranks->count;
    MPI_Allreduce(MPI_IN_PLACE, &mine, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    return mine / ranks;
}

/* MPI does not tell what left a rank: what an all-reduce cannot do without is said instead. */
static double leastWire(const bench_t *bench)
{
    int ranks = bench->rank->ranks->count;
    return 2.0 * (ranks - 1) / ranks * (double)bench->settings->count * sizeof(float);
}

static figures_t measure(bench_t *bench, const row_t *row)
{
    double times[MAX_CALLS];
    bool sparse = row->reducer && strcmp(row->name, "dense") != 0;
    for (int i = 0; i < (sparse ? bench->settings->warmup : 1); i++)
        callOnce(bench, row);
    gsStats_t before = statsOf(row);
    int calls = callMany(bench, row, times);
    gsStats_t after = statsOf(row);
    double perCall = 1e3 / calls;
    return (figures_t){.time = times[calls / 2],
                       .least = times[0],
                       .encode = overRanks(bench, (after.encodeSeconds - before.encodeSeconds) * perCall),
                       .exchange = overRanks(bench, (after.exchangeSeconds - before.exchangeSeconds) * perCall),
                       .decode = overRanks(bench, (after.decodeSeconds - before.decodeSeconds) * perCall),
                       .wire = row->reducer ? overRanks(bench, (double)(after.wireBytes - before.wireBytes) / calls)
                                            : leastWire(bench)};
}

/* ---- output ---- */

static void printHeader(const settings_t *settings, const ranks_t *ranks)
{
    char version[MPI_MAX_LIBRARY_VERSION_STRING];
    int length;
    MPI_Get_library_version(version, &length);
    printf("# %d ranks, %zu elements; %.*s\n", ranks->count, settings->count, (int)strcspn(version, ","), version);
    printf("# %-9s %9s %9s %9s %9s %11s %8s %8s  %-8s %s\n", "time", "least", "encode", "exchange", "decode", "wire",
           "x MPI", "x bf16", "type", "recipe");
    printf("# %-9s %9s %9s %9s %9s %11s\n", "(ms)", "(ms)", "(ms)", "(ms)", "(ms)", "(B/rank)");
}

static void printRow(const bench_t *bench, const row_t *row, const figures_t *f)
{
    printf("%11.2f %9.2f %9.2f %9.2f %9.2f %11.0f %8.2f ", f->time, f->least, f->encode, f->exchange, f->decode,
           f->wire, bench->baseline[0] / f->time);
    if (bench->rows)
        printf("%8.2f", bench->baseline[1] / f->time);
    else
        printf("%8s", "-");
    printf("  %-8s %s\n", perfTypeName(row->type), row->name);
    fflush(stdout);
}

/* A recipe that was accepted holds no character that JSON would want escaped. */
static void writeRow(const bench_t *bench, const row_t *row, const figures_t *f)
{
    fprintf(bench->json,
            "%s{\"recipe\": \"%s\", \"type\": \"%s\", \"ranks\": %d, \"count\": %zu, \"time_ms\": %.3f, \"least_ms\": "
            "%.3f,\n   \"encode_ms\": %.3f, \"exchange_ms\": %.3f, \"decode_ms\": %.3f, \"wire_bytes\": %.0f}",
            bench->rows ? ",\n  " : "  ", row->name, perfTypeName(row->type), bench->rank->ranks->count,
            bench->settings->count, f->time, f->least, f->encode, f->exchange, f->decode, f->wire);
}

static void runRow(bench_t *bench, const row_t *row)
{
    figures_t figures = measure(bench, row);
    if (bench->rows < 2)
        bench->baseline[bench->rows] = figures.time;
    if (bench->rank->number == 0)
        printRow(bench, row, &figures);
    if (bench->json)
        writeRow(bench, row, &figures);
    bench->rows++;
}

/* A recipe that cannot run between these ranks is told, and the others are measured. */
static void runRecipe(bench_t *bench, const char *recipe, gsDataType_t type)
{
    gsReducerConfig_t config = GS_REDUCER_CONFIG_INIT;
    row_t row = {recipe, type, NULL};
    config.datatype = type;
    config.recipe = recipe;
    config.count = bench->settings->count;
    config.seed = 1;
    if (gsReducerCreate(&row.reducer, bench->rank->comm, &config) != GS_SUCCESS) {
        if (bench->rank->number == 0)
            printf("# %s: %s\n", recipe, gsGetLastError());
        return;
    }
    runRow(bench, &row);
    PERF_REQUIRE(gsReducerDestroy(row.reducer));
}

static void narrow(const bench_t *bench, size_t count)
{
    for (size_t i = 0; i < count; i++)
        bench->narrow[i] = gsToBf16(bench->gradient[i]);
}

static void runRank(const rank_t *rank, void *context)
{
    bench_t *bench = context;
    const settings_t *settings = bench->settings;
    const size_t count = settings->count + SPARE;
    bench->rank = rank;
    bench->gradient = perfAllocate(count * sizeof *bench->gradient);
    bench->narrow = perfAllocate(count * sizeof *bench->narrow);
    bench->result = perfAllocate(settings->count * sizeof *bench->result);
    perfGradient(bench->gradient, count, GS_FLOAT32, rank->number);
    narrow(bench, count);
    runRow(bench, &(row_t){mpiRow, GS_FLOAT32, NULL});
    runRecipe(bench, "dense", GS_BFLOAT16);
    for (int i = 0; i < settings->recipes.count; i++)
        runRecipe(bench, settings->recipes.recipes[i], GS_FLOAT32);
    free(bench->gradient);
    free(bench->narrow);
    free(bench->result);
}

/* ---- command line ---- */

enum { FLAG_COUNT = 256, FLAG_RECIPE, FLAG_CALLS, FLAG_SECONDS, FLAG_WARMUP, FLAG_JSON, FLAG_HELP };

static const struct option flags[] = {
    {"count", required_argument, NULL, FLAG_COUNT},   {"recipe", required_argument, NULL, FLAG_RECIPE},
    {"calls", required_argument, NULL, FLAG_CALLS},   {"seconds", required_argument, NULL, FLAG_SECONDS},
    {"warmup", required_argument, NULL, FLAG_WARMUP}, {"json", required_argument, NULL, FLAG_JSON},
    {"help", no_argument, NULL, FLAG_HELP},           {0},
};

static void takeFlag(settings_t *settings, int flag)
{
    switch (flag) {
    case FLAG_COUNT: settings->count = perfSize("--count", optarg); break;
    case FLAG_RECIPE: perfAddRecipe(&settings->recipes, optarg); break;
    case FLAG_CALLS: settings->calls = (int)perfNumber("--calls", optarg, 1, MAX_CALLS); break;
    case FLAG_SECONDS: settings->seconds = perfNumber("--seconds", optarg, 0, 1e6); break;
    case FLAG_WARMUP: settings->warmup = (int)perfNumber("--warmup", optarg, 0, MAX_CALLS); break;
    case FLAG_JSON: settings->json = optarg; break;
    case FLAG_HELP: fputs(help, stdout); exit(0);
    default: perfStop(PERF_EXIT_USAGE, "--help lists the flags");
    }
}

static settings_t parse(int argc, char **argv)
{
    settings_t settings = {.count = 25557032, .calls = 10, .seconds = 10.0, .warmup = 5};
    int flag;
    while ((flag = getopt_long(argc, argv, "", flags, NULL)) != -1)
        takeFlag(&settings, flag);
    if (optind < argc)
        perfStop(PERF_EXIT_USAGE, "'%s' is no flag; --help lists them", argv[optind]);
    if (settings.count > INT32_MAX)
        perfStop(PERF_EXIT_USAGE, "--count: got %zu, expected at most 2147483647, MPI_Allreduce's most",
                 settings.count);
    return settings;
}

int main(int argc, char **argv)
{
    settings_t settings = parse(argc, argv);
    bench_t bench = {.settings = &settings};
    ranks_t ranks;
    ranksStart(&ranks, TRANSPORT_MPI, 0);
    if (!ranksConnect(&ranks))
        perfStop(PERF_EXIT_USAGE, "%s", failureText());
    if (ranks.first == 0 && settings.json)
        bench.json = perfJsonOpen(settings.json);
    if (ranks.first == 0)
        printHeader(&settings, &ranks);
    ranksRun(&ranks, runRank, &bench);
    if (bench.json)
        perfJsonClose(bench.json, settings.json);
    ranksStop(&ranks);
    return 0;
}
