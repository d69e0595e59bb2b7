"""The example in docs/adding-a-channel.md works as it stands: its provider passes its test and the contract."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-channel.md"
PROVIDER, TEST = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def run(name: str, source: str) -> Any:
    """``source`` as the module ``name``."""
    module = ModuleType(name)
    sys.modules[name] = module
    exec(compile(source, f"{PAGE.name}:{name}", "exec"), module.__dict__)
    return module


# Under a name outside of `channels`: the registry takes only what is there.
example = run("adding_a_channel_ntfy", PROVIDER)
sys.modules["channels.ntfy"] = example
TestNtfy = run("adding_a_channel_test_ntfy", TEST).TestNtfy
del sys.modules["channels.ntfy"]


def test_the_example_is_not_taken_for_a_provider_of_ours() -> None:
    from channels.registry import providers

    assert ("push", "ntfy") not in providers()
