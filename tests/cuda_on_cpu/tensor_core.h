// Twins of the tensor cores' instructions; kernels/cuda/tensor_core.cuh has them in PTX under the same names. The
// layouts of fragments are those of the PTX ISA, "Matrix fragments for mma.m16n8k8" and "mma.m16n8k16".
#pragma once
#include "vocabulary.h"

// cvt.rna.tf32.f32: to 10 bits of mantissa, to nearest, ties away from zero.
inline unsigned to_tf32(float value) {
    const unsigned bits = __float_as_uint(value);
    return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & 0xffffe000u;
}

// To nearest, ties to even; NaN stays NaN.
inline unsigned emu_bf16(float value) {
    const unsigned bits = __float_as_uint(value);
    return isnan(value) ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
}
inline unsigned pack_bf16(float low, float high) { return emu_bf16(low) | emu_bf16(high) << 16; }

struct emu_fragments {
    unsigned a[4], b[2];
};

inline float emu_from_tf32(unsigned bits) { return __uint_as_float(bits & 0xffffe000u); }
inline float emu_from_bf16(unsigned pair, unsigned half) {
    return __uint_as_float(half ? pair & 0xffff0000u : pair << 16);
}

// d += A B, where lane 4 * group + member holds d[i] = D[group + 8 * (i / 2)][2 * member + i % 2].
// The four lanes of a group hold rows `group` and, `lower`, group + 8 of A, and column `group` of B;
// number(slots, group, k, lower, of_a) is the k-th number of that row or column.
template <class Number>
inline void emu_mma(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], int depth, Number number,
                    int line) {
    if (emu_lanes() != 32) emu_fail("a warp of the tensor cores must have 32 threads");
    const emu_fragments mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
    const char *slots = emu_exchange(line, &mine, sizeof mine);
    const int group = emu_lane() / 4, member = emu_lane() % 4;
    for (int i = 0; i < 4; i++) {
        double sum = d[i];
        for (int k = 0; k < depth; k++)
            sum += double(number(slots, group, k, i / 2, true)) * number(slots, 2 * member + i % 2, k, 0, false);
        d[i] = float(sum);
    }
}

inline unsigned emu_register(const char *slots, int lane, bool of_a, int index) {
    unsigned bits;
    __builtin_memcpy(&bits, slots + lane * EMU_SLOT + (of_a ? index : 4 + index) * 4, 4);
    return bits;
}

// mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32: a[i] = A[group + 8 * (i % 2)][member + 4 * (i / 2)],
// b[i] = B[member + 4 * i][group].
inline void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], int line = __builtin_LINE()) {
    const auto number = [](const char *slots, int group, int k, int lower, bool of_a) {
        return emu_from_tf32(emu_register(slots, group * 4 + k % 4, of_a, of_a ? lower + 2 * (k / 4) : k / 4));
    };
    emu_mma(d, a, b, 8, number, line);
}

// mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32: the halves of a[i] are
// A[group + 8 * (i % 2)][2 * member + half + 8 * (i / 2)], those of b[i] B[2 * member + half + 8 * i][group].
inline void mma_bf16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], int line = __builtin_LINE()) {
    const auto number = [](const char *slots, int group, int k, int lower, bool of_a) {
        const int lane = group * 4 + k % 8 / 2;
        return emu_from_bf16(emu_register(slots, lane, of_a, of_a ? lower + 2 * (k / 8) : k / 8), k % 2);
    };
    emu_mma(d, a, b, 16, number, line);
}
