// What happens to a sum of products before it is written, the sums of all of an output pixel's taps and channels:
//
//     y[m][n] = clamp(clip(sum + bias[n], -bound, bound) + residual[pixel of m][n], low, high)
//
// residual [N, RH, RW, F] is read with a stride, as slim's subsample reads a shortcut.
#include "cuda/numbers.cuh"

struct Epilogue {
    const float *bias;      // [F], or null
    const float *residual;  // or null
    int residual_h, residual_w, residual_stride;
    float bound, low, high;
};

#define EPILOGUE_PARAMETERS int residual_h, int residual_w, int residual_stride, float bound, float low, float high
#define EPILOGUE {bias, residual, residual_h, residual_w, residual_stride, bound, low, high}

// Where the numbers that are added to row m begin in the residual.
__device__ __forceinline__ int residual_row(int m, int oh, int ow, int f, const Epilogue &epilogue)
{
    if (epilogue.residual_stride == 1)
        return m * f;
    const int row = m / ow;
    const int image = row / oh;
    const int ry = (row - image * oh) * epilogue.residual_stride;
    const int rx = (m - row * ow) * epilogue.residual_stride;
    return ((image * epilogue.residual_h + ry) * epilogue.residual_w + rx) * f;
}

// One number of channel n; `row` from residual_row.
__device__ __forceinline__ float finished(float sum, int row, int n, const Epilogue &epilogue)
{
    if (epilogue.bias)
        sum += __ldg(epilogue.bias + n);
    sum = clamp(sum, -epilogue.bound, epilogue.bound);
    if (epilogue.residual)
        sum += __ldg(epilogue.residual + row + n);
    return clamp(sum, epilogue.low, epilogue.high);
}

__device__ __forceinline__ float4 plus(float4 a, float4 b)
{
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

__device__ __forceinline__ float4 clamp(float4 v, float low, float high)
{
    return make_float4(clamp(v.x, low, high), clamp(v.y, low, high), clamp(v.z, low, high), clamp(v.w, low, high));
}

// Four numbers from channel n on, where n and F are divisible by 4.
__device__ __forceinline__ float4 finished(float4 sum, int row, int n, const Epilogue &epilogue)
{
    if (epilogue.bias)
        sum = plus(sum, __ldg((const float4 *)(epilogue.bias + n)));
    sum = clamp(sum, -epilogue.bound, epilogue.bound);
    if (epilogue.residual)
        sum = plus(sum, __ldg((const float4 *)(epilogue.residual + row + n)));
    return clamp(sum, epilogue.low, epilogue.high);
}

// y[m][column], and the three behind it, from their sums; those that y has not are left out. `row` from residual_row.
// NVEC: F is divisible by 4, so that y has all of them or none.
__device__ __forceinline__ void write_four(float *y, float4 sums, int m, int column, int f, int row,
                                           const Epilogue &epilogue)
{
    float *const to = y + (size_t)m * f + column;
#if NVEC
    if (column < f)
        *(float4 *)to = finished(sums, row, column, epilogue);
#else
    float single[4];
    spread(single, sums);
#pragma unroll
    for (int j = 0; j < 4; ++j)
        if (column + j < f)
            to[j] = finished(single[j], row, column + j, epilogue);
#endif
}
