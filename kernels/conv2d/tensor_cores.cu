// Convolution as a matrix product whose left side is gathered on the way, as in gpu.cu, on tensor cores:
//
//     y[m][n] = epilogue(sum over k of A[m][k] * weights[k][n]),    A as gather.cuh says, m < M, n < F, k < K
//
// x, weights and y are float32. Each number is rounded once, between registers and shared memory, to what one of these
// precisions multiplies (see tensor_cores.md); products are exact and are summed in float32.
//
//     TF32        one product of tf32
//     TF32X3      numbers are sums of two of tf32, big + small; three products, all but small * small
//     BFLOAT16    one product of bfloat16
//
// A block computes BM x BN numbers of y, a warp WM x WN of them, in tiles of 16 x 8 whose sums lie in its threads'
// registers. Steps of BK along k go through shared memory, in two buffers: while one is multiplied, the next step's
// numbers are on their way into registers. With grid.z > 1 each z sums a part of k into a y of its own (see reduce.cu).
//
// KVEC: C is divisible by 4, so that x is read in fours; NVEC: F is, so that weights, bias, residual and y are read and
// written in fours. The arrays then begin at multiples of 16 bytes. MIN_BLOCKS: that fit on a multiprocessor.
#include "conv2d/gather.cuh"
#include "conv2d/epilogue.cuh"
#include "cuda/tensor_core.cuh"

#if TF32 + TF32X3 + BFLOAT16 != 1
#error "define one of TF32, TF32X3 and BFLOAT16"
#endif

// A word of shared memory holds PER_WORD numbers that follow each other along k; a number is in PARTS words.
#if BFLOAT16
constexpr int PER_WORD = 2;
#else
constexpr int PER_WORD = 1;
#endif
#if TF32X3
constexpr int PARTS = 2, BIG = 0, SMALL = 1;
#else
constexpr int PARTS = 1;
#endif
constexpr int DEPTH = BK / PER_WORD;  // words of a step
constexpr int THREADS = (BM / WM) * (BN / WN) * 32;

// A thread loads A_RUN numbers of a row of A at once, in rows A_STRIDE apart, and B_RUN of each of PER_WORD rows of B.
constexpr int A_RUN = KVEC ? 4 : PER_WORD;
constexpr int A_ACROSS = BK / A_RUN, A_STRIDE = THREADS / A_ACROSS, A_LOADS = BM / A_STRIDE;
constexpr int TAPS = KVEC ? 1 : PER_WORD;  // of a run: four channels of one pixel are read at once
constexpr int B_RUN = NVEC ? 4 : 1;
constexpr int B_ACROSS = BN / B_RUN, B_LOADS = DEPTH * B_ACROSS / THREADS;

static_assert(BM % WM == 0 && BN % WN == 0 && WM % 16 == 0 && WN % 8 == 0, "a warp has whole tiles of 16 x 8");
static_assert(DEPTH == 8 || DEPTH == 16 || DEPTH == 32, "steps of whole products, and rows that `swizzle` knows");
static_assert(THREADS % A_ACROSS == 0 && A_LOADS > 0 && A_LOADS * A_STRIDE == BM, "whole loads of A");
static_assert(B_LOADS > 0 && B_LOADS * THREADS == DEPTH * B_ACROSS, "whole loads of B");

struct Tiles {
    unsigned a[PARTS][BM][DEPTH];
    // Rows lie 8 banks apart: what a warp reads, 4 rows of 8 columns, falls into 32 different banks.
    unsigned b[PARTS][DEPTH][BN + 8];
};

// Word k of a row of A lies at k ^ swizzle(row): from one 128 bytes to the next, fours of words change places. A warp
// reads the same four of 8 rows, which so fall into 32 different banks; whole rows, as it writes them, do in any order.
// The same for rows 8 apart.
__device__ __forceinline__ int swizzle(int row) { return row * DEPTH / 32 * 4 % DEPTH; }

// The words to multiply in place of numbers: their parts add up to the numbers, but for what is rounded off.
template <int WORDS>
__device__ __forceinline__ void split(const float (&numbers)[WORDS * PER_WORD], unsigned (&parts)[PARTS][WORDS])
{
#pragma unroll
    for (int i = 0; i < WORDS; ++i) {
#if TF32
        parts[0][i] = to_tf32(numbers[i]);
#elif BFLOAT16
        parts[0][i] = pack_bf16(numbers[2 * i], numbers[2 * i + 1]);
#else
        unsigned big = to_tf32(numbers[i]);
        if ((big & 0x7f800000u) == 0x7f800000u)  // the largest numbers are cut, lest they be rounded up to infinity
            big = __float_as_uint(numbers[i]);
        parts[BIG][i] = big & 0xffffe000u;
        parts[SMALL][i] = to_tf32(numbers[i] - __uint_as_float(parts[BIG][i]));
#endif
    }
}

