/*
 * A data-parallel job like others': it calls NCCL, checks its sums, and knows nothing of gradsieve, under which test_preload.sh runs it.
 *
 *   preload_job [OPTION...] SCRIPT     a step makes the reductions that SCRIPT's letters name
 *
 *     a  float32, sum, out of place      b c d  float32, average, in place, equal sizes     h i j k  bfloat16, average, in place
 *     x y  like b, second communicator   l  one float32   n  integers   m  maximum   ( )  a group
 *     reduce-scatters: s  like a   t  like b, in place   u  like h, in place   w  like s, second communicator
 *
 *   -r N   ranks (2)       -m threads|processes|one   a thread or a process a rank, or one thread for all
 *   -n N   steps (20)      -z N   steps with gradients of 0 after them, which bring what was kept back
 *   -g     steps are captured once the first 8 are through, and replayed      -t SCRIPT   takes over after half of the steps
 *   -i HOW what the last rank does wrong in the middle: skips a call, or halves its count; or an abort of the first rank's
 *
 *   -d FILE   loads FILE, another NCCL, as plugins bring it      -e NAME=VALUE   the last process's environment
 *
 * Gradients are small integers, so that sums are exact in any order. Prints "exact E of N, sums conserved|LOST, ranks equal|DIFFER"; exit
 * code 1 where something was lost or differs, 3 where a call failed, 77 without a device a rank.
 */
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <nccl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_RANKS = 4, LETTERS = 26, WARM_STEPS = 8 };

static struct {
    int ranks, steps, zeros;
    const char *mode, *script, *then, *irregular, *other;
    char *environment;
    bool graph;
} job = {2, 20, 0, "threads", NULL, NULL, "", NULL, NULL, false};

/* Of all ranks, be they threads or processes. */
static struct {
    ncclUniqueId id;
    atomic_int ready, failed;
    atomic_ulong sums[MAX_RANKS]; /* of all results' bytes */
    atomic_int exact[MAX_RANKS], calls[MAX_RANKS], lost[MAX_RANKS];
} * shared;

typedef struct {
    size_t count;
    ncclDataType_t type;
    ncclRedOp_t op;
    bool inPlace;
    int comm;
    bool scatter; /* a reduce-scatter of `count` elements in all */
} kind_t;

static kind_t kindOf(char letter)
{
    switch (letter) {
    case 'a': return (kind_t){8292, ncclFloat, ncclSum, false, 0, false};
    case 'l': return (kind_t){1, ncclFloat, ncclSum, true, 0, false};
    case 'n': return (kind_t){8192, ncclInt32, ncclSum, true, 0, false};
    case 'm': return (kind_t){8192, ncclFloat, ncclMax, true, 0, false};
    case 's': return (kind_t){8292, ncclFloat, ncclSum, false, 0, true};
    case 't': return (kind_t){8192, ncclFloat, ncclAvg, true, 0, true};
    case 'u': return (kind_t){8192, ncclBfloat16, ncclAvg, true, 0, true};
    case 'w': return (kind_t){8292, ncclFloat, ncclSum, false, 1, true};
    case 'x':
    case 'y': return (kind_t){8192, ncclFloat, ncclAvg, true, 1, false};
    case 'h':
    case 'i': return (kind_t){8192, ncclBfloat16, ncclAvg, true, 0, false};
    case 'j':
    case 'k': return (kind_t){4096, ncclBfloat16, ncclAvg, true, 0, false};
    default: return (kind_t){8192, ncclFloat, ncclAvg, true, 0, false};
    }
}

static size_t widthOf(ncclDataType_t type)
{
    return type == ncclBfloat16 ? 2 : 4;
}

/* Elements of a result. */
static size_t gotOf(const kind_t *k)
{
    return k->scatter ? k->count / (size_t)job.ranks : k->count;
}

/* ---- ranks ---- */

typedef struct {
    int rank;
    ncclComm_t comms[2];
    cudaStream_t stream;
    void *send[LETTERS], *recv[LETTERS];
    float *wanted[LETTERS], *got[LETTERS]; /* sums over the steps */
    cudaGraphExec_t graph;
} rank_t;

static void check(int code, const char *what)
{
    if (code == 0)
        return;
    fprintf(stderr, "%s: %d\n", what, code);
    shared->failed = 1;
}

#define CHECK(call) check((int)(call), #call)

static void pack(void *to, const float *from, const kind_t *k)
{
    for (size_t i = 0; i < k->count; i++) {
        uint32_t bits;
        int32_t whole = (int32_t)from[i];
        memcpy(&bits, &from[i], 4);
        if (k->type == ncclBfloat16)
            ((uint16_t *)to)[i] = (uint16_t)(bits >> 16);
        else
            memcpy((char *)to + 4 * i, k->type == ncclInt32 ? (void *)&whole : (void *)&bits, 4);
    }
}

