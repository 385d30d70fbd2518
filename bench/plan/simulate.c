/*
 * simulate.c: a discrete-event simulation of an exchange's messages. Ranks go through the phases of plan.h each at its own pace; nothing
 * is known here of the closed forms.
 *
 * A rank has a port each way inside its node, and a node one each way to the others. A request to send waits in a queue by its time. When
 * it comes up, its rank is busy for the message's overhead, the message takes its turn at the sending port, travels, and takes its turn
 * at the receiving one, which it may enter as soon as its first byte is there. What the algorithm does next is the phase's own:
 *   posted   the next of the rank's messages, to the ranks after it in turn: Open MPI's non-blocking collectives and NCCL's grouped sends
 *            post all of them at once. Those inside the node and those that leave it go side by side; a node's port takes its ranks'
 *            messages in turn
 *   ring     the receiver passes on what it has received, as NCCL's all-gather and reduce-scatter do
 *   tree     NCCL's all-reduce: half of the chunks by each of two binary trees, the inner nodes of one being the leaves of the other. A chunk goes up when all children's have come, and down again from the root. In a node its ranks
 *            form a chain
 */
#include "simulate.h"

#include "train/random.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    double time;
    int from, to;
    int64_t id; /* the algorithm's */
} request_t;

typedef struct simulation simulation_t;

/* A tree's chunks from one rank to its parent or to a child: one after the other, as soon as they are there. */
typedef struct {
    int chunk; /* the next */
    bool waiting;
    double free;
} stream_t;

struct simulation {
    const gsSchedule *schedule;
    const gsPhase *phase;
    int ranks, local, nodes;
    int *node;                                             /* by rank */
    double busy;                                           /* a rank, with a message */
    double *record, *load;                                 /* by rank: factors of the mean */
    double *ready, *done, *clock;                          /* by rank: the phase's begin and end; free for a message */
    double *insideOut, *insideIn, *outsideOut, *outsideIn; /* ports: when they are free */
    void (*follow)(simulation_t *, const request_t *, double arrival);
    request_t *queue; /* a heap */
    size_t queued, room;
    bool taken; /* queue[0] is, and is to be replaced */
    bool failed;
    bool
        mirrored; /* nodes do all alike: what the first one sends to another stands for what comes to it from a third */
    double left;  /* when the last message's last byte has left */
    int chunks;
    double *up, *down; /* tree: [chunk][tree][rank]: when it has come from below, and from above */
    int8_t *missing;   /* [chunk][tree][rank]: children it has not come from */
    stream_t *streams; /* [rank][tree][parent or child] */
};

/* ---- the queue ---- */

static bool isBefore(const request_t *a, const request_t *b)
{
    return a->time < b->time || (a->time == b->time && a->id < b->id);
}

static void sink(simulation_t *s, request_t request)
{
    size_t at = 0, child;
    while ((child = 2 * at + 1) < s->queued) {
        if (child + 1 < s->queued && isBefore(&s->queue[child + 1], &s->queue[child]))
            child++;
        if (!isBefore(&s->queue[child], &request))
            break;
        s->queue[at] = s->queue[child];
        at = child;
    }
    s->queue[at] = request;
}

