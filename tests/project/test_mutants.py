"""The tool that puts faults into the code."""

from __future__ import annotations

import ast
from pathlib import Path

from tools.mutants import PACKAGE, mutants


def test_each_mutant_is_a_program_with_one_changed_place() -> None:
    file = Path("nar/tokens.py")
    source = (PACKAGE / file).read_text()
    made = list(mutants(file))
    assert len({mutant.mutated for mutant in made}) == len(made) > 20
    for mutant in made:
        assert ast.dump(ast.parse(mutant.mutated)) != ast.dump(ast.parse(source))
        assert str(mutant).splitlines()[0] == f"{file}:{mutant.line}"
        assert len(str(mutant).splitlines()) >= 2
