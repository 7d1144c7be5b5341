// The threads of a block: fibers on one thread of the CPU, each with its own stack. Only the scheduler resumes one, and
// a fiber gives control back to nothing but the scheduler.
#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#include "machine.h"

enum State : unsigned char { READY, AT_BLOCK_BARRIER, AT_WARP_BARRIER, AT_EXCHANGE, DONE };

struct Fiber {
#if defined(__x86_64__)
    void *stack_pointer;
#else
    ucontext_t context;
#endif
    emu_index index;
    unsigned number;
    State state;
    int line;            // of the barrier it waits at
    unsigned exchanges;  // so far; odd and even ones use different slots
};

constexpr size_t STACK = 128 << 10;
constexpr size_t STACK_STRIDE = STACK + 5 * 64;  // not a power of two: equal places of stacks share no cache set
constexpr unsigned MOST_THREADS = 1024;

static Fiber fibers[MOST_THREADS];
static Fiber *current;
static char *stacks;

#if defined(__x86_64__)
static void *scheduler_stack_pointer;

// Saves the registers that a call preserves and the stack pointer at *save; goes on where `to` was saved.
extern "C" void emu_switch(void **save, void *to);
asm(R"(
    .text
    .type emu_switch, @function
emu_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
    .size emu_switch, . - emu_switch
)");

static void to_scheduler() { emu_switch(&current->stack_pointer, scheduler_stack_pointer); }
static void to_fiber() { emu_switch(&scheduler_stack_pointer, current->stack_pointer); }
static void set_up(Fiber &fiber, char *stack, void (*entry)()) {
    void **top = reinterpret_cast<void **>(reinterpret_cast<uintptr_t>(stack + STACK) & ~uintptr_t{63});
    *--top = nullptr;  // what entry would return to; entry finds the stack aligned as after a call
    *--top = reinterpret_cast<void *>(entry);
    for (int saved = 0; saved < 6; saved++) *--top = nullptr;
    fiber.stack_pointer = top;
}
#else
static ucontext_t scheduler_context;

static void to_scheduler() { swapcontext(&current->context, &scheduler_context); }
static void to_fiber() { swapcontext(&scheduler_context, &current->context); }
static void set_up(Fiber &fiber, char *stack, void (*entry)()) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stack;
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, entry, 0);
}
#endif

static char *stack_of(unsigned number) { return stacks + number * STACK_STRIDE; }

static void map_stacks() {
    if (stacks) return;
    void *memory = mmap(nullptr, STACK_STRIDE * MOST_THREADS, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    stacks = static_cast<char *>(memory);
}
