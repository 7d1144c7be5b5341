"""What macOS' kernel says of the machine."""

import ctypes


def sysctl(name: str) -> bytes | None:
    """The value of that name (`sysctl -a` lists them), as it lies in memory; None where there is none."""
    ask = getattr(ctypes.CDLL(None), "sysctlbyname", None)
    if ask is None:
        return None
    size = ctypes.c_size_t(0)
    if ask(name.encode(), None, ctypes.byref(size), None, ctypes.c_size_t(0)) != 0:
        return None
    value = ctypes.create_string_buffer(size.value)
    if ask(name.encode(), value, ctypes.byref(size), None, ctypes.c_size_t(0)) != 0:
        return None
    return value.raw[: size.value]


def sysctl_number(name: str) -> int | None:
    """A whole number."""
    value = sysctl(name)
    return None if value is None else int.from_bytes(value, "little")
