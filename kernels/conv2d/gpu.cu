// Convolution as a matrix product whose left side is gathered on the way ("implicit GEMM"), in float32:
//
//     y[m][n] = epilogue(sum over k of A[m][k] * weights[k][n]),    A as gather.cuh says, m < M, n < F, k < K
//
// x is NHWC; weights HWIO, which is [K][F] row after row; y NHWC, which is [M][F].
//
// A block computes BM x BN numbers of y, a thread TM x TN of them in registers: of the numbers that it reads from shared
// memory, each is used TM or TN times. Steps of BK along k go through shared memory, in two buffers: while one is
// multiplied, the next step's numbers are on their way into registers. A is kept there with k first, so that a thread
// reads four neighbouring rows at once. With grid.z > 1 each z sums a part of k into a y of its own (see reduce.cu).
//
// KVEC: C is divisible by 4, so that x is read in fours; NVEC: F is, so that weights, bias, residual and y are read and
// written in fours. The arrays then begin at multiples of 16 bytes. MIN_BLOCKS: that fit on a multiprocessor.
#include "conv2d/gather.cuh"
#include "conv2d/epilogue.cuh"

#define THREADS ((BM / TM) * (BN / TN))
// Rows lie BM + 4 apart: what a warp writes there, 16 rows of 8 columns, falls into 32 different banks.
#define LDA (BM + 4)
// In fours, a thread loads one column four of A in rows THREADS / 2 apart: two neighbours read the 32 bytes of a sector.
#define A_FOURS (BM * BK / 4 / THREADS)
// One by one, a column in rows THREADS / BK apart.
#define A_ONES (BM * BK / THREADS)
#define B_FOURS (BK * BN / 4 / THREADS)
#define B_ONES (BK * BN / THREADS)
#define WARPS_ACROSS (BN / TN / 8)

static_assert(TM % 4 == 0 && TN % 4 == 0 && (BM / TM) % 4 == 0 && (BN / TN) % 8 == 0, "a warp is 4 x 8 threads");
static_assert(LDA % 4 == 0, "every four rows of A begin at a multiple of 16 bytes");
static_assert(BK % 8 == 0 && A_FOURS * THREADS * 4 == BM * BK, "whole loads of A");
static_assert(A_FOURS == 1 || BK == 8, "all loads of A by a thread are of one column");
static_assert(THREADS % BK == 0 && BM % (THREADS / BK) == 0, "whole loads of A, one by one");
static_assert(B_FOURS * THREADS * 4 == BK * BN, "whole loads of B");

struct Tiles {
    float a[BK][LDA];
    float b[BK][BN];
};

// A thread's part of the loads: what it gathers of A, and its numbers in registers on their way to shared memory.
struct Loader {
    Tap tap;
#if KVEC
    Pixel pixels[A_FOURS];
    float4 a[A_FOURS];
    static constexpr int LOADS = A_FOURS;
    static __device__ __forceinline__ int row(int i) { return (threadIdx.x / 2 + i * (THREADS / 2)) % BM; }
    static __device__ __forceinline__ int column() { return threadIdx.x % 2 * 4 + threadIdx.x / 2 / BM * 8; }
#else
    Pixel pixels[A_ONES];
    float a[A_ONES];
    static constexpr int LOADS = A_ONES;
    static __device__ __forceinline__ int row(int i) { return threadIdx.x / BK + i * (THREADS / BK); }
    static __device__ __forceinline__ int column() { return threadIdx.x % BK; }
#endif
#if NVEC
    float4 b[B_FOURS];
#else
    float b[B_ONES];
#endif

    __device__ __forceinline__ void begin(int first_m, int first_k, const Convolution &conv)
    {
        tap = tap_at(first_k + column(), conv);
#pragma unroll
        for (int i = 0; i < LOADS; ++i)
            pixels[i] = pixel_at(first_m + row(i), conv);
    }

    // The step that begins at k, into registers.
    __device__ __forceinline__ void load(const float *x, const float *weights, int k, int depth, int first_n,
                                         const Convolution &conv)
    {
        const int offset = offset_of(tap, conv);
#pragma unroll
        for (int i = 0; i < LOADS; ++i) {
            const bool inside = is_inside(pixels[i], tap, conv);
#if KVEC
            a[i] = make_float4(0, 0, 0, 0);
            if (inside)
                a[i] = __ldg((const float4 *)(x + pixels[i].offset + offset));
#else
            a[i] = inside ? __ldg(x + pixels[i].offset + offset) : 0.0f;
#endif
        }
        advance(tap, BK, conv);
#if NVEC
#pragma unroll
        for (int i = 0; i < B_FOURS; ++i) {
            const int number = threadIdx.x + i * THREADS;
            const int row = k + number / (BN / 4), column = first_n + number % (BN / 4) * 4;
            b[i] = make_float4(0, 0, 0, 0);
            if (row < depth && column < conv.f)
                b[i] = __ldg((const float4 *)(weights + row * conv.f + column));
        }
#else
#pragma unroll
        for (int i = 0; i < B_ONES; ++i) {
            const int number = threadIdx.x + i * THREADS;
            const int row = k + number / BN, column = first_n + number % BN;
            b[i] = row < depth && column < conv.f ? __ldg(weights + row * conv.f + column) : 0.0f;
        }
#endif
    }