__device__ __forceinline__ void write(unsigned *to, const unsigned (&words)[1]) { *to = words[0]; }
__device__ __forceinline__ void write(unsigned *to, const unsigned (&words)[2])
{
    *(uint2 *)to = make_uint2(words[0], words[1]);
}
__device__ __forceinline__ void write(unsigned *to, const unsigned (&words)[4])
{
    *(uint4 *)to = make_uint4(words[0], words[1], words[2], words[3]);
}

// A thread's part of the loads: what it gathers of A, and its numbers in registers on their way to shared memory.
struct Loader {
    Tap taps[TAPS];
    Pixel pixels[A_LOADS];
    float a[A_LOADS][A_RUN];
    float b[B_LOADS][B_RUN * PER_WORD];  // one column after the other

    static __device__ __forceinline__ int a_row(int i) { return threadIdx.x / A_ACROSS + i * A_STRIDE; }
    static __device__ __forceinline__ int a_column() { return threadIdx.x % A_ACROSS * A_RUN; }
    // Of words.
    static __device__ __forceinline__ int b_row(int i) { return (threadIdx.x + i * THREADS) / B_ACROSS; }
    static __device__ __forceinline__ int b_column(int i) { return (threadIdx.x + i * THREADS) % B_ACROSS * B_RUN; }

    __device__ __forceinline__ void begin(int first_m, int first_k, const Convolution &conv)
    {
#pragma unroll
        for (int t = 0; t < TAPS; ++t)
            taps[t] = tap_at(first_k + a_column() + t, conv);
#pragma unroll
        for (int i = 0; i < A_LOADS; ++i)
            pixels[i] = pixel_at(first_m + a_row(i), conv);
    }

    // A's next step, into registers.
    __device__ __forceinline__ void load_a(const float *x, const Convolution &conv)
    {
#pragma unroll
        for (int t = 0; t < TAPS; ++t) {
            const int offset = offset_of(taps[t], conv);
#pragma unroll
            for (int i = 0; i < A_LOADS; ++i) {
                const bool inside = is_inside(pixels[i], taps[t], conv);
                const float *const from = x + pixels[i].offset + offset;
#if KVEC
                float4 four = make_float4(0, 0, 0, 0);
                if (inside)
                    four = __ldg((const float4 *)from);
                spread(a[i], four);
#else
                a[i][t] = inside ? __ldg(from) : 0.0f;
#endif
            }
            advance(taps[t], BK, conv);
        }
    }

    // B's step that begins at k, into registers.
    __device__ __forceinline__ void load_b(const float *weights, int k, int depth, int first_n, int f)
    {
#pragma unroll
        for (int i = 0; i < B_LOADS; ++i) {
            const int column = first_n + b_column(i);
#pragma unroll
            for (int half = 0; half < PER_WORD; ++half) {
                const int row = k + b_row(i) * PER_WORD + half;
                const bool inside = row < depth && column < f;
                const float *const from = weights + row * f + column;
#if NVEC
                float four[4] = {};
                if (inside)
                    spread(four, __ldg((const float4 *)from));
#pragma unroll
                for (int j = 0; j < 4; ++j)
                    b[i][j * PER_WORD + half] = four[j];
#else
                b[i][half] = inside ? __ldg(from) : 0.0f;
#endif
            }
        }
    }

    // From registers to shared memory.
    __device__ __forceinline__ void store(Tiles &tiles) const
    {
#pragma unroll
        for (int i = 0; i < A_LOADS; ++i) {
            const int row = a_row(i), column = a_column() / PER_WORD ^ swizzle(row);
            unsigned parts[PARTS][A_RUN / PER_WORD];
            split(a[i], parts);
#pragma unroll
            for (int part = 0; part < PARTS; ++part)
                write(&tiles.a[part][row][column], parts[part]);
        }
#pragma unroll
        for (int i = 0; i < B_LOADS; ++i) {
            unsigned parts[PARTS][B_RUN];
            split(b[i], parts);
#pragma unroll
            for (int part = 0; part < PARTS; ++part)
                write(&tiles.b[part][b_row(i)][b_column(i)], parts[part]);
        }
    }
};

constexpr int ROWS = WM / 16, COLUMNS = WN / 8;  // of a warp's tiles

