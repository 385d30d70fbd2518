/* gs_all_reduce_perf: gsAllReduce, measured as nccl-tests measure ncclAllReduce; our own columns on the right. */
#include "all_reduce_check.h"
#include "half_check.h"
#include "perf.h"
#include "train/clock.h"
#include "train/failure.h"
#include "train/options.h"
#include "train/ranks.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "gs_all_reduce_perf: gsAllReduce, timed and checked\n\n"
    "usage: gs_all_reduce_perf [flags]\n       mpirun -n N gs_all_reduce_perf --transport mpi [flags]\n\n"
    "  -b, --minbytes B        smallest gradient, with K, M or G (default 32M)\n"
    "  -e, --maxbytes B        largest (default 32M)\n"
    "  -f, --stepfactor F      from one size to the next (default 2)\n"
    "  -n, --iters N           timed calls (default 20)\n"
    "  -w, --warmup_iters N    calls before them (default 5)\n"
    "  -c, --check 0|1         check results (default 1)\n"
    "  -d, --datatype T        float, double, half or bfloat16 (default float)\n"
    "  -o, --op O              sum or avg (default sum)\n"
    "  --transport T           threads or mpi (default threads)\n"
    "  --ranks N               threads: number of ranks (default 4)\n"
    "  --recipe R              compare this recipe with dense; may be given several times\n"
    "  --collective C          all-reduce (default), reduce-scatter or all-gather, of as many elements, in slices\n"
    "                          of the ranks\n"
    "  --segments L            in place of sizes: a list of tensors, beside one of the same elements in all;\n"
    "                          gpt2 (the 148 tensors of GPT-2 124M) or elements, N1,N2,...\n"
    "  --json FILE             write the rows, a list with one object for each\n\n"
    "time is the mean over calls and ranks; all ranks start each call together. algbw is the gradient's bytes by\n"
    "time, busbw algbw times 2(n-1)/n, (n-1)/n of a half: what a dense ring would have to carry. density is the\n"
    "share of coordinates sent, wire what left a rank in one call, wirebw that by time. error is\n"
    "|result - sum|/|sum| of one call from a fresh state; with error feedback what is missing travels later.\n"
    "#wrong counts elements that differ between ranks, or from the sum of what each rank's record says, or records\n"
    "that do not fit their rank's gradient (bench/all_reduce_check.h).\n"
    "Exit code: 0 all right, 1 wrong results or a failed call, 2 a command line that makes no sense.\n";

typedef struct {
    size_t minBytes, maxBytes;
    double factor;
    int iterations, warmup;
    bool check;
    gsDataType_t type;
    gsRedOp_t op;
    int transport, ranks;
    gsCollective_t collective;
    perfRecipes_t recipes; /* dense first */
    perfList_t list;
    const char *json;
} settings_t;

/* Everything the ranks of this process have in common. */
typedef struct {
    const settings_t *settings;
    FILE *json;
    int rows;
    uint64_t wrong;
    double busbwSum;
} bench_t;

/* What one rank measured, or all of them together. */
typedef struct {
    double seconds[2]; /* of a call, out of place and in place */
    double density;
    double wireBytes;
    checkResult_t check;
} figures_t;

/* ---- one row ---- */

static void meet(const rank_t *rank)
{
    char nothing = 0;
    ranksShare(rank, &nothing, sizeof nothing);
}

/* Where the tensors of a buffer are. */
static void **tensorsOf(const perfList_t *list, const void *buffer, gsDataType_t type)
{
    void **tensors = perfAllocate(list->tensors * sizeof *tensors);
    const char *at = buffer;
    for (uint32_t t = 0; t < list->tensors; t++) {
        tensors[t] = (void *)(uintptr_t)at;
        at += list->sizes[t] * perfTypeBytes(type);
    }
    return tensors;
}

static void callOnce(const checkJob_t *job, const void *send, void **from, void **to)
{
    if (job->collective != GS_ALL_REDUCE)
        halfCall(job, send == job->result);
    else if (job->list)
        PERF_REQUIRE(gsAllReduceSegments((const void *const *)from, to, job->list->tensors, job->type, job->op,
                                         job->reducer, NULL));
    else
        PERF_REQUIRE(gsAllReduce(send, job->result, job->count, job->type, job->op, job->reducer, NULL));
}

