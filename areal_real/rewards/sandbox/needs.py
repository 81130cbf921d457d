"""What a Python interpreter needs of the file system to run, and no more."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from areal_real.rewards.errors import SandboxUnavailable

# "libm.so.6 => /lib/libm.so.6 (0x...)", and for the loader "/lib64/ld-linux-x86-64.so.2 (0x...)".
_LIBRARY = re.compile(r"^\s+(\S+) => (/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)
_LOADER = re.compile(r"^\s+(/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)
# Where they are shown: a path that tells nothing of this machine.
PREFIX = "/python"
LIBRARIES = PREFIX + "/shared"
_EXTENSION_MODULES_LEFT_OUT = ("_tkinter",)  # would bring in a window system
_UNWINDER = "libgcc_s.so.1"  # C libraries open it only when a thread is cancelled
_NOT_STANDARD = ("site-packages", "dist-packages", "test")


@dataclass(frozen=True, slots=True)
class PythonFiles:
    """The base interpreter of this one, outside any virtual environment.

    Attributes:
        executable: its path inside the sandbox.
        shown: (path here, path inside), files and folders.
        hidden: folders inside that hold other packages.
    """

    executable: str
    shown: tuple[tuple[str, str], ...]
    hidden: tuple[str, ...]


def python_files() -> PythonFiles:
    """Find them.

    Raises:
        SandboxUnavailable: ``ldd`` is missing or does not understand the interpreter.
    """
    executable = os.path.realpath(sys.executable)
    library = Path(sysconfig.get_path("stdlib"))
    modules = sorted((library / "lib-dynload").glob("*.so"))
    objects = [path for path in modules if not path.name.startswith(_EXTENSION_MODULES_LEFT_OUT)]
    try:
        listed = subprocess.run(
            ["ldd", executable, *objects], capture_output=True, text=True, check=False, timeout=60
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise SandboxUnavailable(f"cannot list Python's shared libraries: {exc}") from exc
    loaders, libraries = set(_LOADER.findall(listed)), dict(_LIBRARY.findall(listed))
    if not loaders:
        raise SandboxUnavailable(f"ldd does not understand {executable}")
    for folder in {os.path.dirname(path) for path in libraries.values()}:
        unwinder = os.path.join(folder, _UNWINDER)
        if os.path.exists(unwinder):
            libraries[_UNWINDER] = unwinder
    # The interpreter finds its library by its own place, so both keep their place to each other.
    inside = os.path.join(PREFIX, os.path.relpath(library, sys.base_prefix))
    program = os.path.join(PREFIX, "bin", os.path.basename(executable))
    shown = [(executable, program), (str(library), inside)]
    shown += [(path, path) for path in sorted(loaders)]
    shown += [(path, os.path.join(LIBRARIES, name)) for name, path in sorted(libraries.items())]
    others = [name for name in _NOT_STANDARD if (library / name).is_dir()]
    return PythonFiles(
        executable=program,
        shown=tuple(shown),
        hidden=tuple(os.path.join(inside, name) for name in others),
    )
