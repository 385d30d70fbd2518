/* Runs a grid: who runs next, barriers, warp collectives, and the errors that a wrong use of them becomes.
 *
 * A thread runs until it waits for others; then the next ready thread is switched to. CUDASIM_SCHEDULE says which one
 * that is (forward, reverse, random or random:SEED), so that code which lacks a barrier gives different results under
 * different schedules. CUDASIM_BLOCKS does the same for the order of the blocks.
 */
#include "executor.h"

#include "fiber.h"
#include "sanitizer.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <random>
#include <vector>

/* The declarations in device_launch_parameters.h are const for kernels; the executor writes through these. */
#define CUDASIM_DEFINE(type, name) CUDASIM_PER_WORKER type cudasim_##name asm(#name)
CUDASIM_DEFINE(uint3, threadIdx);
CUDASIM_DEFINE(uint3, blockIdx);
CUDASIM_DEFINE(uint3, blockDim);
CUDASIM_DEFINE(uint3, gridDim);
CUDASIM_DEFINE(int, warpSize) = 32;

namespace cudasim
{

namespace
{

constexpr unsigned lanesPerWarp = 32;

enum class State { Ready, InBarrier, InCollective, Exited };

struct Thread {
    explicit Thread(void (*entry)()) : fiber(entry)
    {
    }

    Fiber fiber;
    uint3 index;
    unsigned rank; /* in the block */
    State state;
    Where where;     /* of the builtin it waits in */
    bool predicate;  /* block barrier */
    Collective what; /* the rest: warp collective */
    unsigned mask;
    uint64_t value, result;
    int source;

    unsigned lane() const
    {
        return rank % lanesPerWarp;
    }
};

/* Sets of lanes, and what __syncwarp tells the thread sanitizer. */
struct Warp {
    unsigned present; /* lanes within the block */
    unsigned exited, waiting;
    char fence[2];
    unsigned syncs;
};

/* Text without heap memory: the stack of a failed thread is left without destructors. */
struct Message {
    char text[160];
};

Message format(const char *pattern, unsigned a = 0, unsigned b = 0)
{
    Message message;
    snprintf(message.text, sizeof message.text, pattern, a, b);
    return message;
}

/* Which of several equals goes first. */
class Order
{
  public:
    explicit Order(const char *variable)
    {
        const char *text = getenv(variable);
        std::string name = text ? text : "forward";
        reverse = name == "reverse";
        random = name.compare(0, 6, "random") == 0;
        if (random && name.size() > 7)
            generator.seed(unsigned(strtoul(name.c_str() + 7, nullptr, 0)));
    }
    template <typename T> void arrange(std::vector<T> &items)
    {
        if (reverse)
            std::reverse(items.begin(), items.end());
        if (random)
            std::shuffle(items.begin(), items.end(), generator);
    }
    bool isRandom() const
    {
        return random;
    }
    size_t below(size_t bound)
    {
        return generator() % bound;
    }

  private:
    bool reverse, random;
    std::minstd_rand generator;
};

/* Threads that could run now. */
class ReadyQueue
{
  public:
    void reserve(size_t most)
    {
        threads.reserve(most);
    }
    void clear()
    {
        threads.clear(), head = 0;
    }
    void push(Thread *thread)
    {
        threads.push_back(thread);
    }
    Thread *pop(Order &order)
    {
        if (head == threads.size())
            return nullptr;
        if (order.isRandom())
            std::swap(threads[head], threads[head + order.below(threads.size() - head)]);
        Thread *next = threads[head++];
        if (head == threads.size())
            clear();
        return next;
    }

  private:
    std::vector<Thread *> threads;
    size_t head = 0;
};

/* Shared memory of the running block. Each piece has exactly the size asked for, so that the address sanitizer sees its
 * ends, and every block finds garbage in it, so that nobody can count on zeros or on what was left behind. */
class SharedMemory
{
  public:
    ~SharedMemory()
    {
        clear();
    }
    void *find(const void *key, size_t bytes)
    {
        for (const Piece &piece : pieces)
            if (piece.key == key)
                return piece.data;
        Unwatched unwatched;
        Piece piece{key, bytes, nullptr};
        if (posix_memalign(&piece.data, 128, bytes))
            throw std::bad_alloc();
        memset(piece.data, garbage, bytes);
        pieces.push_back(piece);
        return piece.data;
    }
    void scramble()
    {
        Unwatched unwatched;
        for (const Piece &piece : pieces)
            memset(piece.data, garbage, piece.bytes);
    }
    void clear()
    {
        for (const Piece &piece : pieces)
            free(piece.data);
        pieces.clear();
    }

