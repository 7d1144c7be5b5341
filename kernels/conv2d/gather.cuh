// Where the numbers of the im2col matrix lie in x [N, H, W, C]. The matrix itself is never made:
//
//     A[m][k] = x[image][oy * stride_y + ky * rate_y - before_y][ox * stride_x + kx * rate_x - before_x][channel]
//     m = (image, oy, ox)  of [N, OH, OW],    k = (ky, kx, channel)  of [KH, KW, C];    outside of x: 0
//
// POINT: the kernel is 1x1 and nothing is padded, so that there are no taps to walk and no edges to test.

struct Convolution {
    int n, h, w, c;
    int oh, ow, f;
    int kh, kw;
    int stride_y, stride_x, rate_y, rate_x, before_y, before_x;
};

// The parameters that every convolution kernel begins with, and the struct made of them.
#define CONVOLUTION_PARAMETERS                                                                                     \
    const float *__restrict__ x, const float *__restrict__ weights, const float *__restrict__ bias,                \
        const float *__restrict__ residual, float *__restrict__ y, int n, int h, int w, int c, int oh, int ow,     \
        int f, int kh, int kw, int stride_y, int stride_x, int rate_y, int rate_x, int before_y, int before_x
#define CONVOLUTION {n, h, w, c, oh, ow, f, kh, kw, stride_y, stride_x, rate_y, rate_x, before_y, before_x}

// A row of A: where the window of one output pixel begins. `offset` may lie outside of x; then its taps do too.
struct Pixel {
    int offset;
    int top;
    int left;
};

// A column of A.
struct Tap {
    int ky;
    int kx;
    int channel;
};

__device__ __forceinline__ Pixel pixel_at(int m, const Convolution &conv)
{
    if (m >= conv.n * conv.oh * conv.ow)
        return {0, -(1 << 28), 0};  // far above every image, so that none of its taps is inside
    const int row = m / conv.ow;
    const int image = row / conv.oh;
    const int top = (row - image * conv.oh) * conv.stride_y - conv.before_y;
    const int left = (m - row * conv.ow) * conv.stride_x - conv.before_x;
    return {((image * conv.h + top) * conv.w + left) * conv.c, top, left};
}

__device__ __forceinline__ Tap tap_at(int k, const Convolution &conv)
{
#if POINT
    return {0, 0, k};
#else
    const int tap = k / conv.c;
    const int ky = tap / conv.kw;
    return {ky, tap - ky * conv.kw, k - tap * conv.c};
#endif
}

// The column `step` further on.
__device__ __forceinline__ void advance(Tap &tap, int step, const Convolution &conv)
{
    tap.channel += step;
#if !POINT
    while (tap.channel >= conv.c) {
        tap.channel -= conv.c;
        if (++tap.kx == conv.kw) {
            tap.kx = 0;
            ++tap.ky;
        }
    }
#endif
}

// From the begin of the window to the tap.
__device__ __forceinline__ int offset_of(const Tap &tap, const Convolution &conv)
{
#if POINT
    return tap.channel;
#else
    return (tap.ky * conv.rate_y * conv.w + tap.kx * conv.rate_x) * conv.c + tap.channel;
#endif
}

// Whether the tap reads x: rows below the last and columns behind the last of A read nothing either.
__device__ __forceinline__ bool is_inside(const Pixel &pixel, const Tap &tap, const Convolution &conv)
{
#if POINT
    return pixel.top >= 0 && tap.channel < conv.c;
#else
    const int row = pixel.top + tap.ky * conv.rate_y;
    const int column = pixel.left + tap.kx * conv.rate_x;
    return tap.ky < conv.kh && (unsigned)row < (unsigned)conv.h && (unsigned)column < (unsigned)conv.w;
#endif
}
