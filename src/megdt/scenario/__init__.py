"""Scenarios: the one place that turns TOML, and options of the command line, into objects.

A scenario has nine tables. Every key is a field of the dataclass named here, which holds its
default and its meaning:

    [request]  records.Request       prompt, size_px, steps, guidance_scale, strength, ...
    [plan]     records.Plan          mechanism, mode, image_bits, seed_bits, sketch_bits
    [codecs]   scenario.CODECS       prompt, recipe, text, seed, observation, sketch, image, frame, ...
    [video]    mechanisms.video.Video  motion, frames, frames_per_s, to_prompt, ...
    [link]     link.radio.RadioLink  channel, snr_db, bandwidth_hz, coding, ...; in paper mode
               link.paper.PaperLink  snr_db, bandwidth_hz, tx_power_dbm
    [devices]  settings.Devices      es, ue
    [world]    settings.World        ues, spacing_m, memory_days, hidden
    [writer]   settings.Writer       base_url, model, max_tokens, timeout_s
    [model]    settings.Model        name, dtype, scheduler, ue_autoencoder

To add a mechanism or a codec, add it to the dict in `scenario/scenario.py`.
"""

from megdt.scenario.checking import load_scenario, override
from megdt.scenario.scenario import (
    CODECS,
    DEFAULT_CODECS,
    MANY_USERS,
    MECHANISMS,
    NOISE_CODECS,
    Scenario,
    hybrid_codec,
    jscc_codec,
    sketch_size_px,
    told_snr_db,
)
from megdt.scenario.settings import Devices, Model, World, Writer
from megdt.scenario.tables import choose_codec, parse_scenario

__all__ = [
    "CODECS",
    "DEFAULT_CODECS",
    "MANY_USERS",
    "MECHANISMS",
    "NOISE_CODECS",
    "Devices",
    "Model",
    "Scenario",
    "World",
    "Writer",
    "choose_codec",
    "hybrid_codec",
    "jscc_codec",
    "load_scenario",
    "override",
    "parse_scenario",
    "sketch_size_px",
    "told_snr_db",
]
