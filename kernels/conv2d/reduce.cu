// y[i] = epilogue(the sum over z of sums[z][i]): the end of a convolution whose k was split (grid.z of the convolution).
// Always in the order of z, so that a result does not depend on which block was first. A thread takes every
// (gridDim.x * blockDim.x)th number of y [N, OH, OW, F].
#include "conv2d/epilogue.cuh"

extern "C" __global__ void reduce(const float *__restrict__ sums, int splits, const float *__restrict__ bias,
                                  const float *__restrict__ residual, float *__restrict__ y, int size, int oh, int ow,
                                  int f, EPILOGUE_PARAMETERS)
{
    const Epilogue epilogue = EPILOGUE;
    const unsigned step = gridDim.x * blockDim.x;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < size; i += step) {
        float sum = 0.0f;
        for (int z = 0; z < splits; ++z)
            sum += __ldg(sums + (size_t)z * size + i);
        const int m = i / f;
        const int row = epilogue.residual ? residual_row(m, oh, ow, f, epilogue) : 0;
        y[i] = finished(sum, row, i - m * f, epilogue);
    }
}
