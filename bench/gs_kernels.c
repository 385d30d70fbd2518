/* gs_kernels: encode and decode on a CUDA device, against the device's own copy; the work that gs_kernels.sh counts. */
#define GS_ADVANCED
#include "perf.h"

#include <cuda_runtime_api.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "gs_kernels: the stages on a CUDA device\n\n"
    "usage: gs_kernels [flags]\n\n"
    "  --recipe R      measure this recipe; may be given several times (default: five of them)\n"
    "  --count N       elements, with K, M or G (default 25557032, a ResNet-50)\n"
    "  --dtype T       float or bfloat16 (default float)\n"
    "  --steps N       timed steps (default 20)\n"
    "  --warmup N      steps before them (default 20)\n\n"
    "ns are per element, by CUDA events, the mean of the steps. The floor of encode is the gradient read and, with\n"
    "feedback, 4 bytes read and 4 written, at the speed of a device-to-device copy of the same run; of decode, of one\n"
    "record, the result written at the speed of a memset.\n";

typedef struct {
    perfRecipes_t recipes;
    size_t count;
    gsDataType_t type;
    int steps, warmup;
} settings_t;

static void require(cudaError_t error, const char *call)
{
    if (error != cudaSuccess)
        perfStop(PERF_EXIT_WRONG, "%s: %s", call, cudaGetErrorString(error));
}
#define CUDA_REQUIRE(call) require((call), #call)

static settings_t parse(int argc, char **argv)
{
    enum { RECIPE = 1, COUNT, DTYPE, STEPS, WARMUP, HELP };
    static const struct option flags[] = {{"recipe", 1, NULL, RECIPE}, {"count", 1, NULL, COUNT},
                                          {"dtype", 1, NULL, DTYPE},   {"steps", 1, NULL, STEPS},
                                          {"warmup", 1, NULL, WARMUP}, {"help", 0, NULL, HELP},
                                          {NULL, 0, NULL, 0}};
    static const char *const usual[] = {"threshold:density=0.01", "chunk-topk:k=64", "gspar:density=0.01",
                                        "gspar:density=0.01,value=shared", "randk:density=0.01"};
    settings_t s = {.count = 25557032, .type = GS_FLOAT32, .steps = 20, .warmup = 20};
    int flag;
    while ((flag = getopt_long(argc, argv, "", flags, NULL)) != -1) {
        switch (flag) {
        case RECIPE: perfAddRecipe(&s.recipes, optarg); break;
        case COUNT: s.count = perfSize("--count", optarg); break;
        case DTYPE: s.type = perfType("--dtype", optarg); break;
        case STEPS: s.steps = (int)perfNumber("--steps", optarg, 1, 1e6); break;
        case WARMUP: s.warmup = (int)perfNumber("--warmup", optarg, 0, 1e6); break;
        case HELP: fputs(help, stdout); exit(0);
        default: exit(PERF_EXIT_USAGE);
        }
    }
    if (optind < argc)
        perfStop(PERF_EXIT_USAGE, "%s: not a flag; see --help", argv[optind]);
    if (s.recipes.count == 0)
        for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
            perfAddRecipe(&s.recipes, usual[i]);
    perfCheckRecipes(&s.recipes, perfConfig(NULL, s.count, NULL, s.type), 1);
    return s;
}

/* Everything on the device, for all recipes. */
typedef struct {
    const settings_t *settings;
    size_t bytes; /* of the gradient */
    void *gradient, *result;
    cudaStream_t stream;
    cudaEvent_t begin, end;
} bench_t;

static bench_t benchMake(const settings_t *s)
{
    bench_t b = {.settings = s, .bytes = s->count * perfTypeBytes(s->type)};
    void *host = perfAllocate(b.bytes);
    CUDA_REQUIRE(cudaMalloc(&b.gradient, b.bytes));
    CUDA_REQUIRE(cudaMalloc(&b.result, b.bytes));
    perfGradient(host, s->count, s->type, 0);
    CUDA_REQUIRE(cudaMemcpy(b.gradient, host, b.bytes, cudaMemcpyHostToDevice));
    CUDA_REQUIRE(cudaMemset(b.result, 0, b.bytes));
    CUDA_REQUIRE(cudaStreamCreate(&b.stream));
    CUDA_REQUIRE(cudaEventCreate(&b.begin));
    CUDA_REQUIRE(cudaEventCreate(&b.end));
    free(host);
    return b;
}

static void benchFree(bench_t *b)
{
    CUDA_REQUIRE(cudaEventDestroy(b->begin));
    CUDA_REQUIRE(cudaEventDestroy(b->end));
    CUDA_REQUIRE(cudaStreamDestroy(b->stream));
    CUDA_REQUIRE(cudaFree(b->gradient));
    CUDA_REQUIRE(cudaFree(b->result));
}

static void lapBegin(bench_t *b)
{
    CUDA_REQUIRE(cudaEventRecord(b->begin, b->stream));
}

