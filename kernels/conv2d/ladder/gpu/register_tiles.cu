// The product of the im2col matrix (im2col.cu) and the weights, in tiles in shared memory and tiles in registers:
//
//     y[m][n] = epilogue(sum over k of matrix[m][k] * weights[k][n]),    m < M, n < F, k < K = KH * KW * C
//
// matrix is [M][K]; weights HWIO, which is [K][F]; y NHWC, which is [M][F]; row after row.
//
// A block computes BM x BN numbers of y, a thread TM x TN of them: rows ty, ty + ROWS, ty + 2 ROWS ..., columns tx,
// tx + COLUMNS ... For one k it reads TM + TN numbers from shared memory into registers and makes TM * TN products of
// them. Steps of BK along k are fetched by all threads together, one number after the other.
//
// A warp is 4 rows of 8 threads. It reads 4 different numbers of a, whose rows lie BK = 8 banks apart, and 8 neighbours
// of b: never two of one bank. With BK = 8 a row of a is 32 bytes of the matrix, as much as memory hands out at once.
#include "conv2d/epilogue.cuh"

#define ROWS (BM / TM)
#define COLUMNS (BN / TN)
#define THREADS (ROWS * COLUMNS)

static_assert(BM % TM == 0 && BN % TN == 0 && COLUMNS == 8 && BK == 8, "warps of 4 x 8 threads, rows 8 banks apart");
static_assert(BM * BK % THREADS == 0 && BK * BN % THREADS == 0, "every thread fetches as much as the others");

extern "C" __global__ void __launch_bounds__(THREADS)
    conv_register_tiles(const float *__restrict__ matrix, const float *__restrict__ weights,
                        const float *__restrict__ bias, const float *__restrict__ residual, float *__restrict__ y,
                        int rows, int depth, int f, int oh, int ow, EPILOGUE_PARAMETERS)
{
    __shared__ float a[BM][BK];
    __shared__ float b[BK][BN];
    const Epilogue epilogue = EPILOGUE;
    const int first_m = blockIdx.x * BM, first_n = blockIdx.y * BN;
    const int tx = threadIdx.x % COLUMNS, ty = threadIdx.x / COLUMNS;

    float sums[TM][TN] = {};
    for (int first_k = 0; first_k < depth; first_k += BK) {
        // Outside of the factors are zeros, which add nothing.
#pragma unroll
        for (int number = threadIdx.x; number < BM * BK; number += THREADS) {
            const int m = first_m + number / BK, k = first_k + number % BK;
            a[number / BK][number % BK] = m < rows && k < depth ? __ldg(matrix + m * depth + k) : 0.0f;
        }
#pragma unroll
        for (int number = threadIdx.x; number < BK * BN; number += THREADS) {
            const int k = first_k + number / BN, n = first_n + number % BN;
            b[number / BN][number % BN] = k < depth && n < f ? __ldg(weights + k * f + n) : 0.0f;
        }
        __syncthreads();  // the tiles are there
#pragma unroll
        for (int k = 0; k < BK; ++k) {
            float column[TM], row[TN];  // of a, and of b
#pragma unroll
            for (int i = 0; i < TM; ++i)
                column[i] = a[ty + i * ROWS][k];
#pragma unroll
            for (int j = 0; j < TN; ++j)
                row[j] = b[k][tx + j * COLUMNS];
#pragma unroll
            for (int i = 0; i < TM; ++i)
#pragma unroll
                for (int j = 0; j < TN; ++j)
                    sums[i][j] = fmaf(column[i], row[j], sums[i][j]);
        }
        __syncthreads();  // nobody reads them any more
    }

#pragma unroll
    for (int i = 0; i < TM; ++i) {
        const int m = first_m + ty + i * ROWS;
        if (m >= rows)
            continue;
        const int residual_begin = epilogue.residual ? residual_row(m, oh, ow, f, epilogue) : 0;
#pragma unroll
        for (int j = 0; j < TN; ++j) {
            const int n = first_n + tx + j * COLUMNS;
            if (n < f)
                y[m * f + n] = finished(sums[i][j], residual_begin, n, epilogue);
        }
    }
}
