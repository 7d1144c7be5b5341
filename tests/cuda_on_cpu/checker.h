// The access checker. g++'s -fsanitize=thread calls __tsan_read4 and the like before every access to memory that
// another thread could see; there is no libtsan here, the calls end in `check`.
//
// Time is counted in phases: a new one begins with each block and at each barrier of a block, and the count goes on
// from launch to launch. Blocks run one after the other, so that a phase tells block and barrier, and what memory knows
// of its last accesses never needs clearing.
#pragma once
#include <cstdint>

#include "fibers.h"

[[noreturn]] static void fail(const void *site, const char *format, ...) __attribute__((format(printf, 2, 3)));

enum Who : unsigned { ONE_THREAD, ONE_WARP, ONE_BLOCK, BLOCKS };  // of one phase, but for BLOCKS

struct Access {
    unsigned phase;  // 0: never
    unsigned thread : 10, who : 2, warp_phase : 20;
};
struct Word {  // of 4 bytes
    Access write, read;
};

// Memory that an argument gives to the kernel.
struct Span {
    char *begin, *end;
    char *base;  // of the allocation, where `words` begin
    Word *words;
    int parameter;
    int is_writable;
};
constexpr long long RED_ZONE = 1 << 20;  // bytes before and behind an allocation that belong to none

// By the linker: shared memory, and all that the library holds.
extern char __start_emu_shared[] __attribute__((visibility("hidden")));
extern char __stop_emu_shared[] __attribute__((visibility("hidden")));
extern char __ehdr_start[] __attribute__((visibility("hidden")));
extern char _end[] __attribute__((visibility("hidden")));

constexpr size_t MOST_SHARED = 228 << 10;
static Word shared_words[MOST_SHARED / 4];
static const Span *spans;
static unsigned span_count;
static unsigned phase, launch_phase, block_phase;  // now; the first of this launch, of this block
static unsigned warp_phases[MOST_THREADS / 32];

// Whether the last access, if it counts, comes before what the current thread does now in every order of threads.
static bool is_ordered(const Access &last, unsigned since) {
    if (last.phase < since) return true;
    if (last.who == BLOCKS || last.phase < block_phase) return false;
    if (last.phase < phase) return true;
    if (last.who == ONE_BLOCK || last.thread / 32 != current->number / 32) return false;
    if (last.warp_phase != (warp_phases[current->number / 32] & 0xfffff)) return true;
    return last.who == ONE_THREAD && last.thread == current->number;
}

static Access access_now(Who who) {
    return {phase, current->number, who, warp_phases[current->number / 32] & 0xfffff};
}

// The reads so far and one more, as far as a later write must know them.
static void add_read(Access &last, unsigned since) {
    if (last.phase >= since && (last.who == BLOCKS || last.phase < block_phase)) {
        last = access_now(BLOCKS);
    } else if (last.phase < phase) {
        last = access_now(ONE_THREAD);
    } else if (last.who == ONE_BLOCK || last.thread / 32 != current->number / 32) {
        last.who = ONE_BLOCK;
    } else if (last.warp_phase != (warp_phases[current->number / 32] & 0xfffff)) {
        last = access_now(ONE_THREAD);
    } else if (last.thread != current->number) {
        last.who = ONE_WARP;
    }
}

static void fail_race(const void *site, const char *verb, long long byte, const Span *span, const Access &last,
                      const char *earlier) {
    char memory[64] = "shared memory";
    if (span) __builtin_snprintf(memory, sizeof memory, "parameter %d's array", span->parameter);
    if (last.who == BLOCKS || last.phase < block_phase)
        fail(site, "%s of byte %lld of %s, which another block of the launch has %s", verb, byte, memory, earlier);
    fail(site, "race: %s of byte %lld of %s, which thread %u has %s with no barrier between", verb, byte, memory,
         unsigned{last.thread}, earlier);
}

// span: nullptr for shared memory.
static void touch(const void *site, Word &word, const Span *span, long long byte, bool writes) {
    const unsigned since = span ? launch_phase : block_phase;
    const char *verb = writes ? "write" : "read";
    if (!is_ordered(word.write, since)) fail_race(site, verb, byte, span, word.write, "written");
    if (writes && !is_ordered(word.read, since)) fail_race(site, verb, byte, span, word.read, "read");
    if (writes)
        word.write = access_now(ONE_THREAD);
    else
        add_read(word.read, since);
}

static void check_shared(const void *site, const char *address, unsigned bytes, bool writes) {
    const size_t first = address - __start_emu_shared;
    for (size_t word = first / 4; word <= (first + bytes - 1) / 4; word++) {
        if (!writes && shared_words[word].write.phase < block_phase)
            fail(site, "read of uninitialised shared memory, byte %zu", first);
        touch(site, shared_words[word], nullptr, first, writes);
    }
}

[[noreturn]] static void fail_outside(const void *site, const char *address, unsigned bytes, const char *verb) {
    for (unsigned i = 0; i < span_count; i++) {
        const Span &span = spans[i];
        const long long before = span.begin - address, behind = address + bytes - span.end;
        if (before > RED_ZONE || behind > RED_ZONE) continue;
        fail(site, "out of bounds: %s of %u bytes, %lld bytes %s of parameter %d's array of %lld bytes", verb, bytes,
             before > 0 ? before : behind, before > 0 ? "before the begin" : "past the end", span.parameter,
             static_cast<long long>(span.end - span.begin));
    }
    if (reinterpret_cast<uintptr_t>(address) < RED_ZONE) fail(site, "%s of %u bytes at a null pointer", verb, bytes);
    fail(site, "out of bounds: %s of %u bytes, far from every array of the launch", verb, bytes);
}

static void check_global(const void *site, const char *address, unsigned bytes, bool writes) {
    const Span *span = nullptr;
    for (unsigned i = 0; i < span_count && !(span && (span->is_writable || !writes)); i++)
        if (address >= spans[i].begin && address + bytes <= spans[i].end) span = &spans[i];
    if (!span) fail_outside(site, address, bytes, writes ? "write" : "read");
    if (writes && !span->is_writable) fail(site, "write to parameter %d, which is a pointer to const", span->parameter);
    const size_t byte = address - span->begin, first = address - span->base;
    for (size_t word = first / 4; word <= (first + bytes - 1) / 4; word++) {
        if (!writes && !span->words[word].write.phase)
            fail(site, "read of uninitialised global memory: nothing has written byte %zu of parameter %d's array",
                 byte, span->parameter);
        touch(site, span->words[word], span, byte, writes);
    }
}

static void check(const void *site, const void *pointer, unsigned bytes, bool writes) {
    const char *address = static_cast<const char *>(pointer);
    if (size_t(address - stack_of(current->number)) < STACK) return;
    if ((bytes & (bytes - 1)) == 0 && reinterpret_cast<uintptr_t>(address) % bytes)
        fail(site, "misaligned %s of %u bytes", writes ? "write" : "read", bytes);
    if (address >= __start_emu_shared && address < __stop_emu_shared)
        check_shared(site, address, bytes, writes);
    else if (address < __ehdr_start || address >= _end)
        check_global(site, address, bytes, writes);
    else if (writes)
        fail(site, "write to a variable of the file");
}
