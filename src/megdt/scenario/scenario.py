"""A scenario, and what it chooses from by name: mechanisms and codecs, each made of the whole of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache, partial
from typing import Any, cast

import numpy as np

from megdt.codecs import Codec
from megdt.codecs.frames import BundledAutoencoder, FileFrameCodec, SeedFrameCodec
from megdt.codecs.image import AnalogImageCodec, FileFormat, FileImageCodec
from megdt.codecs.jscc import (
    MIN_COARSE_BITS,
    JsccSeedCodec,
    PlainSeedCodec,
    check_peer,
    check_rate,
    check_told,
    choose_share,
    count_maps,
    map_size,
)
from megdt.codecs.observation import NeedsCodec, ObservationCodec, WideObservationCodec
from megdt.codecs.progressive import HEADER_BYTES, ProgressiveSeedCodec
from megdt.codecs.prompt import RecipeCodec, TextCodec
from megdt.codecs.seed import AnalogSeedCodec, QuantisedSeedCodec, count_symbols
from megdt.codecs.shares import SharesCodec
from megdt.codecs.sketch import SketchCodec
from megdt.codecs.state import StateCodec
from megdt.codecs.superposed import SuperposedCodec
from megdt.codecs.video import VideoSeedCodec
from megdt.errors import ScenarioError
from megdt.link import Link
from megdt.link.paper import PaperLink
from megdt.link.radio import RadioLink
from megdt.link.superposed import SuperposedLink
from megdt.mechanisms.execute import CoreSeconds, air_rng
from megdt.mechanisms.multi_user import coordinated, decentralized, individual
from megdt.mechanisms.panorama import EDGE_COLUMNS, Camera, Panorama
from megdt.mechanisms.sharing import choose_shares
from megdt.mechanisms.simulate import simulate
from megdt.mechanisms.single_user import (
    CENTRALIZED,
    DESCRIBE_PICTURE,
    ES_TO_UE,
    ES_TO_UE_SKETCH,
    ES_TO_UE_STEPS,
    PARALLEL,
    PREVIEW_THEN_SEED,
    PROMPT_ONLY,
    SEND_PICTURE,
    SEQUENTIAL,
    SKETCH_FIRST,
    TEXT,
    UE_TO_ES,
    UE_TO_ES_GUIDED,
    UE_TO_ES_SKETCH,
)
from megdt.mechanisms.stages import Mechanism, Models, StageProgress
from megdt.mechanisms.video import Video, video_parallel, video_sequential
from megdt.models import FACTOR
from megdt.models.writing import ServedModels
from megdt.records import (
    MIN_SIZE_PX,
    Delivery,
    Feature,
    Kind,
    Mode,
    Part,
    Plan,
    Request,
    Result,
    Share,
    Side,
    Style,
)
from megdt.scenario.settings import Devices, Model, World, Writer
from megdt.worlds.scene import VIEW_EXTENT_M

MechanismFactory = Callable[["Scenario"], Mechanism]
"""Makes a mechanism of what all sides agree on."""

_ONE_USER = (
    ES_TO_UE,
    ES_TO_UE_STEPS,
    ES_TO_UE_SKETCH,
    PREVIEW_THEN_SEED,
    SKETCH_FIRST,
    CENTRALIZED,
    PROMPT_ONLY,
    UE_TO_ES,
    UE_TO_ES_GUIDED,
    UE_TO_ES_SKETCH,
    SEND_PICTURE,
    SEQUENTIAL,
    PARALLEL,
    TEXT,
    DESCRIBE_PICTURE,
)


def _always(mechanism: Mechanism) -> MechanismFactory:
    return lambda scenario: mechanism


MECHANISMS: dict[str, MechanismFactory] = {
    **{m.name: _always(m) for m in _ONE_USER},
    "video_sequential": lambda s: video_sequential(s.video, s.request.size_px),
    "video_parallel": lambda s: video_parallel(s.video, s.request.size_px),
    "individual": lambda scenario: individual(scenario.panorama),
    "decentralized": lambda scenario: decentralized(
        scenario.panorama,
        scenario.shares,
        relayed=scenario.plan.relayed,
        choose=scenario.choose_shares,
    ),
    "coordinated": lambda scenario: coordinated(scenario.panorama, fusion=scenario.plan.fusion),
}

OF_PIPELINES = (
    ES_TO_UE,
    ES_TO_UE_STEPS,
    CENTRALIZED,
    PROMPT_ONLY,
    UE_TO_ES,
    SEND_PICTURE,
    SEQUENTIAL,
)
"""Mechanisms that ask for nothing but what every pipeline can do."""
OF_AUTOENCODERS = (UE_TO_ES, SEND_PICTURE)
"""Those that ask for nothing but to encode and to decode."""

MANY_USERS = ("individual", "decentralized", "coordinated")


CodecFactory = Callable[["Scenario"], Codec]
"""Makes a codec of what both ends agree on."""


def _file_codec(file_format: FileFormat) -> Callable[[Scenario], FileImageCodec]:
    return lambda scenario: FileImageCodec(
        size_px=scenario.request.size_px,
        file_format=file_format,
        budget_bits=scenario.plan.image_bits,
    )


def sketch_size_px(mechanism: str, size_px: int) -> int:
    """Height and width of what a mechanism sketches on the way to a picture of size_px."""
    return MIN_SIZE_PX if mechanism == SKETCH_FIRST.name else size_px


def _file_frame_codec(file_format: FileFormat) -> CodecFactory:
    return lambda scenario: FileFrameCodec(image=_file_codec(file_format)(scenario))


def _progressive(scenario: Scenario) -> ProgressiveSeedCodec:
    return ProgressiveSeedCodec(shape=scenario.seed_shape, budget_bits=scenario.seed_bits)


def _sketch_codec(style: Style) -> CodecFactory:
    return lambda scenario: SketchCodec(
        size_px=sketch_size_px(scenario.plan.mechanism, scenario.request.size_px),
        style=style,
        budget_bits=scenario.plan.sketch_bits,
    )


def told_snr_db(plan: Plan, link: RadioLink | PaperLink) -> float:
    """What a codec is told of the channel, by the plan or by the link's mean.

    Raises:
        ScenarioError: If neither has it, or the paper's convention holds, which tells nobody.
    """
    if plan.mode == "paper":
        raise ScenarioError(
            "codecs that are told the SNR send complex symbols at unit power, paper mode has "
            "neither; take fair mode, or codec analog"
        )
    told = link.mean_snr_db if plan.told_snr_db is None else plan.told_snr_db
    if told is None:
        raise ScenarioError(
            "the codec is told an SNR and this channel has none that both ends know beforehand; "
            "set plan.told_snr_db"
        )
    return told


def jscc_codec(scenario: Scenario) -> Codec:
    """Learned symbols alone, in plan.symbol_rate of the channel uses of the analog seed."""
    return hybrid_codec(scenario, share=1.0)


def hybrid_codec(scenario: Scenario, *, share: float | None = None) -> Codec:
    """Bits and learned symbols in plan.symbol_rate of the channel uses of the analog seed.

    Args:
        scenario: What is to be sent, how much may be spent on it, and the link, whose SNR says how.
        share: How much of that goes by symbols, where it is not to be chosen by the SNR.
    """
    request, plan, link = scenario.request, scenario.plan, scenario.link
    if plan.mechanism == "coordinated":
        raise ScenarioError(
            "the codec of a seed is told the SNR, and coordinated sends whole panoramas, which that "
            "does not carry; take int8, float16, float32, progressive or analog"
        )
    snr_db, shape = told_snr_db(plan, link), scenario.seed_shape
    assert isinstance(link, RadioLink)  # the paper's tells no SNR
    check_rate(plan.symbol_rate)
    check_told(snr_db)
    check_peer(plan.jscc_sha256, folder=scenario.model.code)
    if share is None:
        share = choose_share(snr_db, plan.symbol_rate)
        if share is None:
            return PlainSeedCodec(shape=shape, restore=plan.restore)
    uses = round(plan.symbol_rate * link.analog_uses(count_symbols(math.prod(shape), "fair")))
    bits = 0
    if share < 1:
        digital = round((1 - share) * uses)
        bits = link.payload_bits(digital, _air_of(scenario, "seed"))
        # Too few to say anything: then all of it goes by symbols.
        bits, share = (bits, share) if bits >= MIN_COARSE_BITS else (0, 1.0)
    if share == 0:
        # Bits alone are not mended: the network costs more than it gives where they are many.
        return ProgressiveSeedCodec(shape=shape, budget_bits=bits)
    maps = round(link.symbols_within(round(share * uses)) * 2 // map_size(shape))
    return JsccSeedCodec(
        shape=shape,
        snr_db=snr_db,
        maps=min(count_maps(shape), maps if bits else max(1, maps)),
        coarse_bits=bits,
        restore=plan.restore,
        rng_seed=request.rng_seed,
        peer_sha256=plan.jscc_sha256,
        folder=scenario.model.code,
    )


def _air_of(scenario: Scenario, kind: Kind) -> np.random.Generator:
    """The course of the channel that a feature of this kind will meet, as its sender sounds it."""
    for edge in scenario.mechanism.edges:
        if edge.source.makes == kind:
            return air_rng(scenario.request, edge.source.side, edge.target.side, edge.number)
    return np.random.default_rng(
        scenario.request.rng_seed
    )  # it does not cross: nothing will be sent


def _observation_codec(name: str) -> CodecFactory:
    def make(scenario: Scenario) -> Codec:
        view = CODECS["seed"][name](scenario)
        if not scenario.for_many:
            return ObservationCodec(seed=view)
        assert isinstance(view, ProgressiveSeedCodec | QuantisedSeedCodec)
        return WideObservationCodec(seed=partial(_of_width, view), columns=scenario.panorama.width)

    return make


def _of_width(
    codec: ProgressiveSeedCodec | QuantisedSeedCodec, width: int
) -> ProgressiveSeedCodec | QuantisedSeedCodec:
    """The same for so many columns, at as many bits a column."""
    channels, height, columns = codec.shape
    shape = channels, height, width
    if isinstance(codec, QuantisedSeedCodec) or codec.budget_bits is None:
        return replace(codec, shape=shape)
    bits = max(round(codec.budget_bits * width / columns), 8 * HEADER_BYTES)
    return replace(codec, shape=shape, budget_bits=bits)


CODECS: dict[Kind, dict[str, CodecFactory]] = {
    "prompt": {"text": lambda scenario: TextCodec()},
    "recipe": {"text": lambda scenario: RecipeCodec()},
    "text": {"text": lambda scenario: TextCodec(kind="text")},
    "seed": {
        "float32": lambda scenario: QuantisedSeedCodec(
            shape=scenario.seed_shape, precision="float32"
        ),
        "float16": lambda scenario: QuantisedSeedCodec(
            shape=scenario.seed_shape, precision="float16"
        ),
        "int8": lambda scenario: QuantisedSeedCodec(shape=scenario.seed_shape, precision="int8"),
        "analog": lambda scenario: AnalogSeedCodec(
            shape=scenario.seed_shape, mode=scenario.plan.mode
        ),
        "progressive": _progressive,
        "jscc": jscc_codec,
        "hybrid": hybrid_codec,
    },
    "observation": {
        name: _observation_codec(name) for name in ("progressive", "int8", "float16", "float32")
    },
    "superposed": {"analog": lambda scenario: SuperposedCodec(shape=scenario.watched_shape)},
    "needs": {"map": lambda scenario: NeedsCodec(shape=scenario.view_shape[1:])},
    "shares": {"runs": lambda scenario: SharesCodec()},
    "state": {"hash": lambda scenario: StateCodec()},
    "sketch": {
        "edges": _sketch_codec("edges"),
        "layout": _sketch_codec("layout"),
        "thumbnail": _sketch_codec("thumbnail"),
    },
    "image": {
        "webp": _file_codec("webp"),
        "avif": _file_codec("avif"),
        "jxl": _file_codec("jxl"),
        "analog": lambda scenario: AnalogImageCodec(
            size_px=scenario.request.size_px, mode=scenario.plan.mode
        ),
    },
    "frame": {
        "video": lambda scenario: VideoSeedCodec(
            BundledAutoencoder(),
            height_px=scenario.request.size_px,
            width_px=scenario.request.size_px,
            key_bits=scenario.plan.seed_bits,
        ),
        "seeds": lambda scenario: SeedFrameCodec(
            models=BundledAutoencoder(), seed=_progressive(scenario)
        ),
        "webp": _file_frame_codec("webp"),
        "avif": _file_frame_codec("avif"),
    },
}

DEFAULT_CODECS: dict[Mode, dict[Kind, str]] = {
    "fair": {
        "prompt": "text",
        "recipe": "text",
        "text": "text",
        "seed": "int8",
        "observation": "int8",
        "superposed": "analog",
        "needs": "map",
        "shares": "runs",
        "state": "hash",
        "sketch": "thumbnail",
        "image": "webp",
        "frame": "video",
    },
    "paper": {
        "prompt": "text",
        "recipe": "text",
        "text": "text",
        "seed": "analog",
        "observation": "int8",
        "superposed": "analog",
        "needs": "map",
        "shares": "runs",
        "state": "hash",
        "sketch": "thumbnail",
        "image": "analog",
        "frame": "video",
    },
}


NOISE_CODECS = ("float32", "float16", "int8", "analog")
"""Of seeds: those that carry noise as well as what a picture has; the others know latents without."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One generation, complete: what is wanted, what runs where, what carries it."""

    request: Request
    plan: Plan
    link: RadioLink | PaperLink
    devices: Devices = field(default_factory=Devices)
    video: Video = field(default_factory=Video)
    world: World = field(default_factory=World)
    chosen_shares: tuple[Share, ...] | None = None
    """Who sends what to whom under `decentralized`; as if nothing were hidden where left out."""
    writer: Writer = field(default_factory=Writer)
    model: Model = field(default_factory=Model)

    @cached_property
    def mechanism(self) -> Mechanism:
        """What runs where."""
        return MECHANISMS[self.plan.mechanism](self)

    @property
    def for_many(self) -> bool:
        """Whether it has several UEs along a panorama."""
        return self.plan.mechanism in MANY_USERS

    @cached_property
    def panorama(self) -> Panorama:
        """Who sees what of it, where there are many UEs."""
        view = self.request.size_px // FACTOR
        margin = view // 2 - EDGE_COLUMNS
        apart = round(self.world.spacing_m * view / VIEW_EXTENT_M)
        cameras = tuple(
            Camera(side=Side.ue(number + 1), column=margin + number * apart, width=view)
            for number in range(self.world.ues)
        )
        width = (self.world.ues - 1) * apart + view + 2 * margin
        return Panorama(width=width, cameras=cameras, margin=margin)

    @cached_property
    def shares(self) -> tuple[Share, ...]:
        """Who sends what to whom under `decentralized`."""
        if self.chosen_shares is not None:
            return self.chosen_shares
        blank = Feature(kind="observation", values=np.zeros(self.view_shape, np.float32))
        seen = {c.side: self.panorama.doubt_edges(blank, c) for c in self.panorama.cameras}
        return self.choose_shares(seen)

    def choose_shares(self, seen: Mapping[Side, Feature]) -> tuple[Share, ...]:
        """Who is to send what to whom.

        Args:
            seen: Observations of the UEs that report, with what they see and how old it is.
        """
        rows = self.view_shape[1]
        reports = {side: self._reported(observation) for side, observation in seen.items()}
        everywhere = np.ones((rows, self.panorama.width), np.float32)
        ages_s = {side: report.age_s for side, report in reports.items()}
        budget = self.plan.share_bits
        return choose_shares(
            self.panorama,
            {
                Side.ES: everywhere,
                **{
                    side: np.ones(self.view_shape[1:], np.float32)
                    if report.confidence is None
                    else report.confidence
                    for side, report in reports.items()
                },
            },
            {Side.ES: self.world.memory_days * 86_400, **ages_s},
            budget_bits=math.inf if budget is None else budget,
            cost_bits=lru_cache(self._share_bits),
        )

    def _reported(self, observation: Feature) -> Feature:
        """What the ES hears of an observation."""
        codec = self.codec("needs")
        packet = codec.encode(replace(observation, kind="needs", values=None))
        return codec.decode(Delivery(payload=packet.payload))

    def _share_bits(self, columns: int) -> int:
        """What so many columns of a typical observation take."""
        shape = (*self.view_shape[:2], columns)
        values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        sample = Feature(kind="observation", values=values)
        return self.codec("observation").encode(sample).bits

    @property
    def view_shape(self) -> tuple[int, int, int]:
        """Of one view's seed. [latent_channels, height, width]"""
        space = self.model.space
        side = self.request.size_px // space.factor
        return space.channels, side, side

    @property
    def seed_shape(self) -> tuple[int, int, int]:
        """Of the seeds that cross: of the whole panorama under `coordinated`, else of one view.
        [latent_channels, height, width]
        """
        channels, height, width = self.view_shape
        wide = self.panorama.width if self.plan.mechanism == "coordinated" else width
        return channels, height, wide

    @property
    def watched_shape(self) -> tuple[int, int, int]:
        """Of what adds up on the air. [latent_channels, height, watched]"""
        return *self.view_shape[:2], len(self.panorama.watched)

    @property
    def seed_bits(self) -> int | None:
        """Budget of a seed that crosses: as many bits a column as the plan gives a view."""
        bits, shape = self.plan.seed_bits, self.seed_shape
        return None if bits is None else round(bits * shape[2] / shape[1])

    def run(
        self,
        models: Models,
        *,
        done: Part | None = None,
        progress: StageProgress | None = None,
        core_s: CoreSeconds | None = None,
    ) -> Result:
        """Simulate it; see `mechanisms.simulate.simulate`."""
        crossing = {edge.source.makes for edge in self.mechanism.edges}
        codecs = {kind: self.codec(kind) for kind in self.plan.codecs if kind in crossing}
        return simulate(
            self.mechanism,
            self.request,
            models=self.with_writer(models),
            codecs=codecs,
            links={kind: self.link_of(kind) for kind in codecs},
            devices=self.devices.profiles(self.mechanism.sides),
            done=done,
            progress=progress,
            core_s=core_s,
        )

    def with_writer(self, models: Models) -> Models:
        """The models as they are, or with their texts written by the scenario's server."""
        server = self.writer.server
        return models if server is None else cast(Models, ServedModels(models, server))

    def codec(self, kind: Kind) -> Codec:
        """What carries this kind of feature over the air."""
        return CODECS[kind][self.plan.codecs[kind]](self)

    def link_of(self, kind: Kind) -> Link:
        """What this kind of feature crosses by.

        Raises:
            ScenarioError: If it is to add up on the air in paper mode.
            LinkError: If it is, and the channel lets nothing add up.
        """
        if kind != "superposed":
            return self.link
        if not isinstance(self.link, RadioLink):
            raise ScenarioError(
                "plan.fusion is 'air' in paper mode, which has one sender at a time; take fair mode, "
                "or plan.fusion gate"
            )
        return SuperposedLink(link=self.link, among=len(self.panorama.cameras))

    def table(self) -> dict[str, dict[str, Any]]:
        """The scenario as nested tables, which `parse_scenario` turns back into it."""
        parts = {
            "request": asdict(self.request),
            "plan": asdict(self.plan),
            "link": asdict(self.link),
            "devices": asdict(self.devices),
            "video": asdict(self.video),
            "world": asdict(self.world),
            "writer": asdict(self.writer),
            "model": asdict(self.model),
        }
        parts["codecs"] = parts["plan"].pop("codecs")
        # TOML has no null: what is left out is None.
        return {
            name: {key: value for key, value in table.items() if value is not None}
            for name, table in parts.items()
        }
