"""Commands in the READMEs work after `make`: on Debian 12 there is no `python` but the venv's."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_CODE = re.compile(r"```sh\n(.*?)```|`([^`\n]+)`", re.DOTALL)
_BARE = re.compile(r"([A-Z_]+=\S+ )*(python3?|pip|llm-auction|ray|serve|locust) ")
_MODULE = re.compile(r"python -m (loadtest[\w.]*)")


def commands(readme: str) -> list[str]:
    """The lines of code, without what is said about them."""
    text = (ROOT / readme).read_text(encoding="utf-8")
    code = [block or inline for block, inline in _CODE.findall(text)]
    lines = [line.partition(" #")[0] for part in code for line in part.splitlines()]
    return [command.strip() for line in lines for command in line.split("&&")]


@pytest.mark.parametrize("readme", ["README.md", "deploy/README.md"])
class TestCommands:
    def test_are_those_of_the_venv(self, readme: str) -> None:
        assert [line for line in commands(readme) if _BARE.match(line)] == []

    def test_name_modules_that_there_are(self, readme: str) -> None:
        modules = [name for line in commands(readme) for name in _MODULE.findall(line)]
        assert modules
        for module in modules:
            path = ROOT.joinpath(*module.split("."))
            assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
