/* Fibers for x86-64: the switch itself, and the sanitizers' annotations around it. */
#include "fiber.h"

#include "sanitizer.h"

#include <cstdint>
#include <new>
#include <pthread.h>
#include <sys/mman.h>

#ifndef __x86_64__
#error "the simulator's fiber switch is written for x86-64"
#endif

/* void cudasimSwitch(void **saved, void *next): keeps what the ABI asks a callee to keep, and changes stacks. */
asm(R"(
    .text
    .globl cudasimSwitch
    .hidden cudasimSwitch
    .type cudasimSwitch, @function
cudasimSwitch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size cudasimSwitch, .-cudasimSwitch
)");
extern "C" void cudasimSwitch(void **saved, void *next);

namespace cudasim
{

namespace
{
constexpr size_t guardBytes = 4096, stackBytes = 128 * 1024;
}

Fiber::Fiber() : raceContext(currentRaceContext())
{
    pthread_attr_t attributes;
    void *bottom = nullptr;
    pthread_getattr_np(pthread_self(), &attributes);
    pthread_attr_getstack(&attributes, &bottom, &stackSize);
    pthread_attr_destroy(&attributes);
    stackBottom = bottom;
}

Fiber::Fiber(void (*entry)()) : stackSize(stackBytes), raceContext(createRaceContext())
{
    mapping = mmap(nullptr, guardBytes + stackBytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED)
        throw std::bad_alloc();
    mprotect(mapping, guardBytes, PROT_NONE);
    char *bottom = static_cast<char *>(mapping) + guardBytes;
    stackBottom = bottom;
    /* What cudasimSwitch pops: six registers and the address of entry; above it a null return address, where the
     * sanitizers' unwinders stop. At entry the stack pointer is 8 below a multiple of 16, as after a call. */
    auto **top = reinterpret_cast<void **>(bottom + stackBytes);
    top[-1] = nullptr;
    top[-2] = reinterpret_cast<void *>(entry);
    savedStackPointer = top - 8;
}

Fiber::~Fiber()
{
    if (!mapping)
        return;
    forgetStack(stackBottom, stackSize);
    destroyRaceContext(raceContext);
    munmap(mapping, guardBytes + stackBytes);
}

void Fiber::switchTo(Fiber &other)
{
    startSwitch(&fakeStack, other.stackBottom, other.stackSize, other.raceContext);
    cudasimSwitch(&savedStackPointer, other.savedStackPointer);
    finishSwitch(fakeStack);
}

void Fiber::begin()
{
    finishSwitch(nullptr);
}

} // namespace cudasim
