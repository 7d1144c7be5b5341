"""What of Python's own modules our code sees on another system."""

import builtins
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

TESTS = str(Path(__file__).parents[1])
# Python's documentation says of each: "Availability: Unix", or "not Windows" and so on.
WINDOWS = {
    "fcntl": None,
    "resource": None,
    "pwd": None,
    "grp": None,
    "termios": None,
    "os": (
        "fork forkpty register_at_fork sched_getaffinity sched_setaffinity sched_yield geteuid getuid getegid getgid"
        " getpgid killpg setsid setpgid mkfifo mknod chown fchown fchmod lchown sysconf uname wait statvfs nice pread"
        " pwrite fdatasync sync chroot ctermid getloadavg get_blocking listxattr setxattr posix_fadvise memfd_create"
        " O_NOFOLLOW O_NONBLOCK O_DIRECTORY O_CLOEXEC O_SYNC O_TMPFILE WIFEXITED WEXITSTATUS WIFSIGNALED WTERMSIG"
    ),
    "signal": (
        "SIGKILL SIGALRM SIGXCPU SIGXFSZ SIGHUP SIGPIPE SIGUSR1 SIGUSR2 SIGCHLD SIGSTOP SIGCONT SIGQUIT SIGBUS alarm"
        " setitimer getitimer ITIMER_REAL ITIMER_VIRTUAL pause pthread_sigmask pthread_kill sigwait siginterrupt"
    ),
    "mmap": "MADV_HUGEPAGE MADV_DONTNEED MAP_PRIVATE MAP_SHARED MAP_ANONYMOUS PROT_READ PROT_WRITE PROT_NONE",
    "time": "tzset clock_gettime CLOCK_MONOTONIC",
}
MACOS = {
    "os": "sched_getaffinity sched_setaffinity listxattr setxattr memfd_create posix_fadvise O_TMPFILE fdatasync",
    "mmap": "MADV_HUGEPAGE",
    "fcntl": "F_SETPIPE_SZ F_GETPIPE_SZ",
    "signal": "SIGRTMIN SIGRTMAX SIGSTKFLT SIGPWR SIGPOLL",
}
_machine = platform.machine()
error_modes = []  # that a process has set
_kernel32 = SimpleNamespace(SetErrorMode=error_modes.append, error_modes=error_modes)
CHANGED = {
    "win32": {
        "ctypes": {"windll": SimpleNamespace(kernel32=_kernel32)},
        "sys": {"platform": "win32"},
        "os": {"name": "nt", "O_BINARY": 0},
        "platform": {
            "system": lambda: "Windows",
            "machine": lambda: {"x86_64": "AMD64", "aarch64": "ARM64"}.get(_machine, _machine),
        },
    },
    "darwin": {
        "sys": {"platform": "darwin"},
        "platform": {
            "system": lambda: "Darwin",
            "machine": lambda: {"aarch64": "arm64"}.get(_machine, _machine),
        },
    },
}
ABSENT = {"win32": WINDOWS, "darwin": MACOS}


class Seen(ModuleType):
    """A module without some of its names, and with others changed; what is set reaches the real one."""

    def __init__(self, real, absent, changed):
        super().__init__(real.__name__, real.__doc__)
        for name, value in (("_real", real), ("_absent", absent), ("_changed", changed)):
            super().__setattr__(name, value)

    def __getattribute__(self, name):
        if name in ("_real", "_absent", "_changed", "__class__"):
            return super().__getattribute__(name)
        if name in self._absent:
            raise AttributeError(f"this system's {self._real.__name__} has no {name}")
        return self._changed[name] if name in self._changed else getattr(self._real, name)

    def __setattr__(self, name, value):
        if name in self._changed:
            self._changed[name] = value
        else:
            setattr(self._real, name, value)

    def __delattr__(self, name):
        self.__getattribute__(name)
        delattr(self._real, name)

    def __dir__(self):
        return sorted(set(dir(self._real)) - self._absent)


def install(system):
    """From here on our modules import what the system has; processes started by them too."""
    if system not in ABSENT:
        return
    absent, changed = ABSENT[system], CHANGED[system]
    seen = {
        name: None if name in absent and absent[name] is None
        else Seen(__import__(name), frozenset((absent.get(name) or "").split()), changed.get(name, {}))
        for name in {*absent, *changed}
    }  # fmt: skip
    real = builtins.__import__

    def imported(name, globals=None, locals=None, fromlist=(), level=0):
        first = name.partition(".")[0]
        if level == 0 and first in seen and _is_ours(globals or {}):
            if seen[first] is None:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            if name == first or not fromlist:
                real(name, globals, locals, fromlist, level)
                return seen[first]
        return real(name, globals, locals, fromlist, level)

    builtins.__import__ = imported
    sys.addaudithook(_without_proc)
    _pass_on(system)


def _is_ours(globals):
    name, file = globals.get("__name__", ""), globals.get("__file__") or ""
    if name.startswith("_fake_system"):
        return False
    return name == "__main__" or name.partition(".")[0] == "resnet_ref" or file.startswith(TESTS)


def _without_proc(event, arguments):
    if event == "open" and isinstance(arguments[0], str) and arguments[0].startswith(("/proc/", "/sys/")):
        caller = sys._getframe(1)
        while caller and caller.f_globals.get("__name__") == "pathlib":
            caller = caller.f_back
        if caller is None or not _is_ours(caller.f_globals):
            return
        raise FileNotFoundError(2, "No such file or directory", arguments[0])


def _pass_on(system):
    """To a child that takes nothing from the environment, in front of its code."""
    real = subprocess.Popen.__init__
    here = str(Path(__file__).parent)
    start = f"import sys; sys.path.insert(0, {here!r}); import sitecustomize; sys.path.remove({here!r})\n"

    def started(self, command, *arguments, **options):
        if system == "win32":
            for option in ("preexec_fn", "pass_fds"):
                if options.get(option):
                    raise ValueError(f"{option} is not supported on Windows platforms")
        if isinstance(command, list) and command[:3] == [sys.executable, "-I", "-c"]:
            command = [*command[:3], start + command[3], *command[4:]]
            options["env"] = {**(options.get("env") or os.environ), "RESNET_REF_FAKE_SYSTEM": system}
        real(self, command, *arguments, **options)

    subprocess.Popen.__init__ = started
