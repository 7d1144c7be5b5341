// Runs the blocks of a launch, one after the other, each block's threads as fibers between its barriers. Linked into
// every compiled .cu file, so that each has its own.
#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "checker.h"
#include "kernel.h"

emu_index threadIdx, blockIdx, blockDim, gridDim;

static unsigned threads, order;
static void (*kernel)(void **);
static void **kernel_values;
static bool has_failed;
static char message[1000];
static size_t failed_at;  // in the code, from the begin of its image
static char slots[2][MOST_THREADS][EMU_SLOT];
static std::mt19937 random_order;

static void describe(const char *format, va_list values) {
    const int used = snprintf(message, sizeof message, "block (%u, %u, %u)", blockIdx.x, blockIdx.y, blockIdx.z);
    const int more = current ? snprintf(message + used, sizeof message - used, ", thread %u", current->number) : 0;
    const int colon = snprintf(message + used + more, sizeof message - used - more, ": ");
    vsnprintf(message + used + more + colon, sizeof message - used - more - colon, format, values);
    has_failed = true;
}

[[noreturn]] static void fail(const void *site, const char *format, ...) {
    va_list values;
    va_start(values, format);
    describe(format, values);
    va_end(values);
    failed_at = site ? static_cast<const char *>(site) - __ehdr_start : 0;
    for (;;) to_scheduler();
}

static void fail_block(const char *format, ...) {
    current = nullptr;
    va_list values;
    va_start(values, format);
    describe(format, values);
    va_end(values);
}

static void wait_as(State state, int line) {
    current->state = state;
    current->line = line;
    to_scheduler();
}

#define SITE __builtin_return_address(0)

void emu_sync_block(int line) { wait_as(AT_BLOCK_BARRIER, line); }
void emu_sync_warp(int line) { wait_as(AT_WARP_BARRIER, line); }
const char *emu_exchange(int line, const void *value, unsigned bytes) {
    auto &slot = slots[current->exchanges++ % 2];
    memcpy(slot[current->number], value, bytes);
    wait_as(AT_EXCHANGE, line);
    return slot[current->number / 32 * 32];
}
unsigned emu_lane() { return current->number % 32; }
unsigned emu_lanes() { return std::min(32u, threads - current->number / 32 * 32); }
void emu_fail(const char *text) { fail(SITE, "%s", text); }
void emu_copy(void *to, const void *from, unsigned bytes) {
    check(SITE, from, bytes, false);
    check(SITE, to, bytes, true);
    memcpy(to, from, bytes);
}

static void run_thread() {
    kernel(kernel_values);
    current->state = DONE;
    for (;;) to_scheduler();
}

static void resume(Fiber &fiber) {
    current = &fiber;
    threadIdx = fiber.index;
    to_fiber();
}

// Lets the warps go on whose threads all wait at one barrier, or in one exchange.
static bool release_warps() {
    bool any = false;
    for (unsigned first = 0; first < threads; first += 32) {
        Fiber *const begin = fibers + first, *const end = fibers + std::min(first + 32, threads);
        if (begin->state != AT_WARP_BARRIER && begin->state != AT_EXCHANGE) continue;
        const State state = begin->state;
        const int line = begin->line;
        if (!std::all_of(begin, end, [&](const Fiber &f) { return f.state == state && f.line == line; })) continue;
        // Only __syncwarp orders what the threads do in memory; a shuffle does not.
        if (state == AT_WARP_BARRIER) warp_phases[first / 32]++;
        std::for_each(begin, end, [](Fiber &f) { f.state = READY; });
        any = true;
    }
    return any;
}

// Lets the block go on where all its threads wait at one __syncthreads().
static bool release_block() {
    const int line = fibers[0].line;
    const auto waits = [&](const Fiber &f) { return f.state == AT_BLOCK_BARRIER && f.line == line; };
    if (!std::all_of(fibers, fibers + threads, waits)) return false;
    std::for_each(fibers, fibers + threads, [](Fiber &f) { f.state = READY; });
    phase++;
    return true;
}

static void fail_stuck() {
    static const char *const places[] = {"running", "at __syncthreads()", "at __syncwarp()", "in a warp operation",
                                         "returned"};
    char text[600];
    size_t used = 0;
    for (unsigned first = 0, next; first < threads && used < sizeof text - 100; first = next) {
        for (next = first; next < threads && fibers[next].state == fibers[first].state &&
                           (fibers[next].state == DONE || fibers[next].line == fibers[first].line);)
            next++;
        used += snprintf(text + used, sizeof text - used, "%s threads %u to %u %s", first ? "," : "", first, next - 1,
                         places[fibers[first].state]);
        if (fibers[first].state != DONE)
            used += snprintf(text + used, sizeof text - used, " in line %d", fibers[first].line);
    }
    fail_block("divergent barrier:%s", text);
}