/* Nanoseconds an element since lapBegin. */
static double lapEnd(bench_t *b)
{
    float ms;
    CUDA_REQUIRE(cudaEventRecord(b->end, b->stream));
    CUDA_REQUIRE(cudaEventSynchronize(b->end));
    CUDA_REQUIRE(cudaEventElapsedTime(&ms, b->begin, b->end));
    return 1e6 * (double)ms / (double)b->settings->count;
}

/* Nanoseconds that a byte, read or written, takes in a copy, and a byte written in a memset. */
typedef struct {
    double copy, fill;
} memory_t;

static memory_t measureMemory(bench_t *b)
{
    memory_t m = {0, 0};
    for (int i = 0; i < b->settings->warmup + b->settings->steps; i++) {
        lapBegin(b);
        CUDA_REQUIRE(cudaMemcpyAsync(b->result, b->gradient, b->bytes, cudaMemcpyDeviceToDevice, b->stream));
        double copy = lapEnd(b);
        lapBegin(b);
        CUDA_REQUIRE(cudaMemsetAsync(b->result, 0, b->bytes, b->stream));
        double fill = lapEnd(b);
        if (i >= b->settings->warmup) {
            m.copy += copy / b->settings->steps;
            m.fill += fill / b->settings->steps;
        }
    }
    m.copy /= 2.0 * (double)perfTypeBytes(b->settings->type);
    m.fill /= (double)perfTypeBytes(b->settings->type);
    return m;
}

static void measure(bench_t *b, const char *recipe, memory_t memory)
{
    const settings_t *s = b->settings;
    gsReducerConfig_t config = GS_REDUCER_CONFIG_INIT;
    gsComm_t comm;
    gsReducer_t reducer;
    gsStats_t stats;
    size_t slotBytes;
    void *record;
    double encode = 0, decode = 0;
    config.recipe = recipe;
    config.count = s->count;
    config.datatype = s->type;
    PERF_REQUIRE(gsCommInitStagesCuda(&comm, 0, 1, NULL));
    PERF_REQUIRE(gsReducerCreate(&reducer, comm, &config));
    PERF_REQUIRE(gsReducerGetSlotBytes(reducer, &slotBytes));
    CUDA_REQUIRE(cudaMalloc(&record, slotBytes));
    for (int i = 0; i < s->warmup + s->steps; i++) {
        lapBegin(b);
        PERF_REQUIRE(gsEncode(b->gradient, record, s->count, s->type, reducer, b->stream));
        double encodeOne = lapEnd(b);
        lapBegin(b);
        PERF_REQUIRE(gsDecode(record, b->result, s->count, s->type, GS_SUM, reducer, b->stream));
        double decodeOne = lapEnd(b);
        if (i >= s->warmup) {
            encode += encodeOne / s->steps;
            decode += decodeOne / s->steps;
        }
    }
    PERF_REQUIRE(gsReducerGetStats(reducer, &stats));
    if (stats.calls != (uint64_t)(s->warmup + s->steps))
        perfStop(PERF_EXIT_WRONG, "%s: %d calls, %llu of them went well", recipe, s->warmup + s->steps,
                 (unsigned long long)stats.calls);
    size_t width = perfTypeBytes(s->type);
    double encodeFloor = (double)(width + (perfKindOf(recipe, s->count, s->type, 1).feedback ? 8 : 0)) * memory.copy;
    double decodeFloor = (double)width * memory.fill;
    printf("%-34s %-8s %9.4f %8.4f %6.2f %9.4f %8.4f %6.2f %9.3f %8.4f\n", recipe, perfTypeName(s->type), encode,
           encodeFloor, encode / encodeFloor, decode, decodeFloor, decode / decodeFloor,
           100.0 * (double)stats.lastSent / (double)s->count,
           (double)stats.payloadBytes / (double)stats.calls / (double)s->count);
    CUDA_REQUIRE(cudaFree(record));
    PERF_REQUIRE(gsReducerDestroy(reducer));
    PERF_REQUIRE(gsCommDestroy(comm));
}

int main(int argc, char **argv)
{
    settings_t settings = parse(argc, argv);
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0)
        perfStop(PERF_EXIT_WRONG, "no CUDA device");
    bench_t bench = benchMake(&settings);
    memory_t memory = measureMemory(&bench);
    printf("# %zu elements; copy %.1f GB/s, memset %.1f GB/s; ns and bytes are per element\n", settings.count,
           1 / memory.copy, 1 / memory.fill);
    printf("# %-32s %-8s %9s %8s %6s %9s %8s %6s %9s %8s\n", "recipe", "type", "encode ns", "floor", "ratio",
           "decode ns", "floor", "ratio", "sent %", "payload");
    for (int i = 0; i < settings.recipes.count; i++)
        measure(&bench, settings.recipes.recipes[i], memory);
    benchFree(&bench);
    return 0;
}
