from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from megdt.errors import LinkError
from megdt.link.adaptation import LinkAdaptation
from megdt.link.channels import BlockFading, Fading, Gains
from megdt.link.grid import BLOCK_ELEMENTS, ChannelStatistics, Grid
from megdt.link.latency import Timing
from megdt.link.transport import Transport
from megdt.records import Delivery, Packet

AWGN = BlockFading(snr_db=10, k_factor=math.inf)
PAYLOAD = np.random.default_rng(5).integers(0, 256, 2000, np.uint8).tobytes()
SYMBOLS = np.exp(2j * np.pi * np.random.default_rng(6).random(3000)).astype(np.complex64)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def send(transport: Transport, packet: Packet | None = None, seed: int = 0) -> Delivery:
    return transport.send(Packet(payload=PAYLOAD) if packet is None else packet, rng(seed))


@pytest.mark.parametrize("coding", ["ldpc", "abstract", "ideal"])
@pytest.mark.parametrize("channel", [AWGN, BlockFading(snr_db=15, coherence_time_s=5e-3)])
def test_a_payload_arrives_as_it_was(coding: str, channel: BlockFading) -> None:
    delivery = send(Transport(channel=channel, coding=coding))  # type: ignore[arg-type]
    assert delivery.outcome == "delivered"
    assert delivery.payload == PAYLOAD


def test_the_same_generator_gives_the_same_delivery() -> None:
    channel = BlockFading(snr_db=5, coherence_time_s=2e-3)
    packet = Packet(payload=PAYLOAD[:300], symbols=SYMBOLS)
    first, second = (send(Transport(channel=channel), packet) for _ in range(2))
    assert (first.symbols == second.symbols).all()  # type: ignore[union-attr]
    assert (first.uses, first.latency_s) == (second.uses, second.latency_s)


def test_everything_on_the_air_is_charged() -> None:
    delivery = send(Transport(channel=AWGN))
    uses = delivery.uses
    # Blocks of 168: 12 control, 12 pilots, 144 data; 12 of feedback a block, and a first report.
    blocks_sent = uses.control // 12
    assert uses.pilots == uses.control + 60  # and 60 for the first report
    assert uses.data + uses.retransmissions == 144 * blocks_sent
    assert uses.total - uses.feedback - 60 == BLOCK_ELEMENTS * blocks_sent
    transmissions = round(delivery.airtime_s / 1e-3)
    assert uses.feedback == 12 * (transmissions + 1)
    element_j = 1e-3 / 840 * 10**2.3 / 1000
    assert delivery.radiated_j == pytest.approx((uses.total - uses.feedback) * element_j)
    assert delivery.feedback_radiated_j == pytest.approx(uses.feedback * element_j)
    assert delivery.feedback_s == pytest.approx((transmissions + 1) * 1e-3 / 14)
    # Length and checksum, and a sequence number a block.
    assert delivery.header_bits == 64 + 16 * delivery.blocks


def test_a_receiver_that_knows_the_channel_needs_no_pilots() -> None:
    uses = send(Transport(channel=AWGN, grid=Grid(pilots=False))).uses
    assert uses.pilots == 0
    assert uses.control > 0


def test_the_ideal_code_reaches_capacity_and_nothing_beyond() -> None:
    channel = BlockFading(snr_db=10 * math.log10(3), k_factor=math.inf)
    grid = Grid(pilots=False, control=False)
    delivery = send(Transport(channel=channel, grid=grid, coding="ideal"))
    assert delivery.uses.total == 8 * len(PAYLOAD) // 2  # 2 bits a use
    assert delivery.airtime_s == pytest.approx(8000 / 840 * 1e-3)


def test_the_bit_true_link_needs_more_than_capacity_but_not_much_more() -> None:
    ideal = send(Transport(channel=AWGN, grid=Grid(pilots=False, control=False), coding="ideal"))
    real = send(Transport(channel=AWGN, grid=Grid(pilots=False)))
    assert 1.1 < real.uses.total / ideal.uses.total < 1.7


@pytest.mark.parametrize("snr_db", [0.0, 6.0, 14.0])
def test_the_abstract_link_is_near_the_bit_true_one(snr_db: float) -> None:
    """Uses and first failures over many packets in fading, the two meeting the same channels."""
    channel = BlockFading(snr_db=snr_db, k_factor=2.0, coherence_time_s=4e-3)
    sums = {}
    for coding in ("ldpc", "abstract"):
        transport = Transport(channel=channel, coding=coding)  # type: ignore[arg-type]
        found = [send(transport, Packet(payload=PAYLOAD[:600]), seed) for seed in range(60)]
        sums[coding] = (
            sum(d.uses.total for d in found),
            sum(d.failed_first for d in found) / sum(d.blocks for d in found),
        )
    assert sums["abstract"][0] == pytest.approx(sums["ldpc"][0], rel=0.06)
    assert sums["abstract"][1] == pytest.approx(sums["ldpc"][1], abs=0.06)


