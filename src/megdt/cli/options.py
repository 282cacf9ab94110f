"""Options that several commands have, and the scenario that they make."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from megdt.scenario import Scenario

LINK, FILES = "Link", "Scenario and output"

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="A diffusers pipeline that generates instead, a folder or a name on the Hugging Face hub, as stabilityai/sd-turbo; or a folder of megdt compress.",
        show_default=False,
    ),
]
SnrOption = Annotated[
    float | None,
    typer.Option(
        "--snr-db", help="Mean Es/N0 per complex channel use. (default: 10)", rich_help_panel=LINK
    ),
]
ChannelOption = Annotated[
    str | None,
    typer.Option(
        "--channel",
        help="awgn, rayleigh, rician, tdl-a to tdl-e, cdl-a to cdl-e, umi, uma, or trace:FILE. (default: awgn)",
        rich_help_panel=LINK,
    ),
]
BandwidthOption = Annotated[
    float | None,
    typer.Option("--bandwidth-hz", help="Of the carrier. (default: 1e6)", rich_help_panel=LINK),
]
CarrierOption = Annotated[
    float | None,
    typer.Option(
        "--carrier-frequency-hz",
        help="Gives Doppler shift and path loss. (default: 3.5e9)",
        rich_help_panel=LINK,
    ),
]
PowerOption = Annotated[
    float | None,
    typer.Option(
        "--tx-power-dbm", help="Radiated while sending. (default: 23)", rich_help_panel=LINK
    ),
]
SpeedOption = Annotated[
    float | None,
    typer.Option("--speed-m-s", help="Of the UE. (default: 1.5)", rich_help_panel=LINK),
]
CodingOption = Annotated[
    str | None,
    typer.Option(
        "--coding",
        help="ldpc (bit-true), abstract (error rates) or ideal (capacity). (default: ldpc)",
        rich_help_panel=LINK,
    ),
]
BaselineOption = Annotated[
    str | None,
    typer.Option(
        "--baseline",
        help="Also send it as webp, avif, jxl, raw pixels or prompt alone, in the seed's channel uses. (default of --compare: webp, in paper mode raw)",
        show_default=False,
    ),
]
CompareOption = Annotated[
    bool,
    typer.Option(
        "--compare", help="Also write a figure: error-free, split and baseline side by side."
    ),
]
SizeOption = Annotated[
    int | None,
    typer.Option(
        "--size",
        help="Height and width in pixels, such as 256, 512 or 1024. (default: 256)",
    ),
]
SeedOption = Annotated[
    int | None, typer.Option("--rng-seed", help="Another number, other chances. (default: 0)")
]
CodecOption = Annotated[
    str | None,
    typer.Option(
        "--codec",
        help="How the feature crosses: seed (entropy-coded), sketch, jscc, hybrid; analog, int8, float16 or float32. (default: int8, in paper mode analog)",
    ),
]
RateOption = Annotated[
    float | None,
    typer.Option(
        "--rate",
        help="Of seed and sketch in bits a pixel, of jscc and hybrid as a share of the analog seed's channel uses, 0.125 to 1. (default: 0.1, 0.03, 1)",
    ),
]
ScenarioOption = Annotated[
    Path | None,
    typer.Option(
        "--scenario",
        help="TOML file with tables request, plan, codecs, link, devices, model, world, writer, video.",
        show_default=False,
        rich_help_panel=FILES,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="TABLE.KEY=VALUE",
        help="Override one key, such as link.csi=perfect. May be repeated.",
        show_default=False,
        rich_help_panel=FILES,
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object on stdout.", rich_help_panel=FILES),
]


def place_of(model: str) -> str:
    """What --model names, so that it is found from other folders too."""
    from megdt.models.pretrained import as_path

    place = as_path(model)
    return str(place.resolve()) if place.is_dir() else model


def given_model(model: str | None, settings: list[str] | None) -> dict[str, Any]:
    """The keys of [model] that --model and --set name; of other tables none may be.

    Raises:
        ScenarioError: If one is.
    """
    from megdt.errors import ScenarioError
    from megdt.scenario import override

    others = [told for told in settings or [] if not told.startswith("model.")]
    if others:
        raise ScenarioError(
            f"--set {others[0]}: what the file holds stays; of a scenario, only [model] may be set here"
        )
    found: dict[str, Any] = override({}, settings or []).get("model", {})
    return found if model is None else name_model(found, model)


def name_model(table: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The table [model] with what --model names, in place of what it named before."""
    from megdt.models.manifest import is_variant
    from megdt.models.pretrained import as_path

    key = "variant" if is_variant(as_path(model)) else "name"
    kept = {name: value for name, value in table.items() if name not in ("name", "variant")}
    return {**kept, key: place_of(model)}


def read_scenario(
    path: Path | None,
    settings: list[str] | None,
    *,
    defaults: dict[str, dict[str, Any]] | None = None,
    model: str | None = None,
    codec: str | None = None,
    rate: float | None = None,
    **options: dict[str, Any],
) -> Scenario:
    """The scenario of defaults, a file, --set and options, the later ones first in weight."""
    from megdt.scenario import choose_codec, load_scenario, override, parse_scenario

    tables = load_scenario(path) if path is not None else {}
    for table, values in (defaults or {}).items():
        tables[table] = {**values, **tables.get(table, {})}
    tables = override(tables, settings or [])
    for table, values in options.items():
        given = {key: value for key, value in values.items() if value is not None}
        tables[table] = {**tables.get(table, {}), **given}
    if model is not None:
        tables["model"] = name_model(tables.get("model", {}), model)
    source = str(path) if path is not None else "command line"
    tables = choose_codec(tables, codec, rate, source=source)
    return parse_scenario(tables, source=source)
