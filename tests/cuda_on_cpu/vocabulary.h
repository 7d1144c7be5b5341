// The words of CUDA C++ that the kernels use, for g++.
#pragma once
#include "machine.h"

// Constant for a thread, so that the compiler may read them once; the machine sets them before a thread goes on.
extern const emu_index threadIdx, blockIdx, blockDim, gridDim;
constexpr int warpSize = 32;

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// See shared.ld. __constinit: a vector has constructors, and g++ would ask before every use whether they have run.
#define __shared__ static __constinit __attribute__((aligned(16)))

// A vector is copied by one access, which must be aligned; without the checker it is a plain struct.
#ifdef EMU_CHECK
#define EMU_COPIES(T)                                                                          \
    T() = default;                                                                             \
    __attribute__((always_inline)) T(const T &other) { emu_copy(this, &other, sizeof other); } \
    __attribute__((always_inline)) T &operator=(const T &other) {                              \
        emu_copy(this, &other, sizeof other);                                                  \
        return *this;                                                                          \
    }
#define EMU_VECTOR2(T, E)                \
    struct __align__(2 * sizeof(E)) T {  \
        E x, y;                          \
        EMU_COPIES(T)                    \
        T(E x, E y) : x(x), y(y) {}      \
    };
#define EMU_VECTOR4(T, E)                                   \
    struct __align__(4 * sizeof(E)) T {                     \
        E x, y, z, w;                                       \
        EMU_COPIES(T)                                       \
        T(E x, E y, E z, E w) : x(x), y(y), z(z), w(w) {}   \
    };
#else
#define EMU_VECTOR2(T, E) struct __align__(2 * sizeof(E)) T { E x, y; };
#define EMU_VECTOR4(T, E) struct __align__(4 * sizeof(E)) T { E x, y, z, w; };
#endif
EMU_VECTOR2(float2, float)
EMU_VECTOR2(int2, int)
EMU_VECTOR2(uint2, unsigned)
EMU_VECTOR2(double2, double)
EMU_VECTOR4(float4, float)
EMU_VECTOR4(int4, int)
EMU_VECTOR4(uint4, unsigned)

inline float2 make_float2(float x, float y) { return {x, y}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline double2 make_double2(double x, double y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

template <class T>
__forceinline__ T __ldg(const T *address) {
    return *address;
}

// g++ knows these functions and makes the instruction of fmaf where the processor has one.
extern "C" {
float expf(float) noexcept;
float logf(float) noexcept;
float sqrtf(float) noexcept;
float fabsf(float) noexcept;
float floorf(float) noexcept;
float fmaf(float, float, float) noexcept;
float fminf(float, float) noexcept;
float fmaxf(float, float) noexcept;
double exp(double) noexcept;
double log(double) noexcept;
double sqrt(double) noexcept;
double fabs(double) noexcept;
double fma(double, double, double) noexcept;
double fmin(double, double) noexcept;
double fmax(double, double) noexcept;
void *memcpy(void *, const void *, size_t) noexcept;
}

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline bool isnan(float a) { return a != a; }
inline bool isnan(double a) { return a != a; }

#define EMU_MINMAX(T)                                \
    inline T min(T a, T b) { return a < b ? a : b; } \
    inline T max(T a, T b) { return a > b ? a : b; }
EMU_MINMAX(int)
EMU_MINMAX(unsigned)
EMU_MINMAX(long long)
EMU_MINMAX(unsigned long long)

template <class To, class From>
inline To emu_bits(From value) {
    static_assert(sizeof(To) == sizeof(From));
    To bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return bits;
}
inline unsigned __float_as_uint(float value) { return emu_bits<unsigned>(value); }
inline int __float_as_int(float value) { return emu_bits<int>(value); }
inline float __uint_as_float(unsigned value) { return emu_bits<float>(value); }
inline float __int_as_float(int value) { return emu_bits<float>(value); }
inline long long __double_as_longlong(double value) { return emu_bits<long long>(value); }
inline double __longlong_as_double(long long value) { return emu_bits<double>(value); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned long long)a * b >> 32; }

inline void __syncthreads(int line = __builtin_LINE()) { emu_sync_block(line); }

// Warps: the kernels only use whole ones, so every other mask is a mistake.
inline void emu_whole_warp(unsigned mask) {
    if (mask != 0xffffffffu) emu_fail("the mask of a warp operation must be 0xffffffff");
}
inline void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE()) {
    emu_whole_warp(mask);
    emu_sync_warp(line);
}
template <class T>
inline T emu_shuffle(unsigned mask, T value, unsigned lane, int line) {
    static_assert(sizeof(T) <= EMU_SLOT);
    emu_whole_warp(mask);
    const char *slots = emu_exchange(line, &value, sizeof value);
    if (lane >= emu_lanes()) emu_fail("a shuffle reads a lane that has no thread");
    __builtin_memcpy(&value, slots + lane * EMU_SLOT, sizeof value);
    return value;
}
// Lanes talk within groups of `width`; one that would read outside its group keeps its own value.
template <class T>
inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32, int line = __builtin_LINE()) {
    return emu_shuffle(mask, value, (emu_lane() & -width) + (lane & (width - 1)), line);
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, int line = __builtin_LINE()) {
    const unsigned me = emu_lane(), lane = me ^ bits;
    return emu_shuffle(mask, value, lane >= (me & -width) + width ? me : lane, line);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, int line = __builtin_LINE()) {
    const unsigned me = emu_lane(), lane = me + delta;
    return emu_shuffle(mask, value, lane >= (me & -width) + width ? me : lane, line);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, int line = __builtin_LINE()) {
    const unsigned me = emu_lane();
    return emu_shuffle(mask, value, (me & (width - 1)) < delta ? me : me - delta, line);
}
