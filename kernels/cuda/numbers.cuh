// low below low, high above high, else v: NaN stays NaN, as in every tier.
__device__ __forceinline__ float clamp(float v, float low, float high)
{
    return v < low ? low : v > high ? high : v;
}
