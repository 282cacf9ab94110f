"""README, docs and help say what there is."""

from __future__ import annotations

import ast
import re
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

from megdt import __version__
from megdt.cli import app
from megdt.link.energy import DEVICES
from megdt.link.radio import CHANNELS, DEFAULT_SNR_DB, RadioLink
from megdt.mechanisms.video import Motion, Video
from megdt.models.writing import KEY
from megdt.records import Plan, Request
from megdt.scenario import CODECS, MECHANISMS, Devices, World, Writer
from megdt.scenario.events import EVENTS
from megdt.scenario.twin import BUILT_IN, Attack, Radio, Requests, Rounds, Scene, Ues
from megdt.trial import BASELINES

TWIN = (Rounds, Scene, Ues, Radio, Requests, Attack)
ROOT = Path(__file__).parent.parent
COMMAND_LINE = (ROOT / "docs" / "command_line.md").read_text()
SCENARIOS = (ROOT / "docs" / "scenarios.md").read_text()


def test_the_readme_names_the_two_commands_and_they_exist() -> None:
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for target in ("demo", "test"):
        assert f"make {target}" in readme
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_the_readmes_python_runs() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["result"].image.shape == (256, 256, 3)  # type: ignore[attr-defined]


def test_the_python_of_the_scenarios_page_runs() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", SCENARIOS, re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(block, "scenarios.md", "exec"), names)
    assert len(names["frames"]) == 4  # type: ignore[arg-type]


def test_the_readmes_pictures_and_links_are_there() -> None:
    for path in (
        ROOT / "README.md",
        ROOT / "ARCHITECTURE.md",
        *ROOT.glob("*/README.md"),
        *ROOT.glob("*/*/README.md"),
        *ROOT.glob("docs/*.md"),
    ):
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            if not target.startswith("http"):
                assert (path.parent / target).exists(), f"{path.relative_to(ROOT)}: {target}"


def test_make_knows_what_each_command_would_do() -> None:
    for target in ("demo", "test"):
        asked = ["make", "--dry-run", target]
        done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
        assert {"demo": "megdt generate", "test": "pytest"}[target] in done.stdout


def test_ci_calls_the_readmes_test_command() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def commands(group: Any, before: str = "") -> dict[str, set[str]]:
    """Options by command, those of a group with the group's name before theirs."""
    found = {}
    for name, command in group.commands.items():
        found[f"{before}{name}"] = {o for p in command.params for o in p.opts}
        if hasattr(command, "commands"):
            found |= commands(command, f"{before}{name} ")
    return found


def test_every_megdt_command_in_the_documents_is_valid() -> None:
    known = commands(typer.main.get_command(app))
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for line in re.findall(r"^megdt (\w.*)$", path.read_text(), re.MULTILINE):
            name = max((n for n in known if f"{line} ".startswith(f"{n} ")), key=len, default=None)
            assert name is not None, f"{path.name}: megdt {line}"
            for option in re.findall(r"--[a-z-]+", line):
                assert option in known[name], f"{path.name}: megdt {line}"


def test_every_command_and_option_is_documented() -> None:
    for name, options in commands(typer.main.get_command(app)).items():
        assert f"megdt {name}" in COMMAND_LINE
        for option in options - {"--help"}:
            assert not option.startswith("--") or f"`{option}" in COMMAND_LINE, f"{name} {option}"


@pytest.mark.parametrize(
    "key",
    [
        f.name
        for kind in (Request, Plan, RadioLink, Devices, Video, World, Writer, *TWIN)
        for f in fields(kind)
        if f.name != "codecs"
    ]
    + [str(kind) for kind in CODECS]
    + [name for names in CODECS.values() for name in names]
    + list(MECHANISMS)
    + list(get_args(Motion))
    + list(DEVICES),
)
def test_every_scenario_key_and_choice_is_documented(key: str) -> None:
    assert f"`{key}`" in SCENARIOS


def test_the_scenarios_of_the_package_and_what_can_happen_are_documented() -> None:
    for name in BUILT_IN:
        assert f"`{name}`" in COMMAND_LINE
    for word in EVENTS:
        assert word in COMMAND_LINE


def test_the_key_of_the_writers_server_is_documented() -> None:
    assert f"`{KEY}`" in SCENARIOS


def test_every_channel_and_baseline_is_documented() -> None:
    for name in CHANNELS:
        family = name.rstrip("abcde").rstrip("-") if "-" in name else name
        assert f"`{family}" in SCENARIOS
        assert f"`{family}" in COMMAND_LINE
    for name in BASELINES:
        assert f"`{name}`" in COMMAND_LINE


@pytest.mark.parametrize(
    "path", sorted((ROOT / "src" / "megdt").rglob("*.py")), ids=lambda p: p.stem
)
def test_every_public_name_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree) or not tree.body, f"{path.name} has no docstring"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path.name}: {node.name}"


def test_the_changelog_and_citation_know_this_version() -> None:
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert f"version: {__version__}" in (ROOT / "CITATION.cff").read_text()


def test_defaults_in_help_are_the_defaults_in_code() -> None:
    command = typer.main.get_command(app).commands["generate"]  # type: ignore[attr-defined]
    helps = {parameter.name: getattr(parameter, "help", None) or "" for parameter in command.params}
    found = {name: re.search(r"\(default: ([\w.]+)", text) for name, text in helps.items()}
    told = {name: match[1] for name, match in found.items() if match}
    assert float(told["snr_db"]) == DEFAULT_SNR_DB
    for name in ("bandwidth_hz", "carrier_frequency_hz", "tx_power_dbm", "speed_m_s"):
        assert float(told[name]) == getattr(RadioLink, name)
    for name in ("channel", "coding"):
        assert told[name] == getattr(RadioLink, name)
    assert int(told["size"]) == Request.size_px
    assert int(told["steps"]) == Request.steps
    assert float(told["guidance"]) == Request.guidance_scale
    assert int(told["rng_seed"]) == Request.rng_seed
    assert told["mechanism"] == Plan.mechanism
    assert told["mode"] == Plan.mode