/* Seconds of one call: the mean over the timed ones. */
static double timeCalls(const settings_t *settings, const checkJob_t *job, bool inPlace)
{
    const void *send = inPlace ? job->result : job->gradient;
    void **from = job->list ? tensorsOf(job->list, send, job->type) : NULL;
    void **to = job->list ? tensorsOf(job->list, job->result, job->type) : NULL;
    double seconds = 0.0;
    for (int i = -settings->warmup; i < settings->iterations; i++) {
        if (inPlace)
            memcpy(job->result, job->gradient, job->count * perfTypeBytes(job->type));
        meet(job->rank);
        double start = clockSeconds();
        callOnce(job, send, from, to);
        if (i >= 0)
            seconds += clockSeconds() - start;
    }
    free(from);
    free(to);
    return seconds / settings->iterations;
}

static figures_t measure(const settings_t *settings, const checkJob_t *job)
{
    figures_t figures = {0};
    gsStats_t before, after;
    PERF_REQUIRE(gsReducerGetStats(job->reducer, &before));
    for (int inPlace = 0; inPlace < 2; inPlace++)
        figures.seconds[inPlace] = timeCalls(settings, job, inPlace);
    PERF_REQUIRE(gsReducerGetStats(job->reducer, &after));
    double calls = (double)(after.calls - before.calls);
    size_t given = job->count / (job->collective == GS_ALL_GATHER ? (size_t)job->rank->ranks->count : 1);
    figures.density = (double)(after.sentTotal - before.sentTotal) / calls / (double)given;
    figures.wireBytes = (double)(after.wireBytes - before.wireBytes) / calls;
    if (settings->check)
        figures.check = job->collective == GS_ALL_REDUCE ? checkRow(job) : halfCheck(job);
    return figures;
}

/* Times and densities: the mean over ranks. Wrong elements: of records the sum, of results the most of any rank. */
static figures_t combine(const rank_t *rank, const figures_t *own)
{
    const figures_t *all = ranksShare(rank, own, sizeof *own);
    figures_t sum = {.check.relativeError = all[0].check.relativeError};
    int count = rank->ranks->count;
    for (int r = 0; r < count; r++) {
        sum.density += all[r].density / count;
        sum.wireBytes += all[r].wireBytes / count;
        sum.check.alone += all[r].check.alone;
        for (int i = 0; i < 2; i++) {
            sum.seconds[i] += all[r].seconds[i] / count;
            if (sum.check.together[i] < all[r].check.together[i])
                sum.check.together[i] = all[r].check.together[i];
        }
    }
    return sum;
}

/* ---- output ---- */

static const char *opName(gsRedOp_t op)
{
    return op == GS_AVG ? "avg" : "sum";
}

static double busShare(const settings_t *settings, int ranks)
{
    return (settings->collective == GS_ALL_REDUCE ? 2.0 : 1.0) * (ranks - 1) / ranks;
}

static uint64_t wrongOf(const figures_t *figures, int inPlace)
{
    return figures->check.alone + figures->check.together[inPlace];
}

static void printHeader(const settings_t *settings, const ranks_t *ranks)
{
    printf("# gs_all_reduce_perf: %s, %d ranks, %s; minbytes %zu maxbytes %zu step %g(factor) warmup iters %d iters %d "
           "validation %d\n#\n",
           halfName(settings->collective), ranks->count, ranks->mpi ? "MPI processes" : "threads of one process",
           settings->minBytes, settings->maxBytes, settings->factor, settings->warmup, settings->iterations,
           settings->check);
    printf("#%52s%-36s%-36s\n", "", "        out-of-place", "          in-place");
    printf("#%11s %13s %9s %7s %7s", "size", "count", "type", "redop", "root");
    for (int i = 0; i < 2; i++)
        printf(" %9s %8s %8s %7s", "time", "algbw", "busbw", "#wrong");
    printf(" %9s %11s %8s %9s  %s\n", "density", "wire", "wirebw", "error", "recipe");
    printf("#%11s %13s %9s %7s %7s", "(B)", "(elements)", "", "", "");
    for (int i = 0; i < 2; i++)
        printf(" %9s %8s %8s %7s", "(us)", "(GB/s)", "(GB/s)", "");
    printf(" %9s %11s %8s\n", "", "(B/rank)", "(GB/s)");
}

