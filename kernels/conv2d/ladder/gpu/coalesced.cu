// Convolution as it is defined, a thread a number of y:
//
//     y[m][filter] = epilogue(sum over ky, kx, channel of A[m][ky, kx, channel] * weights[ky, kx, channel][filter])
//
// A is the im2col matrix as gather.cuh says, m < M, filter < F; nothing of it is kept. x is NHWC; weights HWIO; y NHWC,
// which is [M][F].
//
// The threads of all blocks are numbered through, filters first, as y lies in memory: neighbours compute neighbouring
// filters of the same pixel. Their weights lie side by side, and what they write; what they read of x is one number.
#define POINT 0
#include "conv2d/gather.cuh"
#include "conv2d/epilogue.cuh"

extern "C" __global__ void conv_coalesced(CONVOLUTION_PARAMETERS, EPILOGUE_PARAMETERS)
{
    const Convolution conv = CONVOLUTION;
    const Epilogue epilogue = EPILOGUE;
    const int pixels = n * oh * ow;
    const int number = blockIdx.x * blockDim.x + threadIdx.x;
    if (number >= pixels * f)
        return;
    const int m = number / f, filter = number % f;

    const Pixel pixel = pixel_at(m, conv);
    float sum = 0.0f;
    for (int ky = 0; ky < kh; ++ky)
        for (int kx = 0; kx < kw; ++kx)
            for (int channel = 0; channel < c; ++channel) {
                const Tap tap = {ky, kx, channel};
                const float a = is_inside(pixel, tap, conv) ? __ldg(x + pixel.offset + offset_of(tap, conv)) : 0.0f;
                sum = fmaf(a, __ldg(weights + ((ky * kw + kx) * c + channel) * f + filter), sum);
            }

    const int row = epilogue.residual ? residual_row(m, oh, ow, f, epilogue) : 0;
    y[m * f + filter] = finished(sum, row, filter, epilogue);
}
