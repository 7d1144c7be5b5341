// Max pooling of NHWC: y[n, oy, ox, c] = the largest x[n, iy, ix, c] under the window of output (oy, ox), with
//
//     iy = oy * row_stride + ky * row_rate - rows_before,    ky = 0 .. row_taps - 1
//
// and ix alike. What lies outside of the input is padding; padding and NaN never win, and where there is nothing else,
// or only -inf, the lowest float does.
//
// Each thread walks the outputs in steps of the whole grid; neighbouring threads have neighbouring channels, so that a
// warp reads each tap of its outputs side by side.

#define LOWEST -3.402823466e+38f

extern "C" __global__ void max_pool2d(
    const float* __restrict__ x, int height, int width, int channels,
    int row_taps, int row_stride, int row_rate, int rows_before,
    int col_taps, int col_stride, int col_rate, int cols_before,
    int out_height, int out_width, int count, float* __restrict__ y)
{
    const unsigned step = gridDim.x * blockDim.x;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        const int channel = i % channels;
        const int pixel = i / channels;
        const int ox = pixel % out_width;
        const int oy = pixel / out_width % out_height;
        const int n = pixel / out_width / out_height;
        const float* image = x + (size_t)n * height * width * channels;
        float largest = LOWEST;
        for (int ky = 0; ky < row_taps; ++ky) {
            const int iy = oy * row_stride + ky * row_rate - rows_before;
            if (iy < 0 || iy >= height)
                continue;
            for (int kx = 0; kx < col_taps; ++kx) {
                const int ix = ox * col_stride + kx * col_rate - cols_before;
                if (ix < 0 || ix >= width)
                    continue;
                const float value = image[((size_t)iy * width + ix) * channels + channel];
                largest = value > largest ? value : largest;  // never true for NaN
            }
        }
        y[i] = largest;
    }
}