static void run_block() {
    memset(__start_emu_shared, 0xff, __stop_emu_shared - __start_emu_shared);
    block_phase = ++phase;
    std::vector<unsigned> turns(threads);
    std::iota(turns.begin(), turns.end(), 0);
    if (order == 1) std::reverse(turns.begin(), turns.end());
    for (unsigned i = 0; i < threads; i++) {
        fibers[i].index = {i, 0, 0};
        fibers[i].number = i;
        fibers[i].state = READY;
        fibers[i].exchanges = 0;
        set_up(fibers[i], stack_of(i), run_thread);
    }
    for (;;) {
        if (order > 1) std::shuffle(turns.begin(), turns.end(), random_order);
        for (unsigned turn : turns) {
            if (fibers[turn].state == READY) resume(fibers[turn]);
            if (has_failed) return;
        }
        if (std::all_of(fibers, fibers + threads, [](const Fiber &f) { return f.state == DONE; })) return;
        if (!release_warps() && !release_block()) return fail_stuck();
    }
}

struct Launch {
    unsigned grid[3], block;
    void **values;
    const Span *spans;
    unsigned span_count;
    unsigned order;        // 0: threads and blocks one after the other, 1: backwards, others: a seed
    unsigned first, step;  // the blocks to run
    unsigned phase;        // in: the last one so far, out: now
};

extern "C" __attribute__((visibility("default"))) const char *emu_launch(const emu_kernel *what, Launch *launch) {
    map_stacks();
    const unsigned *grid = launch->grid;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {launch->block, 1, 1};
    threads = launch->block;
    order = launch->order;
    random_order.seed(order);
    kernel = what->call;
    kernel_values = launch->values;
    spans = launch->spans;
    span_count = launch->span_count;
    has_failed = false;
    failed_at = 0;
    phase = launch->phase;
    launch_phase = phase + 1;
    if (size_t(__stop_emu_shared - __start_emu_shared) > MOST_SHARED) fail_block("too much shared memory");
    std::vector<unsigned> blocks(grid[0] * grid[1] * grid[2]);
    std::iota(blocks.begin(), blocks.end(), 0);
    if (order == 1) std::reverse(blocks.begin(), blocks.end());
    if (order > 1) std::shuffle(blocks.begin(), blocks.end(), random_order);
    for (size_t i = launch->first; i < blocks.size() && !has_failed; i += launch->step) {
        const unsigned block = blocks[i];
        blockIdx = {block % grid[0], block / grid[0] % grid[1], block / grid[0] / grid[1]};
        run_block();
    }
    launch->phase = phase;
    return has_failed ? message : nullptr;
}

extern "C" __attribute__((visibility("default"))) size_t emu_failed_at() { return failed_at; }

// What g++ calls before accesses, and where an index of a local or shared array or a division goes wrong.
#define CALLBACKS(bytes)                                                                              \
    extern "C" void __tsan_read##bytes(void *p) { check(SITE, p, bytes, false); }                     \
    extern "C" void __tsan_write##bytes(void *p) { check(SITE, p, bytes, true); }                     \
    extern "C" void __tsan_unaligned_read##bytes(void *p) { check(SITE, p, bytes, false); }           \
    extern "C" void __tsan_unaligned_write##bytes(void *p) { check(SITE, p, bytes, true); }
CALLBACKS(1)
CALLBACKS(2)
CALLBACKS(4)
CALLBACKS(8)
CALLBACKS(16)
extern "C" void __tsan_read_range(void *p, size_t bytes) { check(SITE, p, bytes, false); }
extern "C" void __tsan_write_range(void *p, size_t bytes) { check(SITE, p, bytes, true); }
extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void *) {}
extern "C" void __tsan_func_exit(void *) {}
extern "C" void __ubsan_handle_out_of_bounds(void *, size_t index) {
    fail(SITE, "index %lld is outside of its array", static_cast<long long>(index));
}
extern "C" void __ubsan_handle_divrem_overflow(void *, size_t, size_t) { fail(SITE, "division by zero"); }