static void rise(simulation_t *s, request_t request)
{
    size_t at = s->queued++;
    while (at && isBefore(&request, &s->queue[(at - 1) / 2])) {
        s->queue[at] = s->queue[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    s->queue[at] = request;
}

static void push(simulation_t *s, request_t request)
{
    if (s->taken) {
        s->taken = false;
        sink(s, request);
        return;
    }
    if (s->queued == s->room) {
        size_t room = 2 * s->room;
        request_t *queue = realloc(s->queue, room * sizeof *queue);
        if (!queue) {
            s->failed = true;
            return;
        }
        s->queue = queue;
        s->room = room;
    }
    rise(s, request);
}

/* The earliest request; its place is filled by the next push, or by the last request. */
static bool take(simulation_t *s, request_t *request)
{
    if (s->taken) {
        s->taken = false;
        s->queued--;
        if (s->queued)
            sink(s, s->queue[s->queued]);
    }
    if (s->queued == 0)
        return false;
    *request = s->queue[0];
    s->taken = true;
    return true;
}

/* ---- ports ---- */

static double later(double a, double b)
{
    return a > b ? a : b;
}

/* The rank that a message comes to, or the one that stands for it. */
static int receiverOf(const simulation_t *s, const request_t *r)
{
    return s->mirrored ? r->to % s->local : r->to;
}

/* Sends no earlier than `time`; returns when the last byte has come. */
static double deliver(simulation_t *s, const request_t *r, double bytes, double time)
{
    const gsCluster_t *c = &s->schedule->cluster;
    int from = s->node[r->from], to = s->node[r->to];
    bool inside = from == to;
    int receiver = receiverOf(s, r);
    double *out = inside ? &s->insideOut[r->from] : &s->outsideOut[from];
    double *in = inside ? &s->insideIn[receiver] : &s->outsideIn[s->mirrored ? 0 : to];
    double took = bytes / (inside ? c->nodeBandwidth : c->bandwidth);
    double start = later(time, *out);
    *out = s->left = start + took;
    *in = later(*in, start + (inside ? c->nodeLatency : c->latency)) + took;
    s->done[r->from] = later(s->done[r->from], *out);
    s->done[receiver] = later(s->done[receiver], *in);
    return *in;
}

static double factor(const simulation_t *s, int from, int to)
{
    switch (s->phase->load) {
    case GS_LOAD_RECORD: return s->record[from];
    case GS_LOAD_TO_OWNER: return s->load[to];
    case GS_LOAD_OF_OWNER: return s->load[from];
    default: return 1.0;
    }
}

static double messageBytes(const simulation_t *s, const request_t *r)
{
    if (s->phase->kind == GS_PHASE_TREE)
        return s->phase->bytes / 2 / s->chunks;
    return s->phase->bytes * factor(s, r->from, r->to);
}

static void runQueue(simulation_t *s)
{
    request_t request;
    while (!s->failed && take(s, &request)) {
        double time = later(request.time, s->clock[request.from]) + s->busy;
        s->clock[request.from] = time;
        s->follow(s, &request, deliver(s, &request, messageBytes(s, &request), time));
    }
}

/* ---- groups ---- */

static int memberCount(const simulation_t *s, int rank)
{
    int first = s->node[rank] * s->local;
    if (s->phase->group == GS_WITH_ALL)
        return s->ranks;
    if (s->phase->group == GS_WITH_NODE)
        return first + s->local > s->ranks ? s->ranks - first : s->local;
    return rank - first + (s->nodes - 1) * s->local < s->ranks ? s->nodes : s->nodes - 1;
}

/* The member `ahead` places behind this one in the group, which closes to a ring. */
static int memberAfter(const simulation_t *s, int rank, int ahead)
{
    int first = s->node[rank] * s->local, to = rank + ahead;
    if (s->phase->group == GS_WITH_ALL)
        return to < s->ranks ? to : to - s->ranks;
    if (s->phase->group == GS_WITH_NODE)
        return first + (to - first) % memberCount(s, rank);
    return (s->node[rank] + ahead) % memberCount(s, rank) * s->local + rank - first;
}

/* ---- algorithms ---- */

/* Requests the rank's next message, from `ahead` on, that stays inside its node or that leaves it. */
static void postNext(simulation_t *s, int rank, int ahead, bool inside, double time)
{
    for (int members = memberCount(s, rank); ahead < members; ahead++) {
        int to = memberAfter(s, rank, ahead);
        if ((s->node[to] == s->node[rank]) == inside) {
            push(s, (request_t){time, rank, to, ahead});
            return;
        }
    }
}

static void followPosted(simulation_t *s, const request_t *r, double arrival)
{
    (void)arrival;
    postNext(s, r->from, (int)r->id + 1, s->node[r->to] == s->node[r->from], s->left - s->busy);
}

static void followRing(simulation_t *s, const request_t *r, double arrival)
{
    int next = receiverOf(s, r);
    if (r->id < (int64_t)s->phase->rounds * (memberCount(s, r->from) - 1))
        push(s, (request_t){later(arrival, s->ready[next]), next, memberAfter(s, next, 1), r->id + 1});
}

static bool areEqual(const double *values, int n)
{
    for (int i = 1; i < n; i++)
        if (values[i] != values[0])
            return false;
    return true;
}

/* Whether nothing tells one node from another. Then all ports are free, too: every rank has ended the same phase. */
static bool isSymmetric(const simulation_t *s)
{
    return s->phase->load == GS_LOAD_EVEN && s->ranks % s->local == 0 && areEqual(s->ready, s->ranks);
}

static void startPosted(simulation_t *s, int rank)
{
    for (int inside = 0; inside < 2; inside++)
        postNext(s, rank, 1, inside, s->ready[rank]);
}

static void startRing(simulation_t *s, int rank)
{
    if (memberCount(s, rank) > 1)
        push(s, (request_t){s->ready[rank], rank, memberAfter(s, rank, 1), 1});
}

static void runMembers(simulation_t *s, bool ring)
{
    s->follow = ring ? followRing : followPosted;
    s->mirrored = isSymmetric(s);
    for (int r = 0; r < (s->mirrored ? s->local : s->ranks); r++)
        (ring ? startRing : startPosted)(s, r);
    runQueue(s);
    for (int r = s->local; r < s->ranks && s->mirrored; r++)
        s->done[r] = s->done[r % s->local];
    s->mirrored = false;
}

/* ---- trees: id = (chunk * 2 + tree) * 4 + 0 for the parent or 1, 2, 3 for a child ---- */

enum { TREES = 2, STREAMS = 4, NOT_YET = -1 };

/* A node's place in a tree: the second tree is the first one mirrored, or turned by one where the number of nodes is odd. */
static int placeOf(const simulation_t *s, int tree, int node)
{
    if (tree == 0)
        return node;
    return s->nodes % 2 ? (node + s->nodes - 1) % s->nodes : s->nodes - 1 - node;
}

static int headAt(const simulation_t *s, int tree, int place)
{
    int node = s->nodes % 2 ? (place + 1) % s->nodes : s->nodes - 1 - place;
    return (tree == 0 ? place : node) * s->local;
}

/* Place 0 is the root and has one child, the largest power of two; others' distance to their children is half of their lowest bit, so
 * that odd places are the leaves. -1 for the root. */
static int parentPlace(int place, int places)
{
    int bit = place & -place, up = (place ^ bit) | 2 * bit;
    if (place == 0)
        return -1;
    return up < places ? up : place ^ bit;
}

static int childPlaces(int place, int places, int children[2])
{
    int n = 0, half = (place & -place) / 2;
    if (place == 0) {
        for (half = 1; 2 * half < places; half *= 2)
            ;
        children[0] = half;
        return half < places;
    }
    if (half)
        children[n++] = place - half;
    while (half && place + half >= places)
        half /= 2;
    if (half)
        children[n++] = place + half;
    return n;
}

static int parentOf(const simulation_t *s, int tree, int rank)
{
    int place = parentPlace(placeOf(s, tree, rank / s->local), s->nodes);
    if (rank % s->local)
        return rank - 1;
    return place < 0 ? -1 : headAt(s, tree, place);
}

static int childrenOf(const simulation_t *s, int tree, int rank, int children[3])
{
    int n = 0;
    if (rank % s->local == 0)
        n = childPlaces(placeOf(s, tree, rank / s->local), s->nodes, children);
    for (int i = 0; i < n; i++)
        children[i] = headAt(s, tree, children[i]);
    if (rank % s->local + 1 < s->local && rank + 1 < s->ranks)
        children[n++] = rank + 1;
    return n;
}

static size_t chunkAt(const simulation_t *s, int chunk, int tree, int rank)
{
    return ((size_t)chunk * TREES + (size_t)tree) * (size_t)s->ranks + (size_t)rank;
}

/* Requests a stream's next chunk if it is there. */
static void advance(simulation_t *s, int rank, int tree, int way)
{
    stream_t *stream = &s->streams[((size_t)rank * TREES + (size_t)tree) * STREAMS + (size_t)way];
    int children[STREAMS - 1], to = parentOf(s, tree, rank);
    if (stream->waiting || stream->chunk == s->chunks)
        return;
    size_t at = chunkAt(s, stream->chunk, tree, rank);
    if (way > 0) {
        childrenOf(s, tree, rank, children);
        to = children[way - 1];
    }
    if (way > 0 ? s->down[at] == NOT_YET : s->missing[at] > 0)
        return;
    double there = way > 0 ? s->down[at] : s->up[at];
    stream->waiting = true;
    push(s, (request_t){later(there, stream->free), rank, to, ((int64_t)stream->chunk * TREES + tree) * STREAMS + way});
}

static void comeDown(simulation_t *s, int chunk, int tree, int rank, double time)
{
    int children[STREAMS - 1], n = childrenOf(s, tree, rank, children);
    s->down[chunkAt(s, chunk, tree, rank)] = time;
    for (int child = 0; child < n; child++)
        advance(s, rank, tree, 1 + child);
}

/* A chunk has come from one more child; from all of them, it goes on, and at the root turns back. */
static void comeUp(simulation_t *s, int chunk, int tree, int rank, double time)
{
    size_t at = chunkAt(s, chunk, tree, rank);
    s->up[at] = later(s->up[at], time);
    if (--s->missing[at] > 0)
        return;
    if (parentOf(s, tree, rank) < 0)
        comeDown(s, chunk, tree, rank, s->up[at]);
    else
        advance(s, rank, tree, 0);
}

static void followTree(simulation_t *s, const request_t *r, double arrival)
{
    int way = (int)(r->id % STREAMS), tree = (int)(r->id / STREAMS % TREES), chunk = (int)(r->id / STREAMS / TREES);
    stream_t *stream = &s->streams[((size_t)r->from * TREES + (size_t)tree) * STREAMS + (size_t)way];
    *stream = (stream_t){chunk + 1, false, s->left - s->busy};
    advance(s, r->from, tree, way);
    if (way > 0)
        comeDown(s, chunk, tree, r->to, arrival);
    else
        comeUp(s, chunk, tree, r->to, arrival);
}

static void startTrees(simulation_t *s)
{
    int children[STREAMS - 1];
    for (int rank = 0; rank < s->ranks; rank++)
        for (int tree = 0; tree < TREES; tree++) {
            int n = childrenOf(s, tree, rank, children);
            for (int chunk = 0; chunk < s->chunks; chunk++) {
                size_t at = chunkAt(s, chunk, tree, rank);
                s->up[at] = s->ready[rank];
                s->down[at] = NOT_YET;
                s->missing[at] = (int8_t)n;
            }
            if (n == 0)
                advance(s, rank, tree, 0);
        }
}

static void runTree(simulation_t *s)
{
    s->chunks = (int)gsTreeChunks(s->phase->bytes);
    size_t all = chunkAt(s, s->chunks, 0, 0);
    s->up = malloc(all * sizeof *s->up);
    s->down = malloc(all * sizeof *s->down);
    s->missing = malloc(all * sizeof *s->missing);
    s->streams = calloc((size_t)s->ranks * TREES * STREAMS, sizeof *s->streams);
    s->failed = !s->up || !s->down || !s->missing || !s->streams;
    s->follow = followTree;
    if (!s->failed && s->ranks > 1) {
        startTrees(s);
        runQueue(s);
    }
    free(s->up);
    free(s->down);
    free(s->missing);
    free(s->streams);
}

/* ---- phases ---- */

static void runPhase(simulation_t *s)
{
    memcpy(s->done, s->ready, (size_t)s->ranks * sizeof *s->done);
    memcpy(s->clock, s->ready, (size_t)s->ranks * sizeof *s->clock);
    s->busy = s->schedule->cluster.message * s->phase->pieces;
    if (s->phase->kind == GS_PHASE_COMPUTE)
        for (int r = 0; r < s->ranks; r++)
            s->done[r] += s->phase->seconds * factor(s, r, r);
    else if (s->phase->kind == GS_PHASE_TREE)
        runTree(s);
    else
        runMembers(s, s->phase->kind == GS_PHASE_RING);
    memcpy(s->ready, s->done, (size_t)s->ranks * sizeof *s->ready);
}

/* Lognormal with mean 1: from a normal number, the sum of twelve uniform ones. */
static void drawFactors(double *factors, int ranks, double deviation, random_t *random)
{
    double sigma = sqrt(log1p(deviation * deviation));
    for (int r = 0; r < ranks; r++) {
        double normal = 0;
        for (int i = 0; i < 12; i++)
            normal += 0.5 * (double)randomSigned(random);
        factors[r] = exp(sigma * normal - sigma * sigma / 2);
    }
}

/* An owner's blocks, of the mean. */
static double blocksOf(const gsSchedule *schedule, int rank)
{
    double each = schedule->ownerBlocks, fewer = floor(each);
    return (fewer + (rank < round((each - fewer) * schedule->cluster.ranks))) / each;
}

static bool allocate(simulation_t *s)
{
    double **byRank[] = {&s->record,    &s->load,     &s->ready,      &s->done,     &s->clock,
                         &s->insideOut, &s->insideIn, &s->outsideOut, &s->outsideIn};
    enum { ARRAYS = sizeof byRank / sizeof *byRank };
    size_t ranks = (size_t)s->ranks;
    double *memory = calloc(ARRAYS * ranks, sizeof *memory);
    for (size_t i = 0; i < ARRAYS; i++)
        *byRank[i] = memory ? memory + i * ranks : NULL;
    s->room = ranks;
    s->queue = malloc(ranks * sizeof *s->queue);
    s->node = malloc(ranks * sizeof *s->node);
    for (size_t r = 0; r < ranks && s->node; r++)
        s->node[r] = (int)r / s->local;
    return memory && s->queue && s->node;
}

double simulateSchedule(const gsSchedule *schedule, uint64_t seed)
{
    const gsCluster_t *c = &schedule->cluster;
    simulation_t s = {.schedule = schedule, .ranks = c->ranks, .local = c->ranksPerNode, .nodes = gsClusterNodes(c)};
    random_t random = randomMake(seed, 0);
    double last = 0;
    s.failed = !allocate(&s);
    if (!s.failed) {
        drawFactors(s.record, s.ranks, schedule->recordSpread, &random);
        drawFactors(s.load, s.ranks, schedule->ownerSpread, &random);
        for (int r = 0; r < s.ranks; r++)
            s.load[r] *= blocksOf(schedule, r);
    }
    for (int i = 0; i < schedule->count && !s.failed; i++) {
        s.phase = &schedule->phases[i];
        runPhase(&s);
    }
    for (int r = 0; r < s.ranks && !s.failed; r++)
        last = later(last, s.ready[r]);
    free(s.record); /* the first of all */
    free(s.queue);
    free(s.node);
    return s.failed ? -1 : last;
}