static void unpack(float *to, const void *from, size_t count, ncclDataType_t type)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t bits =
            type == ncclBfloat16 ? (uint32_t)((const uint16_t *)from)[i] << 16 : ((const uint32_t *)from)[i];
        if (type == ncclInt32)
            to[i] = (float)(int32_t)bits;
        else
            memcpy(&to[i], &bits, 4);
    }
}

/* Multiples of 4: averages over 2 and 4 ranks are exact, in bfloat16 too. */
static float gradientOf(int rank, int step, char letter, size_t i)
{
    uint64_t x =
        ((uint64_t)step * 131 + (uint64_t)letter) * 0x9e3779b97f4a7c15u + i * 0xbf58476d1ce4e5b9u + (uint64_t)rank;
    x = (x ^ x >> 31) * 0x94d049bb133111ebu;
    return step >= job.steps ? 0.0f : (float)((int)((x >> 40) % 5) - 2) * 4;
}

static float sumOf(int step, char letter, size_t i, ncclRedOp_t op)
{
    float sum = gradientOf(0, step, letter, i);
    for (int r = 1; r < job.ranks; r++) {
        float g = gradientOf(r, step, letter, i);
        sum = op == ncclMax ? (g > sum ? g : sum) : sum + g;
    }
    return op == ncclAvg ? sum / (float)job.ranks : sum;
}

static void makeBuffers(rank_t *r)
{
    for (int b = 0; b < LETTERS; b++) {
        kind_t k = kindOf((char)('a' + b));
        CHECK(cudaMalloc(&r->send[b], k.count * 4));
        CHECK(cudaMalloc(&r->recv[b], k.count * 4));
        CHECK(cudaMemsetAsync(r->recv[b], 0, k.count * 4, r->stream));
        r->wanted[b] = calloc(k.count, 4);
        r->got[b] = calloc(k.count, 4);
    }
}

static void upload(rank_t *r, int step, const char *script)
{
    for (const char *at = script; *at; at++) {
        if (*at == '(' || *at == ')')
            continue;
        kind_t k = kindOf(*at);
        float *values = malloc(k.count * 4);
        void *raw = malloc(k.count * 4);
        for (size_t i = 0; i < k.count; i++)
            values[i] = gradientOf(r->rank, step, *at, i);
        pack(raw, values, &k);
        CHECK(cudaMemcpyAsync(r->send[*at - 'a'], raw, k.count * widthOf(k.type), cudaMemcpyHostToDevice, r->stream));
        CHECK(cudaStreamSynchronize(r->stream));
        free(values);
        free(raw);
    }
}

static void addSum(int rank, const void *bytes, size_t n)
{
    unsigned long sum = shared->sums[rank];
    for (size_t i = 0; i < n; i++)
        sum = sum * 31 + ((const unsigned char *)bytes)[i];
    shared->sums[rank] = sum;
}

/* Where a call's result comes; in place a slice lies where it was among the others. */
static void *resultOf(const rank_t *r, char letter, const kind_t *k)
{
    size_t first = k->scatter ? gotOf(k) * (size_t)r->rank : 0;
    return k->inPlace ? (char *)r->send[letter - 'a'] + first * widthOf(k->type) : r->recv[letter - 'a'];
}

static void judge(rank_t *r, int step, char letter)
{
    kind_t k = kindOf(letter);
    size_t count = gotOf(&k), first = k.scatter ? count * (size_t)r->rank : 0;
    int b = letter - 'a';
    float *values = malloc(count * 4);
    void *raw = malloc(count * 4);
    bool exact = true;
    CHECK(cudaMemcpyAsync(raw, resultOf(r, letter, &k), count * widthOf(k.type), cudaMemcpyDeviceToHost, r->stream));
    CHECK(cudaStreamSynchronize(r->stream));
    unpack(values, raw, count, k.type);
    for (size_t i = 0; i < count; i++) {
        float wanted = sumOf(step, letter, first + i, k.op);
        exact = exact && values[i] == wanted;
        r->wanted[b][i] += wanted;
        r->got[b][i] += values[i];
    }
    if (!k.scatter)
        addSum(r->rank, raw, count * widthOf(k.type));
    if (!k.inPlace) { /* what was given is still there */
        float *given = malloc(k.count * 4);
        CHECK(cudaMemcpy(given, r->send[b], k.count * 4, cudaMemcpyDeviceToHost));
        for (size_t i = 0; i < k.count; i++)
            exact = exact && given[i] == gradientOf(r->rank, step, letter, i);
        free(given);
    }
    shared->exact[r->rank] += exact;
    shared->calls[r->rank]++;
    free(values);
    free(raw);
}