    // From registers to shared memory.
    __device__ __forceinline__ void store(Tiles &tiles) const
    {
#pragma unroll
        for (int i = 0; i < LOADS; ++i) {
#if KVEC
            tiles.a[column()][row(i)] = a[i].x;
            tiles.a[column() + 1][row(i)] = a[i].y;
            tiles.a[column() + 2][row(i)] = a[i].z;
            tiles.a[column() + 3][row(i)] = a[i].w;
#else
            tiles.a[column()][row(i)] = a[i];
#endif
        }
#if NVEC
#pragma unroll
        for (int i = 0; i < B_FOURS; ++i) {
            const int number = threadIdx.x + i * THREADS;
            *(float4 *)&tiles.b[number / (BN / 4)][number % (BN / 4) * 4] = b[i];
        }
#else
#pragma unroll
        for (int i = 0; i < B_ONES; ++i) {
            const int number = threadIdx.x + i * THREADS;
            tiles.b[number / BN][number % BN] = b[i];
        }
#endif
    }
};

// Where a thread's four rows (or columns) number `four` lie in the block's: fours are spread over the block, so that
// neighbouring threads read neighbouring numbers of shared memory.
__device__ __forceinline__ int row_four(int four, int ty) { return four * (BM / (TM / 4)) + ty * 4; }
__device__ __forceinline__ int column_four(int four, int tx) { return four * (BN / (TN / 4)) + tx * 4; }

// sums += the product of the tiles.
__device__ __forceinline__ void multiply(const Tiles &tiles, float (&sums)[TM][TN], int ty, int tx)
{
#pragma unroll
    for (int k = 0; k < BK; ++k) {
        float a[TM], b[TN];
#pragma unroll
        for (int four = 0; four < TM / 4; ++four)
            spread(a + four * 4, *(const float4 *)&tiles.a[k][row_four(four, ty)]);
#pragma unroll
        for (int four = 0; four < TN / 4; ++four)
            spread(b + four * 4, *(const float4 *)&tiles.b[k][column_four(four, tx)]);
#pragma unroll
        for (int i = 0; i < TM; ++i)
#pragma unroll
            for (int j = 0; j < TN; ++j)
                sums[i][j] = fmaf(a[i], b[j], sums[i][j]);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
    conv_float32(CONVOLUTION_PARAMETERS, int k_per_split, EPILOGUE_PARAMETERS)
{
    __shared__ __align__(16) Tiles tiles[2];
    const Convolution conv = CONVOLUTION;
    const Epilogue epilogue = EPILOGUE;
    const int rows = n * oh * ow, depth = kh * kw * c;
    const int first_m = blockIdx.x * BM, first_n = blockIdx.y * BN;
    const int first_k = blockIdx.z * k_per_split, last_k = min(depth, first_k + k_per_split);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int tx = warp % WARPS_ACROSS * 8 + lane % 8, ty = warp / WARPS_ACROSS * 4 + lane / 8;

    float sums[TM][TN] = {};
    Loader loader;
    loader.begin(first_m, first_k, conv);
    loader.load(x, weights, first_k, depth, first_n, conv);
    loader.store(tiles[0]);
    __syncthreads();
    int buffer = 0;
#pragma unroll 1
    for (int k = first_k; k < last_k; k += BK) {
        const bool is_last = k + BK >= last_k;
        if (!is_last)
            loader.load(x, weights, k + BK, depth, first_n, conv);
        multiply(tiles[buffer], sums, ty, tx);
        if (!is_last)
            loader.store(tiles[buffer ^ 1]);
        __syncthreads();
        buffer ^= 1;
    }

    y += (size_t)blockIdx.z * rows * f;
#pragma unroll
    for (int i = 0; i < TM; ++i) {
        const int m = first_m + row_four(i / 4, ty) + i % 4;
        if (m >= rows)
            continue;
        const int row = epilogue.residual ? residual_row(m, oh, ow, f, epilogue) : 0;
#pragma unroll
        for (int four = 0; four < TN / 4; ++four) {
            const float *sum = sums[i] + four * 4;
            const int column = first_n + column_four(four, tx);
            write_four(y, make_float4(sum[0], sum[1], sum[2], sum[3]), m, column, f, row, epilogue);
        }
    }
}
