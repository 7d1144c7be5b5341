// Subsampling: y[n, oy, ox, c] = x[n, oy * factor, ox * factor, c], a strided copy of NHWC.
//
// Each thread walks the outputs in steps of the whole grid; neighbouring threads have neighbouring channels.

extern "C" __global__ void subsample(
    const float* __restrict__ x, int height, int width, int channels, int factor,
    int out_height, int out_width, int count, float* __restrict__ y)
{
    const unsigned step = gridDim.x * blockDim.x;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        const int channel = i % channels;
        const int pixel = i / channels;
        const int ox = pixel % out_width;
        const int oy = pixel / out_width % out_height;
        const int n = pixel / out_width / out_height;
        const size_t row = (size_t)n * height + oy * factor;
        y[i] = x[(row * width + ox * factor) * channels + channel];
    }
}