def test_combining_beats_sending_again_beats_sending_once() -> None:
    # One MCS, 2 dB below what it needs.
    adaptation = LinkAdaptation(mcs_index=9)
    channel = BlockFading(snr_db=7.6, k_factor=math.inf)
    base = Transport(channel=channel, adaptation=adaptation, grid=Grid(pilots=False))
    combined, repeated, once = (
        [send(replace(base, harq=h), Packet(payload=PAYLOAD[:150]), s) for s in range(20)]  # type: ignore[arg-type]
        for h in ("ir", "arq", "none")
    )
    delivered = [sum(d.outcome == "delivered" for d in x) for x in (combined, repeated, once)]
    assert delivered[0] == 20
    assert delivered[0] > delivered[1] >= delivered[2]


def test_a_packet_that_cannot_be_decoded_is_lost_and_nothing_of_it_arrives() -> None:
    channel = BlockFading(snr_db=-25, k_factor=math.inf)
    delivery = send(Transport(channel=channel), Packet(payload=PAYLOAD, symbols=SYMBOLS))
    assert (delivery.outcome, delivery.payload, delivery.symbols) == ("lost", b"", None)
    assert delivery.uses.total > 0
    assert delivery.radiated_j > 0


@pytest.mark.parametrize("coding", ["ldpc", "abstract", "ideal"])
def test_a_packet_that_misses_its_deadline_is_late_and_what_was_sent_is_charged(
    coding: str,
) -> None:
    transport = Transport(channel=AWGN, coding=coding)  # type: ignore[arg-type]
    whole = send(transport)
    late = send(replace(transport, deadline_s=whole.latency_s - 2e-3))
    assert (late.outcome, late.payload) == ("late", b"")
    assert 0 < late.uses.total < whole.uses.total
    assert send(replace(transport, deadline_s=whole.latency_s)).outcome == "delivered"


def test_analog_symbols_can_be_late_too() -> None:
    packet = Packet(payload=b"ab", symbols=SYMBOLS)
    assert send(Transport(channel=AWGN, deadline_s=9e-3), packet).outcome == "late"


def test_latency_counts_grant_slots_processing_and_the_way() -> None:
    timing = Timing(scheduling_slots=3, processing_slots=1, distance_m=300_000)
    packet = Packet(symbols=SYMBOLS[:100])
    delivery = send(Transport(channel=AWGN, timing=timing), packet)
    assert delivery.latency_s == pytest.approx(5e-3 + 1.0007e-3, rel=1e-4)
    assert delivery.airtime_s == pytest.approx(1e-3)


def test_a_retransmission_waits_a_round_trip() -> None:
    channel = BlockFading(snr_db=6.5, k_factor=math.inf)
    adaptation = LinkAdaptation(mcs_index=9)
    packet = Packet(payload=PAYLOAD[:100])
    quick, slow = (
        send(
            Transport(channel=channel, adaptation=adaptation, timing=Timing(harq_rtt_slots=n)),
            packet,
        )
        for n in (2, 40)
    )
    assert quick.failed_first == slow.failed_first == 1
    assert slow.latency_s - quick.latency_s > 30e-3


def test_analog_noise_is_as_told_with_estimated_gains_in_fading() -> None:
    channel = BlockFading(snr_db=10, k_factor=4.0, coherence_time_s=3e-3)
    errors, told = [], []
    for seed in range(40):
        delivery = send(Transport(channel=channel), Packet(symbols=SYMBOLS), seed)
        assert delivery.symbols is not None
        errors.append(np.abs(delivery.symbols - SYMBOLS) ** 2)
        told.append(delivery.noise_power)
    ratio = np.concatenate(errors) / np.concatenate(told)
    assert ratio.mean() == pytest.approx(1, rel=0.05)


def test_payload_and_symbols_meet_the_same_course_of_the_channel_whatever_is_sent() -> None:
    seen: list[tuple[int, complex]] = []

    @dataclass(frozen=True)
    class Spy:
        statistics = ChannelStatistics()

        def begin(self, grid: Grid, rng: np.random.Generator) -> Fading:
            fading = BlockFading(snr_db=20, coherence_time_s=1e-3).begin(grid, rng)

            class Told:
                def slot(self, index: int, blocks: int) -> tuple[Gains, float]:
                    gains, power = fading.slot(index, blocks)
                    seen.append((index, complex(gains[0, 0])))
                    return gains, power

            return Told()

    send(Transport(channel=Spy()), Packet(symbols=SYMBOLS))
    first = dict(seen)
    seen.clear()
    send(Transport(channel=Spy()), Packet(payload=PAYLOAD))
    both = first.keys() & dict(seen).keys()
    assert len(both) >= 3
    assert all(first[i] == dict(seen)[i] for i in both)