  private:
    static constexpr int garbage = 0xa5;
    struct Piece {
        const void *key;
        size_t bytes;
        void *data;
    };
    std::vector<Piece> pieces;
};

class Executor
{
  public:
    bool run(const Launch &launch);
    int barrier(bool predicate, Where where);
    uint64_t collective(Collective what, unsigned mask, uint64_t value, int source, Where where);
    void yield();
    [[noreturn]] void fail(const Thread &culprit, Where where, const Message &message);
    const Thread &current() const
    {
        return *self;
    }
    void *dynamicShared()
    {
        return shared.find(this, launch->sharedBytes);
    }
    void *staticShared(const void *key, size_t bytes)
    {
        return shared.find(key, bytes);
    }
    void threadMain();

  private:
    void runBlock(size_t blockNumber);
    void prepareThreads();
    void resume(Thread *next);
    void dispatch();
    void wakeGroup(); /* all but the running thread, which goes on anyway */
    void exitThread();
    void releaseBarrier();
    void checkMask(unsigned mask, Where where);
    bool isComplete(unsigned mask, Collective what);
    void combine(Collective what, unsigned mask);
    uint64_t resultFor(const Thread &lane, Collective what, unsigned mask);
    void reportDeadlock();
    void report(const Thread &culprit, Where where, const Message &message);
    Thread *laneOf(unsigned rank, unsigned lane) const;
    Warp &warpOf(const Thread &thread)
    {
        return warps[thread.rank / lanesPerWarp];
    }

    const Launch *launch = nullptr;
    std::unique_ptr<Fiber> host;
    std::vector<std::unique_ptr<Thread>> threads; /* kept from block to block and from launch to launch */
    std::vector<Warp> warps;
    unsigned blockSize = 0, arrived = 0, exited = 0;
    int barrierResult = 0;
    bool failed = false;
    Thread *self = nullptr;
    ReadyQueue ready;
    std::vector<Thread *> group; /* those about to be woken together; a member only to save allocations */
    std::unique_ptr<Order> threadOrder;
    SharedMemory shared;

