// How Python calls a kernel: EMU_KERNEL(name, bound, restricts) follows the text of a .cu file.
#pragma once
#include <utility>

struct emu_kernel {
    const char *types;            // the parameters' kinds, then what they point to or are: compile.py's Parameter
    const char *restricts;        // y or n for each, whether it is declared __restrict__: types do not tell
    unsigned bound;               // threads of a block, from __launch_bounds__
    void (*call)(void **values);  // in one thread; values[i] points to the argument
};

template <class T>
struct emu_letter { static constexpr char value = '?'; };
#define EMU_LETTER(T, letter) \
    template <>               \
    struct emu_letter<T> { static constexpr char value = letter; };
EMU_LETTER(float, 'f')
EMU_LETTER(double, 'd')
EMU_LETTER(int, 'i')
EMU_LETTER(unsigned, 'u')
EMU_LETTER(long long, 'q')
EMU_LETTER(unsigned long, 'Q')
EMU_LETTER(unsigned short, 'h')
EMU_LETTER(unsigned char, 'b')

template <class T>
struct emu_type { static constexpr char kind = '=', letter = emu_letter<T>::value; };
template <class T>
struct emu_type<T *> { static constexpr char kind = 'w', letter = emu_letter<T>::value; };
template <class T>
struct emu_type<const T *> { static constexpr char kind = 'r', letter = emu_letter<T>::value; };

template <auto Kernel, class Signature>
struct emu_binding;
template <auto Kernel, class... A>
struct emu_binding<Kernel, void (*)(A...)> {
    static constexpr char types[] = {emu_type<A>::kind..., emu_type<A>::letter..., 0};

    template <size_t... I>
    __attribute__((no_sanitize("thread"), always_inline)) static inline void spread(void **values,
                                                                                    std::index_sequence<I...>) {
        Kernel(*static_cast<A *>(values[I])...);
    }
    __attribute__((no_sanitize("thread"))) static void call(void **values) {
        spread(values, std::index_sequence_for<A...>{});
    }
};

#define EMU_KERNEL(name, bound, restricts)                                                                       \
    extern "C" __attribute__((visibility("default"), used)) const emu_kernel emu_kernel_##name = {               \
        emu_binding<&name, decltype(&name)>::types, restricts, bound, emu_binding<&name, decltype(&name)>::call};