static void judgeTotals(rank_t *r)
{
    for (int b = 0; b < LETTERS; b++)
        for (size_t i = 0; i < kindOf((char)('a' + b)).count; i++)
            shared->lost[r->rank] |= r->wanted[b][i] != r->got[b][i];
}

/* ---- steps ---- */

static bool isIrregular(const rank_t *r, int step, const char *how)
{
    return strcmp(job.irregular, how) == 0 && step == job.steps / 2 && r->rank == job.ranks - 1;
}

static void call(rank_t *r, int step, char letter)
{
    kind_t k = kindOf(letter);
    void *send = r->send[letter - 'a'];
    if (isIrregular(r, step, "skip") && letter == 'b')
        return;
    if (isIrregular(r, step, "count"))
        k.count /= 2;
    void *recv = resultOf(r, letter, &k);
    if (k.scatter)
        CHECK(ncclReduceScatter(send, recv, gotOf(&k), k.type, k.op, r->comms[k.comm], r->stream));
    else
        CHECK(ncclAllReduce(send, recv, k.count, k.type, k.op, r->comms[k.comm], r->stream));
}

static void callAll(rank_t *own, int n, int step, const char *script)
{
    int depth = 0;
    for (const char *at = script; *at; at++) {
        bool ring = n > 1 && depth == 0 && *at != '(' && *at != ')';
        if (*at == '(' || ring)
            CHECK(ncclGroupStart());
        for (int i = 0; i < n && *at != '(' && *at != ')'; i++)
            call(&own[i], step, *at);
        if (*at == ')' || ring)
            CHECK(ncclGroupEnd());
        depth += *at == '(' ? 1 : *at == ')' ? -1 : 0;
    }
}

static void capture(rank_t *own, int n, int step, const char *script)
{
    cudaGraph_t graph;
    for (int i = 0; i < n; i++) {
        CHECK(cudaSetDevice(own[i].rank));
        CHECK(cudaStreamBeginCapture(own[i].stream, cudaStreamCaptureModeThreadLocal));
    }
    callAll(own, n, step, script);
    for (int i = 0; i < n; i++) {
        CHECK(cudaSetDevice(own[i].rank));
        CHECK(cudaStreamEndCapture(own[i].stream, &graph));
        CHECK(cudaGraphInstantiate(&own[i].graph, graph, 0));
        CHECK(cudaGraphDestroy(graph));
    }
}

static void reduceStep(rank_t *own, int n, int step, const char *script)
{
    if (!job.graph || step < WARM_STEPS) {
        callAll(own, n, step, script);
        return;
    }
    if (step == WARM_STEPS)
        capture(own, n, step, script);
    for (int i = 0; i < n; i++) {
        CHECK(cudaSetDevice(own[i].rank));
        CHECK(cudaGraphLaunch(own[i].graph, own[i].stream));
    }
}

/* Polls as a watchdog does: errors of a communicator are no deadlock. */
static void finish(rank_t *r)
{
    cudaError_t state;
    while ((state = cudaStreamQuery(r->stream)) == cudaErrorNotReady && !shared->failed) {
        ncclResult_t error;
        CHECK(ncclCommGetAsyncError(r->comms[0], &error));
        CHECK(error);
        nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    }
    ncclResult_t error = ncclSuccess;
    CHECK(ncclCommGetAsyncError(r->comms[0], &error));
    CHECK(error);
}

static void runStep(rank_t *own, int n, int step, const char *script)
{
    for (int i = 0; i < n; i++) {
        CHECK(cudaSetDevice(own[i].rank));
        upload(&own[i], step, script);
    }
    reduceStep(own, n, step, script);
    for (int i = 0; i < n; i++) {
        CHECK(cudaSetDevice(own[i].rank));
        finish(&own[i]);
        for (const char *at = script; *at && !shared->failed; at++)
            if (*at != '(' && *at != ')')
                judge(&own[i], step, *at);
    }
}

static void *abortComm(void *context)
{
    nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
    ncclCommAbort(((rank_t *)context)->comms[0]);
    return NULL;
}

static void runSteps(rank_t *own, int n)
{
    pthread_t other;
    bool aborts = strcmp(job.irregular, "abort") == 0;
    for (int step = 0; step < job.steps + job.zeros && !shared->failed; step++) {
        bool second = job.then && (step >= job.steps / 2);
        if (aborts && step == job.steps / 2 && own[0].rank != 0)
            break; /* the others have gone, and rank 0 waits for them */
        if (aborts && step == job.steps / 2)
            pthread_create(&other, NULL, abortComm, &own[0]);
        runStep(own, n, step, second ? job.then : job.script);
    }
    if (aborts && own[0].rank == 0)
        pthread_join(other, NULL);
}

