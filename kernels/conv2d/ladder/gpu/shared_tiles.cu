// The product of the im2col matrix (im2col.cu) and the weights, in tiles that lie in shared memory:
//
//     y[m][n] = epilogue(sum over k of matrix[m][k] * weights[k][n]),    m < M, n < F, k < K = KH * KW * C
//
// matrix is [M][K]; weights HWIO, which is [K][F]; y NHWC, which is [M][F]; row after row.
//
// A block computes TILE x TILE numbers of y, a thread one. In steps of TILE along k every thread first fetches one
// number of each factor into shared memory, where then all threads of its row (or column) find it: a number that the
// block fetched is used TILE times. Threads side by side have neighbouring n, and fetch what lies side by side.
#include "conv2d/epilogue.cuh"

extern "C" __global__ void __launch_bounds__(TILE * TILE)
    conv_shared_tiles(const float *__restrict__ matrix, const float *__restrict__ weights,
                      const float *__restrict__ bias, const float *__restrict__ residual, float *__restrict__ y,
                      int rows, int depth, int f, int oh, int ow, EPILOGUE_PARAMETERS)
{
    __shared__ float a[TILE][TILE];
    __shared__ float b[TILE][TILE];
    const Epilogue epilogue = EPILOGUE;
    const int tx = threadIdx.x % TILE, ty = threadIdx.x / TILE;
    const int m = blockIdx.x * TILE + ty, n = blockIdx.y * TILE + tx;

    float sum = 0.0f;
    for (int k = 0; k < depth; k += TILE) {
        // Outside of the factors are zeros, which add nothing.
        a[ty][tx] = m < rows && k + tx < depth ? __ldg(matrix + m * depth + k + tx) : 0.0f;
        b[ty][tx] = k + ty < depth && n < f ? __ldg(weights + (k + ty) * f + n) : 0.0f;
        __syncthreads();  // the tiles are there
#pragma unroll
        for (int i = 0; i < TILE; ++i)
            sum = fmaf(a[ty][i], b[i][tx], sum);
        __syncthreads();  // nobody reads them any more
    }

    if (m < rows && n < f) {
        const int row = epilogue.residual ? residual_row(m, oh, ow, f, epilogue) : 0;
        y[m * f + n] = finished(sum, row, n, epilogue);
    }
}