static void printHalf(const settings_t *settings, const figures_t *figures, int inPlace, double bytes, int ranks)
{
    double algbw = bytes / figures->seconds[inPlace] / 1e9;
    printf(" %9.1f %8.3f %8.3f", figures->seconds[inPlace] * 1e6, algbw, algbw * busShare(settings, ranks));
    if (settings->check)
        printf(" %7" PRIu64, wrongOf(figures, inPlace));
    else
        printf(" %7s", "N/A");
}

static void printRow(const settings_t *settings, const checkJob_t *job, const figures_t *figures)
{
    double bytes = (double)job->count * (double)perfTypeBytes(job->type);
    printf("%12.0f %13zu %9s %7s %7d", bytes, job->count, perfTypeName(job->type), opName(job->op), -1);
    for (int i = 0; i < 2; i++)
        printHalf(settings, figures, i, bytes, job->rank->ranks->count);
    printf(" %9.5f %11.0f %8.3f", figures->density, figures->wireBytes, figures->wireBytes / figures->seconds[0] / 1e9);
    if (settings->check)
        printf(" %9.2e", figures->check.relativeError);
    else
        printf(" %9s", "N/A");
    printf("  %s", job->recipe);
    if (job->list)
        printf("  %u tensors", job->list->tensors);
    printf("\n");
    fflush(stdout);
}

static void writeHalf(FILE *json, const char *name, const settings_t *settings, const figures_t *figures, int inPlace,
                      double bytes, int ranks)
{
    double algbw = bytes / figures->seconds[inPlace] / 1e9;
    fprintf(json, "   \"%s\": {\"time_us\": %.3f, \"algbw\": %.6g, \"busbw\": %.6g, \"wrong\": ", name,
            figures->seconds[inPlace] * 1e6, algbw, algbw * busShare(settings, ranks));
    if (settings->check)
        fprintf(json, "%" PRIu64 "},\n", wrongOf(figures, inPlace));
    else
        fputs("null},\n", json);
}

/* A recipe that was accepted holds no character that JSON would want escaped. */
static void writeRow(FILE *json, bool first, const settings_t *settings, const checkJob_t *job,
                     const figures_t *figures)
{
    double bytes = (double)job->count * (double)perfTypeBytes(job->type);
    int ranks = job->rank->ranks->count;
    fprintf(json, "%s{\"collective\": \"%s\", \"recipe\": \"%s\", \"transport\": \"%s\", \"ranks\": %d,\n",
            first ? "  " : ",\n  ", halfName(job->collective), job->recipe, job->rank->ranks->mpi ? "mpi" : "threads",
            ranks);
    fprintf(json,
            "   \"tensors\": %u, \"size\": %.0f, \"count\": %zu, \"type\": \"%s\", \"redop\": \"%s\", \"root\": -1,\n",
            job->list ? job->list->tensors : 1, bytes, job->count, perfTypeName(job->type), opName(job->op));
    writeHalf(json, "out_of_place", settings, figures, 0, bytes, ranks);
    writeHalf(json, "in_place", settings, figures, 1, bytes, ranks);
    fprintf(json, "   \"density\": %.6g, \"wire_bytes\": %.0f, \"wire_bandwidth\": %.6g, \"relative_error\": ",
            figures->density, figures->wireBytes, figures->wireBytes / figures->seconds[0] / 1e9);
    if (settings->check)
        fprintf(json, "%.6g}", figures->check.relativeError);
    else
        fputs("null}", json);
}

/* By one rank of each process; the first rank also prints. */
static void record(bench_t *bench, const checkJob_t *job, const figures_t *figures)
{
    for (int i = 0; i < 2; i++) {
        double bytes = (double)job->count * (double)perfTypeBytes(job->type);
        bench->busbwSum += bytes / figures->seconds[i] / 1e9 * busShare(bench->settings, job->rank->ranks->count);
        bench->wrong += wrongOf(figures, i);
    }
    if (job->rank->number == 0)
        printRow(bench->settings, job, figures);
    if (bench->json)
        writeRow(bench->json, bench->rows == 0, bench->settings, job, figures);
    bench->rows++;
}

/* ---- all rows ---- */

