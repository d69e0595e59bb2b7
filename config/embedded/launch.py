"""Become a command that dies with its parent. Run by `config.embedded.process.spawn`, never imported.

    python -I -S launch.py SIGNAL PARENT_PID COMMAND [ARGUMENT]...

A fresh single-threaded interpreter asks the kernel for SIGNAL at the parent's death and then replaces itself,
so the command keeps this process id. It costs about 15 ms and spares the parent a `preexec_fn`, which is
unsafe once it has threads. Where the kernel knows no such request (macOS) the command simply starts.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl(2)


def die_with_parent(signal_number: int, parent: int) -> None:
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) was refused")
    if os.getppid() != parent:  # it died before the request stood
        sys.exit(f"the process {parent} that started this ended meanwhile")


def undo_python_signals() -> None:
    """Python ignores these at its start, and an ignored signal would stay ignored in the command."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)


def main(signal_number: str, parent: str, *command: str) -> None:
    die_with_parent(int(signal_number), int(parent))
    undo_python_signals()
    try:
        os.execvp(command[0], command)  # noqa: S606 - an argument list, never a shell
    except OSError as error:
        sys.exit(f"{command[0]} could not be run: {error.strerror}")


if __name__ == "__main__":
    main(*sys.argv[1:])