@pytest.mark.parametrize("snr_db", [0.0, 12.0])
def test_payload_bits_fit_in_the_uses_that_they_were_counted_for(snr_db: float) -> None:
    channel = BlockFading(snr_db=snr_db, k_factor=math.inf)
    for coding in ("ldpc", "ideal"):
        transport = Transport(channel=channel, coding=coding)  # type: ignore[arg-type]
        bits = transport.payload_bits(20_000, rng())
        delivery = send(transport, Packet(payload=rng(1).bytes(bits // 8)))
        first = delivery.uses.total - delivery.uses.retransmissions * BLOCK_ELEMENTS / 144
        assert 0.9 * 20_000 < first < 1.03 * 20_000
    assert Transport(channel=channel).payload_bits(100, rng()) == 0


@pytest.mark.parametrize(("coding", "seed"), [("ldpc", 0), ("abstract", 1), ("abstract", 2)])
@pytest.mark.parametrize(
    "channel",
    [
        BlockFading(snr_db=8, k_factor=math.inf),
        BlockFading(snr_db=15, coherence_time_s=1e-3),
        BlockFading(snr_db=12, k_factor=4.0, coherence_time_s=20e-3),
    ],
    ids=["awgn", "fast rayleigh", "slow rician"],
)
def test_the_outer_loop_settles_block_errors_at_their_target(
    channel: BlockFading, coding: str, seed: int
) -> None:
    """Within a percentage point over some 2,000 blocks, whatever the channel."""
    # A tenth of the slots are retransmissions, so this ends after some 2,000 blocks.
    transport = Transport(channel=channel, coding=coding, deadline_s=2.25)  # type: ignore[arg-type]
    delivery = send(transport, Packet(payload=rng(9).bytes(2_000_000)), seed)
    assert delivery.blocks == pytest.approx(2000, rel=0.1)
    assert delivery.failed_first / delivery.blocks == pytest.approx(0.1, abs=0.01)


def test_without_the_outer_loop_a_wrong_report_stays_wrong() -> None:
    channel = BlockFading(snr_db=15, coherence_time_s=1e-3)
    transport = Transport(
        channel=channel, coding="abstract", adaptation=LinkAdaptation(outer_loop=False)
    )
    delivery = send(transport, Packet(payload=PAYLOAD * 20))
    assert delivery.failed_first / delivery.blocks > 0.15


def test_a_codec_cannot_buy_snr_with_uncounted_power() -> None:
    for loud in (np.full(64, 2, np.complex64), np.full(64, np.nan, np.complex64)):
        with pytest.raises(LinkError, match="symbols have mean power"):
            send(Transport(channel=AWGN), Packet(symbols=loud))


def test_real_symbols_are_refused() -> None:
    with pytest.raises(LinkError, match="symbols are real, a radio sends complex ones"):
        send(Transport(channel=AWGN), Packet(symbols=np.ones(4, np.float32)))


def test_nothing_rides_on_the_objects_that_are_handed_over() -> None:
    class Sack(bytes):
        secret = "the whole picture"

    class Cloak(np.ndarray):  # type: ignore[type-arg]
        secret = "the whole picture"

    for coding in ("ldpc", "abstract", "ideal"):
        packet = Packet(payload=Sack(b"ab"), symbols=SYMBOLS.view(Cloak))
        delivery = send(Transport(channel=AWGN, coding=coding), packet)  # type: ignore[arg-type]
        assert type(delivery.payload) is bytes
        assert type(delivery.symbols) is np.ndarray


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"coding": "turbo"}, "coding is 'turbo', known: ldpc, abstract, ideal"),
        ({"harq": "ack"}, "harq is 'ack', known: ir, arq, none"),
        ({"max_transmissions": 0}, "max_transmissions is 0, this link takes 1 to 16"),
        ({"deadline_s": -1.0}, "deadline_s is -1, this link takes 0 to"),
        ({"deadline_s": math.nan}, "deadline_s is nan"),
        ({"tx_power_dbm": 4000.0}, "this link takes -100 to 100"),
    ],
)
def test_an_impossible_setting_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(LinkError, match=message):
        Transport(channel=AWGN, **settings)  # type: ignore[arg-type]


def test_timing_out_of_range_is_refused() -> None:
    with pytest.raises(LinkError, match="harq_rtt_slots is 0, it goes from 1 to 1000"):
        Timing(harq_rtt_slots=0)
    with pytest.raises(LinkError, match="distance_m is nan"):
        Timing(distance_m=math.nan)


def test_a_narrow_carrier_sends_a_byte_a_block_if_it_must() -> None:
    channel = BlockFading(snr_db=-4, k_factor=math.inf)
    transport = Transport(
        channel=channel,
        grid=Grid(bandwidth_hz=180e3),
        adaptation=LinkAdaptation(mcs_table=3),
        max_transmissions=16,
    )
    assert send(transport, Packet(payload=b"seed")).payload == b"seed"


@pytest.mark.parametrize("snr_db", [4.0, 10.0, 16.0])
def test_short_packets_keep_the_target_as_well(snr_db: float) -> None:
    """They have a code of their own length, which needs more SNR than a whole slot's."""
    transport = Transport(channel=BlockFading(snr_db=snr_db, k_factor=math.inf))
    sent = [send(transport, Packet(payload=rng(s).bytes(8)), s) for s in range(60)]
    failed = sum(d.failed_first for d in sent) / sum(d.blocks for d in sent)
    assert failed < 0.25
    assert all(d.outcome == "delivered" for d in sent)