/* Elements of a gradient of so many bytes: some, and whole slices. */
static size_t countOf(const settings_t *settings, size_t bytes, int ranks)
{
    size_t width = perfTypeBytes(settings->type), count = bytes / width ? bytes / width : 1;
    size_t slices = settings->collective == GS_ALL_REDUCE ? 1 : (size_t)ranks;
    return (count + slices - 1) / slices * slices;
}

static gsReducerConfig_t configOf(const settings_t *settings, const char *recipe, size_t count, const perfList_t *list)
{
    gsReducerConfig_t config = perfConfig(recipe, count, list, settings->type);
    config.collective = (int32_t)settings->collective;
    return config;
}

static void runRow(bench_t *bench, checkJob_t *job)
{
    gsReducerConfig_t config = configOf(bench->settings, job->recipe, job->count, job->list);
    config.seed = 1;
    PERF_REQUIRE(gsReducerCreate(&job->reducer, job->rank->comm, &config));
    figures_t own = measure(bench->settings, job);
    figures_t all = combine(job->rank, &own);
    if (rankLeads(job->rank))
        record(bench, job, &all);
    PERF_REQUIRE(gsReducerDestroy(job->reducer));
}

static void runSize(bench_t *bench, const rank_t *rank, size_t bytes)
{
    const settings_t *settings = bench->settings;
    size_t width = perfTypeBytes(settings->type), count = countOf(settings, bytes, rank->ranks->count);
    void *gradient = perfAllocate(count * width), *result = perfAllocate(count * width);
    checkJob_t job = {.rank = rank,
                      .gradient = gradient,
                      .result = result,
                      .count = count,
                      .type = settings->type,
                      .op = settings->op,
                      .collective = settings->collective};
    perfGradient(gradient, count, job.type, rank->number);
    for (int i = 0; i < settings->recipes.count; i++) {
        job.recipe = settings->recipes.recipes[i];
        job.list = NULL;
        runRow(bench, &job);
        job.list = &settings->list;
        if (settings->list.tensors)
            runRow(bench, &job);
    }
    free(gradient);
    free(result);
}

static void runRank(const rank_t *rank, void *context)
{
    bench_t *bench = context;
    const settings_t *settings = bench->settings;
    for (double bytes = (double)settings->minBytes; bytes <= (double)settings->maxBytes; bytes *= settings->factor)
        runSize(bench, rank, (size_t)bytes);
}

/* ---- command line ---- */

static int parseChoice(const char *flag, const char *text, const char *first, const char *second)
{
    if (strcmp(text, first) != 0 && strcmp(text, second) != 0)
        perfStop(PERF_EXIT_USAGE, "%s: got '%s', expected %s or %s", flag, text, first, second);
    return strcmp(text, second) == 0;
}

enum { FLAG_TRANSPORT = 256, FLAG_RANKS, FLAG_RECIPE, FLAG_COLLECTIVE, FLAG_SEGMENTS, FLAG_JSON, FLAG_HELP };

static const struct option flags[] = {
    {"minbytes", required_argument, NULL, 'b'},
    {"maxbytes", required_argument, NULL, 'e'},
    {"stepfactor", required_argument, NULL, 'f'},
    {"iters", required_argument, NULL, 'n'},
    {"warmup_iters", required_argument, NULL, 'w'},
    {"check", required_argument, NULL, 'c'},
    {"datatype", required_argument, NULL, 'd'},
    {"op", required_argument, NULL, 'o'},
    {"transport", required_argument, NULL, FLAG_TRANSPORT},
    {"ranks", required_argument, NULL, FLAG_RANKS},
    {"recipe", required_argument, NULL, FLAG_RECIPE},
    {"collective", required_argument, NULL, FLAG_COLLECTIVE},
    {"segments", required_argument, NULL, FLAG_SEGMENTS},
    {"json", required_argument, NULL, FLAG_JSON},
    {"help", no_argument, NULL, FLAG_HELP},
    {0},
};

static gsCollective_t parseCollective(const char *text)
{
    for (int c = GS_ALL_REDUCE; c <= GS_ALL_GATHER; c++)
        if (strcmp(text, halfName((gsCollective_t)c)) == 0)
            return (gsCollective_t)c;
    perfStop(PERF_EXIT_USAGE, "--collective: got '%s', expected all-reduce, reduce-scatter or all-gather", text);
}

