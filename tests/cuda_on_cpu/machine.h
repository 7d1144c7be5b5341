// What the code of a kernel sees of the machine that runs it (machine.cpp).
#pragma once

using size_t = decltype(sizeof 0);

struct emu_index {
    unsigned x, y, z;
};
constexpr unsigned EMU_SLOT = 64;  // bytes a thread can show to its warp

// Barriers. `line` tells one barrier from another: threads that wait at different ones are divergent.
void emu_sync_block(int line);
void emu_sync_warp(int line);

// Shows `value` to the warp and waits for all its threads; lane i's value then lies at result + i * EMU_SLOT.
const char *emu_exchange(int line, const void *value, unsigned bytes);

unsigned emu_lane();
unsigned emu_lanes();  // threads of this warp
[[noreturn]] void emu_fail(const char *message);

// *to = *from as one access of that many bytes.
void emu_copy(void *to, const void *from, unsigned bytes);