// d += the product of the numbers that a and b are parts of.
__device__ __forceinline__ void multiply_parts(float (&d)[4], const unsigned (&a)[PARTS][4],
                                               const unsigned (&b)[PARTS][2])
{
#if TF32
    mma_tf32(d, a[0], b[0]);
#elif BFLOAT16
    mma_bf16(d, a[0], b[0]);
#else
    // Tensor cores cut what they add. Adding here instead rounds to nearest, so that long sums do not shrink.
    float sum[4] = {};
    mma_tf32(sum, a[SMALL], b[BIG]);
    mma_tf32(sum, a[BIG], b[SMALL]);
    mma_tf32(sum, a[BIG], b[BIG]);
#pragma unroll
    for (int i = 0; i < 4; ++i)
        d[i] += sum[i];
#endif
}

struct Place {
    int m, n;           // where the warp begins in the block
    int group, member;  // of the thread: see tensor_core.cuh
};

// sums += the product of the tiles.
__device__ __forceinline__ void multiply(const Tiles &tiles, float (&sums)[ROWS][COLUMNS][4], const Place &place)
{
    const int group = place.group, member = place.member;
#pragma unroll
    for (int k = 0; k < DEPTH; k += 8) {
        unsigned a[ROWS][PARTS][4], b[COLUMNS][PARTS][2];
#pragma unroll
        for (int part = 0; part < PARTS; ++part) {
#pragma unroll
            for (int i = 0; i < ROWS; ++i)
#pragma unroll
                for (int q = 0; q < 4; ++q)
                    a[i][part][q] = tiles.a[part][place.m + i * 16 + q % 2 * 8 + group]
                                           [(k + q / 2 * 4 + member) ^ swizzle(group)];
#pragma unroll
            for (int j = 0; j < COLUMNS; ++j)
#pragma unroll
                for (int q = 0; q < 2; ++q)
                    b[j][part][q] = tiles.b[part][k + q * 4 + member][place.n + j * 8 + group];
        }
#pragma unroll
        for (int i = 0; i < ROWS; ++i)
#pragma unroll
            for (int j = 0; j < COLUMNS; ++j)
                multiply_parts(sums[i][j], a[i], b[j]);
    }
}

// Of a tile a thread has two neighbours in each of two rows, 8 apart. Two neighbouring threads swap, and each has four
// in one row: the one with the even member in the upper.
__device__ __forceinline__ float4 four_in_a_row(const float (&sum)[4], bool is_odd)
{
    const float first = __shfl_xor_sync(0xffffffffu, is_odd ? sum[0] : sum[2], 1);
    const float second = __shfl_xor_sync(0xffffffffu, is_odd ? sum[1] : sum[3], 1);
    return is_odd ? make_float4(first, second, sum[2], sum[3]) : make_float4(sum[0], sum[1], first, second);
}

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
    conv_tensor_core(CONVOLUTION_PARAMETERS, int k_per_split, EPILOGUE_PARAMETERS)
{
    __shared__ __align__(16) Tiles tiles[2];
    const Convolution conv = CONVOLUTION;
    const Epilogue epilogue = EPILOGUE;
    const int rows = n * oh * ow, depth = kh * kw * c;
    const int first_m = blockIdx.x * BM, first_n = blockIdx.y * BN;
    const int first_k = blockIdx.z * k_per_split, last_k = min(depth, first_k + k_per_split);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const Place place = {warp / (BN / WN) * WM, warp % (BN / WN) * WN, lane / 4, lane % 4};

    float sums[ROWS][COLUMNS][4] = {};
    Loader loader;
    loader.begin(first_m, first_k, conv);
    loader.load_a(x, conv);
    loader.load_b(weights, first_k, depth, first_n, f);
    loader.store(tiles[0]);
    __syncthreads();
    int buffer = 0;
#pragma unroll 1
    for (int k = first_k; k < last_k; k += BK) {
        const bool is_last = k + BK >= last_k;
        if (!is_last) {
            loader.load_a(x, conv);
            loader.load_b(weights, k + BK, depth, first_n, f);
        }
        multiply(tiles[buffer], sums, place);
        if (!is_last)
            loader.store(tiles[buffer ^ 1]);
        __syncthreads();
        buffer ^= 1;
    }

    y += (size_t)blockIdx.z * rows * f;
    const bool is_odd = place.member % 2;
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
        const int m = first_m + place.m + i * 16 + is_odd * 8 + place.group;
        const int row = epilogue.residual && m < rows ? residual_row(m, oh, ow, f, epilogue) : 0;
#pragma unroll
        for (int j = 0; j < COLUMNS; ++j) {
            const float4 four = four_in_a_row(sums[i][j], is_odd);
            if (m < rows)
                write_four(y, four, m, first_n + place.n + j * 8 + place.member / 2 * 4, f, row, epilogue);
        }
    }
}
