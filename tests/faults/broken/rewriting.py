"""How a build is broken on purpose: some text of a module is another one before the module is compiled.

Imported by the ``sitecustomize.py`` of each folder beside, which a process finds on its PYTHONPATH. Only tests set that.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

ROOT = Path(__file__).resolve().parents[3]


def rewrite(module: str, changes: Mapping[str, str]) -> None:
    """Have ``module`` compiled with each text of ``changes`` in the place of its key, whenever this process imports it.

    Ends the process with the reason when a key does not occur exactly once: the build would not be broken, and whoever
    starts it would prove nothing.
    """
    path = ROOT / f"{module.replace('.', '/')}.py"
    try:
        source = path.read_text()
    except OSError as error:
        raise SystemExit(f"{path} is to be broken and cannot be read: {error.strerror}") from error
    for old, new in changes.items():
        if (found := source.count(old)) != 1:
            # SystemExit, since Python's site passes over every other exception of a sitecustomize
            raise SystemExit(f"{path} is to be broken, and has {found} times instead of once:\n{old}")
        source = source.replace(old, new)
    sys.meta_path.insert(0, _Finder(module, path, source))


class _Finder(MetaPathFinder):
    def __init__(self, module: str, path: Path, source: str) -> None:
        self._module = module
        self._path = str(path)
        self._source = source

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._module:
            return None
        return spec_from_file_location(
            fullname, self._path, loader=_Loader(fullname, self._path, compile(self._source, self._path, "exec"))
        )


class _Loader(SourceFileLoader):
    def __init__(self, fullname: str, path: str, code: CodeType) -> None:
        super().__init__(fullname, path)
        self._code = code

    def get_code(self, fullname: str) -> CodeType:
        """The changed code, in the place of what the file or its compiled copy has."""
        return self._code
