// What happens to each value by itself: bias, activation, and the end of a residual unit.
//
// Arrays are flat, of `count` values. Each thread walks them in steps of the whole grid, so that neighbouring threads
// always read neighbouring values. `y` may be an input (but for add_bias): a value is read and written by one thread.

#include "cuda/numbers.cuh"

// y = x + bias, over the last axis of x [..., channels].
extern "C" __global__ void add_bias(
    const float* __restrict__ x, const float* __restrict__ bias, int channels, int count, float* __restrict__ y)
{
    const unsigned step = gridDim.x * blockDim.x;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step)
        y[i] = x[i] + bias[i % channels];
}

// y = clamp(x).
extern "C" __global__ void activate(const float* x, float low, float high, int count, float* y)
{
    const unsigned step = gridDim.x * blockDim.x;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step)
        y[i] = clamp(x[i], low, high);
}

// y = clamp(shortcut + clip(residual, -bound, bound)).
extern "C" __global__ void add(
    const float* shortcut, const float* residual, float bound, float low, float high, int count, float* y)
{
    const unsigned step = gridDim.x * blockDim.x;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step)
        y[i] = clamp(shortcut[i] + clamp(residual[i], -bound, bound), low, high);
}
