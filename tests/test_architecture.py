"""The import order of ARCHITECTURE.md, held by reading the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "megdt"
# Each may import what stands before it, and itself.
ORDER = (
    "__init__", "errors", "records", "worlds", "models", "codecs", "link", "compression", "mechanisms", "twin",
    "scenario", "sensing", "pictures", "profiling", "trial", "site", "tasks", "diagram", "report", "showing", "watching", "runtime", "study", "doctor", "cli",
)  # fmt: skip


def imports(path: Path, *, inside_functions: bool) -> set[str]:
    """megdt modules that a file imports, dotted."""
    found = set()
    tree = ast.parse(path.read_text())
    # At the top level, what only type checkers read counts as well.
    checked = [n for block in tree.body if isinstance(block, ast.If) for n in block.body]
    nodes = ast.walk(tree) if inside_functions else [*tree.body, *checked]
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "megdt":
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.split(".")[0] == "megdt"}
    return found


def part_of(module: str) -> str:
    """The top-level part that a dotted import names."""
    name = module.split(".")[1] if "." in module else "__init__"
    return name if name in ORDER else "__init__"


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_what_stands_above_it(path: Path) -> None:
    relative = path.relative_to(PACKAGE)
    own = relative.parts[0].removesuffix(".py")
    assert own in ORDER, (
        f"{own} has no place in the import order; give it one here and in ARCHITECTURE.md"
    )
    for module in imports(path, inside_functions=True):
        assert ORDER.index(part_of(module)) <= ORDER.index(own), f"{relative} imports {module}"


def test_no_modules_import_each_other() -> None:
    names = {p: "megdt." + ".".join(p.relative_to(PACKAGE).with_suffix("").parts) for p in FILES}
    known = {name.removesuffix(".__init__") for name in names.values()}
    graph: dict[str, set[str]] = {}
    for path, name in names.items():
        targets = set()
        for module in imports(path, inside_functions=False):
            hit = module if module in known else module.rpartition(".")[0]
            targets |= {hit} & known
        graph[name.removesuffix(".__init__")] = targets - {name.removesuffix(".__init__")}
    # Take away modules that import nothing left, until none is left to take.
    while leaves := {name for name, targets in graph.items() if not targets & graph.keys()}:
        graph = {name: targets for name, targets in graph.items() if name not in leaves}
    assert not graph, f"import cycle among {sorted(graph)}"


def test_architecture_names_every_part() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for part in ORDER[1:]:
        assert f"`{part}" in text, f"ARCHITECTURE.md does not mention {part}"


def loaded_after(statement: str, names: tuple[str, ...]) -> list[str]:
    code = f"import sys; {statement}; print([n for n in {names!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return list(ast.literal_eval(done.stdout))


def test_the_command_line_starts_without_heavy_modules() -> None:
    assert loaded_after("import megdt.cli", ("torch", "numpy", "PIL", "skia", "torchmetrics")) == []


def test_codecs_link_and_mechanisms_need_no_torch() -> None:
    assert loaded_after("import megdt.scenario", ("torch", "skia", "torchmetrics")) == []


def test_the_twins_store_needs_no_torch_and_no_server() -> None:
    names = ("torch", "numpy", "sqlalchemy", "psycopg")
    assert loaded_after("import megdt.twin.store, megdt.twin.repair", names) == []


def test_generating_needs_no_drawing_library() -> None:
    assert loaded_after("import megdt.models.bundle, megdt.report", ("skia", "torchmetrics")) == []


def test_sessions_need_neither_torch_nor_io() -> None:
    names = ("torch", "skia", "PIL", "asyncio", "socket", "ssl")
    assert loaded_after("import megdt.runtime.es_session, megdt.runtime.ue_session", names) == []


def test_the_doctor_needs_nothing_but_the_standard_library() -> None:
    assert loaded_after("import megdt.doctor", ("numpy", "torch", "rich", "PIL")) == []
