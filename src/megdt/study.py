"""Studies: find one, run it, and make one page of what it found."""

from __future__ import annotations

import base64
import html
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from megdt.errors import OutputError, RequestError, StudyError
from megdt.models.manifest import is_variant

PLACES = (Path(__file__).parent.parent.parent / "studies", Path("studies"))
"""Where studies are looked for: the source tree of this package, and the current folder."""

_GOOD = ("holds", "met", "better")
_BAD = ("does not hold", "missed", "worse")
_SPELLED = {
    "snr": "SNR", "psnr": "PSNR", "ms_ssim": "MS-SSIM", "kid": "KID", "perceptual": "ST-LPIPS",
    "avif": "AVIF", "mcs_table": "MCS table",
}  # fmt: skip
_COUNTED = re.compile(r"(\d+)/(\d+) ")


def list_studies() -> dict[str, Path]:
    """The studies that are here, by name."""
    return {
        run.parent.name: run.parent.resolve()
        for place in reversed(PLACES)
        for run in sorted(place.glob("*/run.py"))
    }


def find_study(name: str) -> Path:
    """The folder of a study.

    Raises:
        RequestError: If there is none of that name.
    """
    known = list_studies()
    if name in known:
        return known[name]
    there = ", ".join(sorted(known)) or "none, since wheels have none"
    raise RequestError(
        f"no study {name!r} here; there is {there}; run it in a checkout of megdt's source"
    )


def run_study(
    folder: Path,
    out: Path,
    *,
    quick: bool,
    model: str | None = None,
    progress: Callable[[str, int, int], None] | None,
    say: Callable[[str], None],
) -> Path:
    """Run a study, draw its figures, and write its report.

    Args:
        folder: Of the study.
        out: Folder for results.json, figures and report.html; made if it is not there.
        quick: With the small numbers of its [quick] table.
        model: A pipeline or an autoencoder instead of the bundle's; the bundle where left out.
        progress: Told the study's name, and how much of it is done, where it counts.
        say: Told every other line that it prints, and all of them without `progress`.

    Returns:
        The report.

    Raises:
        RequestError: If the study has models of its own.
        OutputError: If the folder cannot be made.
        StudyError: If the study, or its drawing, fails.
    """
    takers = [n for n, place in list_studies().items() if _takes_model(place)]
    if model is not None and not _takes_model(folder):
        raise RequestError(
            f"study {folder.name} is about the bundle's own models; --model is of {', '.join(takers)}"
        )
    if model is not None and is_variant(Path(model)):
        raise RequestError(
            f"{model} is of megdt compress, and studies take whole models; see study compression for smaller ones"
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make folder {out} ({error.strerror}); choose another with --out"
        ) from error
    results = out / "results.json"
    told = [*["--quick"] * quick, *(() if model is None else ("--model", model))]
    for line in _run(folder / "run.py", ["--out", str(results), *told]):
        counted = _COUNTED.match(line)
        if counted is not None and progress is not None:
            progress(folder.name, int(counted[1]), int(counted[2]))
        else:
            say(line)
    if (folder / "plot.py").exists():
        for line in _run(folder / "plot.py", ["--results", str(results), "--out", str(out)]):
            say(line)
    return write_report(folder, out)


def _takes_model(folder: Path) -> bool:
    return '"--model"' in (folder / "run.py").read_text(encoding="utf-8")


def _run(script: Path, arguments: Sequence[str]) -> Iterator[str]:
    """The lines that a script prints.

    Raises:
        StudyError: If it fails, with the last line of what it says.
    """
    command = [sys.executable, str(script), *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1
    ) as running:
        assert running.stdout is not None
        last = ""
        for line in running.stdout:
            last = line.strip() or last
            yield line.rstrip()
    if running.returncode:
        raise StudyError(
            f"{script.parent.name}/{script.name} failed: {last}; run it by itself to see more: "
            f"python {script}"
        )