static void makeComms(rank_t *own, int n)
{
    CHECK(ncclGroupStart());
    for (int i = 0; i < n; i++) {
        CHECK(cudaSetDevice(own[i].rank));
        CHECK(ncclCommInitRank(&own[i].comms[0], job.ranks, shared->id, own[i].rank));
    }
    CHECK(ncclGroupEnd());
    CHECK(ncclGroupStart());
    for (int i = 0; i < n; i++)
        CHECK(ncclCommSplit(own[i].comms[0], 0, own[i].rank, &own[i].comms[1], NULL));
    CHECK(ncclGroupEnd());
    for (int i = 0; i < n; i++) {
        CHECK(cudaSetDevice(own[i].rank));
        CHECK(cudaStreamCreateWithFlags(&own[i].stream, cudaStreamNonBlocking));
        makeBuffers(&own[i]);
    }
}

static void endComms(rank_t *own, int n)
{
    for (int i = 0; i < n; i++) {
        if (own[i].graph)
            CHECK(cudaGraphExecDestroy(own[i].graph));
        judgeTotals(&own[i]);
    }
    if (shared->failed || strcmp(job.irregular, "abort") == 0)
        return;
    for (int i = 0; i < n; i++) {
        CHECK(cudaSetDevice(own[i].rank));
        CHECK(ncclCommDestroy(own[i].comms[1]));
        CHECK(ncclCommDestroy(own[i].comms[0]));
    }
}

static void runRanks(int first, int n)
{
    rank_t own[MAX_RANKS] = {0};
    for (int i = 0; i < n; i++)
        own[i].rank = first + i;
    if (first == 0) {
        CHECK(ncclGetUniqueId(&shared->id));
        shared->ready = 1;
    }
    while (!shared->ready)
        usleep(1000);
    makeComms(own, n);
    runSteps(own, n);
    endComms(own, n);
}

static void *rankThread(void *context)
{
    runRanks((int)(intptr_t)context, 1);
    return NULL;
}

static void runThreads(void)
{
    pthread_t threads[MAX_RANKS];
    for (intptr_t r = 0; r < job.ranks; r++)
        pthread_create(&threads[r], NULL, rankThread, (void *)r);
    for (int r = 0; r < job.ranks; r++)
        pthread_join(threads[r], NULL);
}

static void runProcesses(void)
{
    for (int r = 0; r < job.ranks; r++) {
        if (fork() != 0)
            continue;
        if (job.environment && r == job.ranks - 1)
            putenv(job.environment);
        runRanks(r, 1);
        exit(0);
    }
    for (int status, r = 0; r < job.ranks; r++)
        shared->failed |= wait(&status) < 0 || status != 0;
}

/* Asked by a process that ends: CUDA does not survive a fork. */
static int countDevices(void)
{
    int devices = 0, status = 0;
    if (fork() == 0)
        exit(cudaGetDeviceCount(&devices) == cudaSuccess ? devices : 0);
    wait(&status);
    return WEXITSTATUS(status);
}

static int tell(void)
{
    int exact = 0, calls = 0, lost = 0, differ = 0;
    for (int r = 0; r < job.ranks; r++) {
        exact += shared->exact[r];
        calls += shared->calls[r];
        lost |= shared->lost[r];
        differ |= shared->sums[r] != shared->sums[0];
    }
    printf("exact %d of %d, sums %s, ranks %s\n", exact, calls, lost ? "LOST" : "conserved",
           differ ? "DIFFER" : "equal");
    return shared->failed ? 3 : lost || differ;
}

int main(int argc, char **argv)
{
    for (int option; (option = getopt(argc, argv, "r:m:n:z:gt:i:d:e:")) != -1;) {
        switch (option) {
        case 'r': job.ranks = atoi(optarg); break;
        case 'm': job.mode = optarg; break;
        case 'n': job.steps = atoi(optarg); break;
        case 'z': job.zeros = atoi(optarg); break;
        case 'g': job.graph = true; break;
        case 't': job.then = optarg; break;
        case 'i': job.irregular = optarg; break;
        case 'd': job.other = optarg; break;
        case 'e': job.environment = optarg; break;
        default: return 2;
        }
    }
    if (optind + 1 != argc || job.ranks < 1 || job.ranks > MAX_RANKS)
        return 2;
    job.script = argv[optind];
    if (countDevices() < job.ranks)
        return 77;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (job.other)
        check(!dlopen(job.other, RTLD_NOW | RTLD_LOCAL), "dlopen");
    if (strcmp(job.mode, "processes") == 0)
        runProcesses();
    else if (strcmp(job.mode, "one") == 0)
        runRanks(0, job.ranks);
    else
        runThreads();
    return tell();
}
