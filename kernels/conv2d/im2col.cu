// The im2col matrix itself [N * OH * OW][KH * KW * C], for study: what the convolution (gpu.cu) gathers on the way.
// A thread takes every (gridDim.x * blockDim.x)th number; neighbours write neighbours.
#define POINT 0
#include "conv2d/gather.cuh"

extern "C" __global__ void im2col(const float *__restrict__ x, float *__restrict__ matrix, int n, int h, int w, int c,
                                  int oh, int ow, int kh, int kw, int stride_y, int stride_x, int rate_y, int rate_x,
                                  int before_y, int before_x)
{
    const int f = 0;
    const Convolution conv = CONVOLUTION;
    const int columns = kh * kw * c;
    const long long size = (long long)n * oh * ow * columns;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < size;
         i += (long long)gridDim.x * blockDim.x) {
        const int m = (int)(i / columns);
        const Pixel pixel = pixel_at(m, conv);
        const Tap tap = tap_at((int)(i - (long long)m * columns), conv);
        matrix[i] = is_inside(pixel, tap, conv) ? __ldg(x + pixel.offset + offset_of(tap, conv)) : 0.0f;
    }
}