static void takeFlag(settings_t *settings, int flag)
{
    switch (flag) {
    case 'b': settings->minBytes = perfSize("-b", optarg); break;
    case 'e': settings->maxBytes = perfSize("-e", optarg); break;
    case 'f': settings->factor = perfNumber("-f", optarg, 1.001, 1e9); break;
    case 'n': settings->iterations = (int)perfNumber("-n", optarg, 1, 1e9); break;
    case 'w': settings->warmup = (int)perfNumber("-w", optarg, 0, 1e9); break;
    case 'c': settings->check = perfNumber("-c", optarg, 0, 1e9) >= 1; break;
    case 'd': settings->type = perfType("-d", optarg); break;
    case 'o': settings->op = parseChoice("-o", optarg, "sum", "avg") ? GS_AVG : GS_SUM; break;
    case FLAG_TRANSPORT:
        settings->transport = parseChoice("--transport", optarg, "threads", "mpi") ? TRANSPORT_MPI : TRANSPORT_THREADS;
        break;
    case FLAG_RANKS: settings->ranks = (int)perfNumber("--ranks", optarg, 1, 1024); break;
    case FLAG_RECIPE: perfAddRecipe(&settings->recipes, optarg); break;
    case FLAG_COLLECTIVE: settings->collective = parseCollective(optarg); break;
    case FLAG_SEGMENTS: settings->list = perfList("--segments", optarg); break;
    case FLAG_JSON: settings->json = optarg; break;
    case FLAG_HELP: fputs(help, stdout); exit(0);
    default: perfStop(PERF_EXIT_USAGE, "--help lists the flags");
    }
}

static settings_t parse(int argc, char **argv)
{
    settings_t settings = {.minBytes = 32 << 20,
                           .maxBytes = 32 << 20,
                           .factor = 2.0,
                           .iterations = 20,
                           .warmup = 5,
                           .check = true,
                           .type = GS_FLOAT32,
                           .op = GS_SUM,
                           .transport = TRANSPORT_THREADS};
    int flag;
    perfAddRecipe(&settings.recipes, "dense");
    while ((flag = getopt_long(argc, argv, "b:e:f:n:w:c:d:o:h", flags, NULL)) != -1)
        takeFlag(&settings, flag == 'h' ? FLAG_HELP : flag);
    if (optind < argc)
        perfStop(PERF_EXIT_USAGE, "'%s' is no flag; --help lists them", argv[optind]);
    if (settings.list.tensors)
        settings.minBytes = settings.maxBytes = settings.list.elements * perfTypeBytes(settings.type);
    if (settings.list.tensors && settings.collective != GS_ALL_REDUCE)
        perfStop(PERF_EXIT_USAGE, "--segments: tensors go with --collective all-reduce alone");
    if (settings.minBytes > settings.maxBytes)
        perfStop(PERF_EXIT_USAGE, "-b %zu -e %zu: no size from the one to the other", settings.minBytes,
                 settings.maxBytes);
    return settings;
}

int main(int argc, char **argv)
{
    settings_t settings = parse(argc, argv);
    bench_t bench = {.settings = &settings};
    ranks_t ranks;
    ranksStart(&ranks, settings.transport, settings.ranks);
    perfCheckRecipes(&settings.recipes,
                     configOf(&settings, NULL, countOf(&settings, settings.maxBytes, ranks.count), &settings.list),
                     ranks.count);
    if (!ranksCheck(&ranks, settings.transport, settings.ranks) || !ranksConnect(&ranks))
        perfStop(PERF_EXIT_USAGE, "%s", failureText());
    if (ranks.first == 0 && settings.json)
        bench.json = perfJsonOpen(settings.json);
    if (ranks.first == 0)
        printHeader(&settings, &ranks);
    ranksRun(&ranks, runRank, &bench);
    if (bench.json)
        perfJsonClose(bench.json, settings.json);
    if (ranks.first == 0)
        printf("# Out of bounds values : %" PRIu64 " %s\n# Avg bus bandwidth    : %g\n", bench.wrong,
               !settings.check ? "not checked"
               : bench.wrong   ? "FAILED"
                               : "OK",
               bench.busbwSum / (2.0 * bench.rows));
    ranksStop(&ranks);
    free(settings.list.sizes);
    return bench.wrong ? PERF_EXIT_WRONG : 0;
}