    /* Addresses by which the thread sanitizer learns what is ordered: host to threads, threads to host, and all those
     * that meet in a barrier. Barriers take turns, for the next may begin while threads are still leaving this one. */
    char startFence, endFence, barrierFence[2];
    unsigned barriers = 0;
};

CUDASIM_PER_WORKER Executor *executor;

bool Executor::run(const Launch &launched)
{
    launch = &launched;
    failed = false;
    host = std::make_unique<Fiber>();
    threadOrder = std::make_unique<Order>("CUDASIM_SCHEDULE");
    Order blockOrder("CUDASIM_BLOCKS");
    blockSize = launch->block.x * launch->block.y * launch->block.z;
    cudasim_blockDim = {launch->block.x, launch->block.y, launch->block.z};
    cudasim_gridDim = {launch->grid.x, launch->grid.y, launch->grid.z};
    std::vector<size_t> blocks(size_t(launch->grid.x) * launch->grid.y * launch->grid.z);
    for (size_t i = 0; i < blocks.size(); i++)
        blocks[i] = i;
    blockOrder.arrange(blocks);
    prepareThreads();
    for (size_t block : blocks) {
        runBlock(block);
        if (failed)
            break;
    }
    shared.clear();
    if (failed)
        threads.clear(); /* their stacks are in the middle of the kernel */
    return !failed;
}

void Executor::prepareThreads()
{
    while (threads.size() < blockSize)
        threads.push_back(std::make_unique<Thread>([] { executor->threadMain(); }));
    warps.assign((blockSize + lanesPerWarp - 1) / lanesPerWarp, Warp());
    ready.reserve(2 * blockSize);
    group.reserve(blockSize);
    for (unsigned rank = 0; rank < blockSize; rank++) {
        Thread &thread = *threads[rank];
        thread.rank = rank;
        warpOf(thread).present |= 1u << thread.lane();
        thread.index.x = rank % launch->block.x;
        thread.index.y = rank / launch->block.x % launch->block.y;
        thread.index.z = rank / launch->block.x / launch->block.y;
    }
}

void Executor::runBlock(size_t number)
{
    cudasim_blockIdx.x = unsigned(number % launch->grid.x);
    cudasim_blockIdx.y = unsigned(number / launch->grid.x % launch->grid.y);
    cudasim_blockIdx.z = unsigned(number / launch->grid.x / launch->grid.y);
    shared.scramble();
    arrived = exited = 0;
    for (Warp &warp : warps)
        warp.exited = warp.waiting = 0;
    ready.clear();
    group.clear();
    self = nullptr;
    for (unsigned rank = 0; rank < blockSize; rank++)
        group.push_back(threads[rank].get());
    wakeGroup();
    publish(&startFence);
    if (Thread *first = ready.pop(*threadOrder)) {
        self = first;
        cudasim_threadIdx = first->index;
        host->switchTo(first->fiber);
    }
    observe(&endFence);
    if (!failed && exited < blockSize)
        reportDeadlock();
}

/* Body of every fiber: one turn of the loop is one thread of one block. */
void Executor::threadMain()
{
    Fiber::begin();
    for (;;) {
        observe(&startFence);
        launch->body();
        exitThread();
    }
}

void Executor::resume(Thread *next)
{
    publish(&endFence); /* it may be the last time that this thread runs */
    Fiber &from = self->fiber;
    self = next;
    if (!next)
        return from.switchTo(*host);
    cudasim_threadIdx = next->index;
    if (&next->fiber != &from)
        from.switchTo(next->fiber);
}

/* Leaves the current thread for the next ready one, or for the host if none is. */
void Executor::dispatch()
{
    resume(ready.pop(*threadOrder));
}

void Executor::wakeGroup()
{
    threadOrder->arrange(group);
    for (Thread *thread : group) {
        thread->state = State::Ready;
        if (thread != self)
            ready.push(thread);
    }
}

void Executor::yield()
{
    ready.push(self);
    dispatch();
}

void Executor::exitThread()
{
    Warp &warp = warpOf(*self);
    self->state = State::Exited;
    exited++;
    warp.exited |= 1u << self->lane();
    for (unsigned waiting = warp.waiting; waiting; waiting &= waiting - 1) {
        const Thread &other = *laneOf(self->rank, unsigned(__builtin_ctz(waiting)));
        if (other.mask >> self->lane() & 1)
            fail(other, other.where, format("lane %u of its mask 0x%08x has exited", self->lane(), other.mask));
    }
    dispatch();
}

Thread *Executor::laneOf(unsigned rank, unsigned lane) const
{
    unsigned other = rank / lanesPerWarp * lanesPerWarp + lane;
    return other < blockSize ? threads[other].get() : nullptr;
}

/* ---- block barrier ---------------------------------------------------------------------------------------------- */

int Executor::barrier(bool predicate, Where where)
{
    if (exited)
        fail(*self, where, format("%u threads of the block have exited and will never come here", exited));
    self->where = where;
    self->predicate = predicate;
    self->state = State::InBarrier;
    char *fence = &barrierFence[barriers % 2];
    publish(fence);
    if (++arrived == blockSize)
        releaseBarrier();
    else
        dispatch();
    observe(fence);
    return barrierResult;
}

/* The last to arrive frees the others and goes on. */
void Executor::releaseBarrier()
{
    arrived = 0;
    barriers++;
    barrierResult = 0;
    group.clear();
    for (unsigned rank = 0; rank < blockSize; rank++) {
        Thread *thread = threads[rank].get();
        if (thread->where.line != self->where.line || strcmp(thread->where.file, self->where.file))
            fail(*thread, thread->where,
                 format("divergent barrier: another thread waits at line %u", unsigned(self->where.line)));
        barrierResult += thread->predicate;
        group.push_back(thread);
    }
    wakeGroup();
}

/* ---- warp collectives ------------------------------------------------------------------------------------------- */

uint64_t Executor::collective(Collective what, unsigned mask, uint64_t value, int source, Where where)
{
    checkMask(mask, where);
    Thread *thread = self;
    thread->where = where;
    thread->what = what;
    thread->mask = mask;
    thread->value = value;
    thread->source = source;
    thread->state = State::InCollective;
    Warp &warp = warpOf(*thread);
    warp.waiting |= 1u << thread->lane();
    /* Of all warp builtins only __syncwarp orders memory. Its fences take turns as the barrier's do. */
    char *fence = &warp.fence[warp.syncs % 2];
    if (what == Collective::Sync)
        publish(fence);
    if (isComplete(mask, what))
        combine(what, mask);
    else
        dispatch();
    if (what == Collective::Sync)
        observe(fence);
    return thread->result;
}

void Executor::checkMask(unsigned mask, Where where)
{
    const Warp &warp = warpOf(*self);
    if (!(mask >> self->lane() & 1))
        fail(*self, where, format("lane %u is not in its own mask 0x%08x", self->lane(), mask));
    if (unsigned beyond = mask & ~warp.present)
        fail(*self, where,
             format("lane %u of mask 0x%08x is beyond the end of the block", unsigned(__builtin_ctz(beyond)), mask));
    if (unsigned gone = mask & warp.exited)
        fail(*self, where, format("lane %u of mask 0x%08x has exited", unsigned(__builtin_ctz(gone)), mask));
}

bool Executor::isComplete(unsigned mask, Collective what)
{
    if (mask & ~warpOf(*self).waiting)
        return false;
    for (unsigned rest = mask; rest; rest &= rest - 1) {
        const Thread *thread = laneOf(self->rank, unsigned(__builtin_ctz(rest)));
        if (thread->mask != mask || thread->what != what)
            return false;
    }
    return true;
}

uint64_t fold(Collective what, uint64_t a, uint64_t b)
{
    switch (what) {
    case Collective::Add: return a + b;
    case Collective::Min: return uint64_t(std::min(int64_t(a), int64_t(b)));
    case Collective::Max: return uint64_t(std::max(int64_t(a), int64_t(b)));
    case Collective::And: return a & b;
    case Collective::Or: return a | b;
    default: return a ^ b;
    }
}

/* The last lane to arrive computes everyone's result, frees the others and goes on. */
void Executor::combine(Collective what, unsigned mask)
{
    Warp &warp = warpOf(*self);
    warp.waiting &= ~mask;
    warp.syncs += what == Collective::Sync;
    group.clear();
    for (unsigned rest = mask; rest; rest &= rest - 1)
        group.push_back(laneOf(self->rank, unsigned(__builtin_ctz(rest))));
    for (Thread *lane : group)
        lane->result = resultFor(*lane, what, mask);
    wakeGroup();
}

/* `group` holds the lanes of the mask. Results equal for all lanes are computed once, for the first. */
uint64_t Executor::resultFor(const Thread &lane, Collective what, unsigned mask)
{
    uint64_t result = 0;
    if (what == Collective::Shuffle) {
        if (!(mask >> lane.source & 1))
            fail(lane, lane.where,
                 format("reads from lane %u, which is absent from mask 0x%08x", unsigned(lane.source), mask));
        return laneOf(self->rank, unsigned(lane.source))->value;
    }
    if (what == Collective::MatchAny) {
        for (Thread *other : group)
            result |= uint64_t(other->value == lane.value) << other->lane();
        return result;
    }
    if (&lane != group[0])
        return group[0]->result;
    if (what == Collective::Ballot) {
        for (Thread *other : group)
            result |= other->value << other->lane();
        return result;
    }
    result = lane.value;
    for (size_t i = 1; i < group.size(); i++)
        result = fold(what, result, group[i]->value);
    return result;
}

/* ---- errors ----------------------------------------------------------------------------------------------------- */

void Executor::report(const Thread &culprit, Where where, const Message &message)
{
    fprintf(stderr, "cudasim: error in kernel %s at %s:%d: %s: block (%u,%u,%u) thread (%u,%u,%u): %s\n",
            launch->name.c_str(), where.file, where.line, where.builtin, cudasim_blockIdx.x, cudasim_blockIdx.y,
            cudasim_blockIdx.z, culprit.index.x, culprit.index.y, culprit.index.z, message.text);
    failed = true;
}

void Executor::fail(const Thread &culprit, Where where, const Message &message)
{
    report(culprit, where, message);
    resume(nullptr);
    abort(); /* a failed grid is never resumed */
}

/* Nobody can run and somebody waits: the first waiting thread stands for all. */
void Executor::reportDeadlock()
{
    for (unsigned rank = 0; rank < blockSize; rank++) {
        const Thread &thread = *threads[rank];
        if (thread.state == State::InBarrier)
            return report(thread, thread.where,
                          format("divergent barrier: %u of %u threads wait here for ever", arrived, blockSize));
        if (thread.state == State::InCollective)
            return report(thread, thread.where,
                          format("waits for ever for the other lanes of mask 0x%08x", thread.mask));
    }
}

} // namespace

/* ---- the face towards kernels and streams ----------------------------------------------------------------------- */

uint64_t warpCollective(Collective what, unsigned mask, uint64_t value, int source, Where where)
{
    return executor->collective(what, mask, value, source, where);
}

int blockBarrier(bool predicate, Where where)
{
    return executor->barrier(predicate, where);
}

void yieldThread()
{
    executor->yield();
}

void trap(Where where)
{
    executor->fail(executor->current(), where, format("the kernel trapped"));
}

unsigned laneId()
{
    return executor->current().lane();
}

void *dynamicSharedMemory()
{
    return executor->dynamicShared();
}

void *staticSharedMemory(const void *key, size_t bytes)
{
    return executor->staticShared(key, bytes);
}

bool execute(const Launch &launch)
{
#ifdef CUDASIM_THREAD_SANITIZER
    static thread_local Executor own;
#else
    static std::mutex oneKernelAtATime;
    static Executor &own = *new Executor; /* workers may outlive static objects */
    std::lock_guard<std::mutex> lock(oneKernelAtATime);
#endif
    executor = &own;
    return own.run(launch);
}

} // namespace cudasim