def write_report(folder: Path, out: Path) -> Path:
    """One page without anything outside it: claims, figures, and every table of the results.

    Where results.json has "figures", captions by the name of the file, they go in that order.

    Args:
        folder: Of the study, whose README says what it is about.
        out: Where results.json and the figures are, and report.html goes.
    """
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    title, about = _read_heading(folder / "README.md")
    first = [name for name in ("claims", "targets") if name in results]
    told = results.pop("figures", {})
    drawn = [path.stem for path in sorted(out.glob("*.png"))]
    figures = {out / f"{n}.png": told.get(n, "") for n in dict.fromkeys((*told, *drawn))}
    parts = [
        f"<header><h1>{html.escape(title)}</h1><p>{html.escape(about)}</p>{_line_of(results)}</header>",
        *(f"<h2>{name.capitalize()}</h2>{_value(results[name])}" for name in first),
        "<h2>Figures</h2>" if figures else "",
        *(_figure(path, caption) for path, caption in figures.items() if path.exists()),
        "<h2>Results</h2>",
        *(
            f"<details><summary>{_words(name)}</summary>{_value(value)}</details>"
            for name, value in results.items()
            if name not in first
        ),
    ]
    page = _PAGE.replace("TITLE", html.escape(title)).replace("BODY", "\n".join(parts))
    path = out / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _read_heading(readme: Path) -> tuple[str, str]:
    """The title of a study, and its first paragraph as plain text."""
    if not readme.exists():
        return readme.parent.name, ""
    blocks = [b for b in readme.read_text(encoding="utf-8").split("\n\n") if b.strip()]
    plain = [re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", b).replace("**", "") for b in blocks[:2]]
    return plain[0].lstrip("# ").strip(), plain[1].strip() if len(plain) > 1 else ""


def _line_of(results: Mapping[str, Any]) -> str:
    """With what and how long it was run."""
    said = []
    if "seconds" in results:
        said.append(f"{results['seconds'] / 60:.1f} minutes")
    if isinstance(results.get("versions"), Mapping):
        said += [f"{name} {value}" for name, value in results["versions"].items()]
    elif "machine" in results:
        said.append(str(results["machine"]))
    said.append(f"bundle {str(results.get('bundle_sha256', ''))[:12]}")
    return f'<p class="faint">{html.escape(", ".join(said))}</p>'


def _figure(path: Path, caption: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    name = html.escape(caption) or _words(path.stem)
    return (
        f'<figure><img alt="{name}" src="data:image/png;base64,{data}">'
        f"<figcaption>{name}</figcaption></figure>"
    )


def _value(value: Any) -> str:
    """A value of the results: a table where it is one, what it is made of where not."""
    if _is_rows(value):
        return _table(value)
    if isinstance(value, Mapping):
        if value and all(isinstance(v, Mapping) and _is_flat(v) for v in value.values()):
            return _table([{"": name, **line} for name, line in value.items()])
        if _is_flat(value):
            return _table([{"": name, "value": v} for name, v in value.items()])
        return "".join(
            f"<details><summary>{_words(str(name))}</summary>{_value(v)}</details>"
            for name, v in value.items()
        )
    return f"<p>{_cell(value)}</p>"


def _is_flat(value: Mapping[str, Any]) -> bool:
    return not any(isinstance(v, Mapping) or _is_rows(v) for v in value.values())


def _is_rows(value: Any) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(row, Mapping) and _is_flat(row) for row in value)


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{_words(name)}</th>" for name in names)
    lines = "".join(
        "<tr>"
        + "".join(f"<td{_class(row.get(n))}>{_cell(row.get(n))}</td>" for n in names)
        + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


def _class(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return ' class="number"'
    return ""


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool | int):
        return f"{value:,}" if not isinstance(value, bool) else str(value).lower()
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    if isinstance(value, list):
        return ", ".join(map(_cell, value)) or "–"
    text = html.escape(str(value))
    for kind, words in (("good", _GOOD), ("bad", _BAD), ("middling", ("holds when", "level"))):
        if value in words:
            return f'<span class="{kind}">{text}</span>'
    return text


def _words(name: str) -> str:
    """A key of the results as people write it."""
    for tail, unit in (("_95", " ± 95 %"), ("_db", " (dB)"), ("_mj", " (mJ)"), ("_j", " (J)")):
        if name.endswith(tail):
            return _words(name.removesuffix(tail)) + unit
    return html.escape(_SPELLED.get(name, name.replace("_", " ")))


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>TITLE</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark; --ink: #1b1f24; --faint: #5c6670; --paper: #ffffff; --line: #d8dee4;
  --card: #f6f8fa; --good: #116329; --good-paper: #dafbe1; --bad: #a40e26; --bad-paper: #ffebe9;
  --middling: #7d4e00; --middling-paper: #fff8c5; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --faint: #9aa5b1; --paper: #0d1117;
  --line: #30363d; --card: #161b22; --good: #7ee2a0; --good-paper: #12351f; --bad: #ffa198;
  --bad-paper: #4a1518; --middling: #e8c468; --middling-paper: #3a2d0c; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 72rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { line-height: 1.2; margin: 0 0 .5rem; } h2 { margin: 2.5rem 0 .75rem; }
.faint, figcaption { color: var(--faint); font-size: .875rem; }
.wide { overflow-x: auto; margin: .5rem 0 1rem; }
table { border-collapse: collapse; font-size: .875rem; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .4rem .75rem; border-bottom: 1px solid var(--line); }
th { color: var(--faint); font-weight: 600; white-space: nowrap; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.good, .bad, .middling { padding: .1rem .5rem; border-radius: 1rem; white-space: nowrap; font-weight: 600; }
.good { color: var(--good); background: var(--good-paper); }
.bad { color: var(--bad); background: var(--bad-paper); }
.middling { color: var(--middling); background: var(--middling-paper); }
figure { margin: 0 0 1.5rem; }
figure img { display: block; max-width: 100%; margin: 0 auto; background: #fff; border-radius: .5rem;
  padding: .75rem; box-sizing: border-box; border: 1px solid var(--line); }
figcaption { text-align: center; margin-top: .35rem; }
details { border: 1px solid var(--line); border-radius: .5rem; background: var(--card); margin: .5rem 0;
  padding: .5rem .9rem; }
summary { cursor: pointer; font-weight: 600; } details details { background: var(--paper); }
</style></head><body>
BODY
</body></html>
"""
