"""The monitor: attacks are found and named, honest UEs are left alone, and nobody is framed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from megdt.errors import MeasurementError, TwinError
from megdt.models.bundle import Bundle
from megdt.records import Side
from megdt.twin.arrival import Arrival, Expectation
from megdt.twin.evidence import LEVELS, SUMS, TESTS, Limits, Score, bundled_limits
from megdt.twin.monitor import Judgement, Monitor, Quarantine
from megdt.twin.patrol import Patrol, as_observation
from megdt.twin.replica import Replica
from megdt.twin.store import Store, open_store

UE1, UE2, UE3 = (Side.ue(n) for n in (1, 2, 3))
COLUMNS = 64
Latents = NDArray[np.float32]


class Scene:
    """A world of random latents, three UEs that see much the same of it, and a monitor."""

    def __init__(self, store: Store | None = None) -> None:
        self.rng = np.random.default_rng(0)
        self.world = self.rng.standard_normal((4, 32, COLUMNS)).astype(np.float32)
        self.other = self.rng.standard_normal((4, 32, COLUMNS)).astype(np.float32)
        self.store = open_store() if store is None else store
        self.monitor = Monitor(
            Replica.blank(32, COLUMNS), self.store, limits=bundled_limits(), quarantine=Quarantine()
        )
        self.now_s = 0.0
        self.sent: dict[Side, int] = {}

    def see(self, column: int, world: Latents | None = None) -> Latents:
        """A view, with a camera's noise."""
        seen = (self.world if world is None else world)[:, :, column : column + 32]
        return (seen + 0.02 * self.rng.standard_normal(seen.shape)).astype(np.float32)

    def arrival(self, side: Side, column: int = 16, values: Latents | None = None) -> Arrival:
        """The next of a UE."""
        self.now_s += 30
        self.sent[side] = self.sent.get(side, 0) + 1
        return Arrival(
            source=side, sequence=self.sent[side],
            observation=as_observation(self.see(column) if values is None else values),
            first_column=column, snr_db=15.0, blocks=40, block_errors=4, arrived_s=self.now_s,
            noise_db=tuple(0.2 * self.rng.standard_normal(40)),
        )  # fmt: skip

    def judge(self, arrival: Arrival, column: float = 16.0) -> Judgement:
        """Against what is expected of it."""
        return self.monitor.judge(
            arrival,
            Expectation(
                snr_db=15.0,
                snr_std_db=2.0,
                noise_db=0.0,
                noise_std_db=0.8,
                bler=0.1,
                column=column,
                column_std=1.5,
            ),
        )

    def go_on(self, rounds: int = 3, sides: tuple[Side, ...] = (UE1, UE2, UE3)) -> None:
        """Honest rounds."""
        for _ in range(rounds):
            for side in sides:
                judged = self.judge(self.arrival(side))
                assert not judged.evidence, [str(e) for e in judged.evidence]


@pytest.fixture
def scene() -> Scene:
    made = Scene()
    made.go_on()
    return made


def test_what_honest_ues_send_goes_into_the_replica(scene: Scene) -> None:
    replica = scene.monitor.replica
    assert np.abs(replica.values[:, :, 20:44] - scene.world[:, :, 20:44]).max() < 0.15
    assert all(scene.monitor.trusts(side) for side in (UE1, UE2, UE3))
    told = [ue.desired["monitor"] for ue in scene.store.entities("ue")]
    assert [state["status"] for state in told] == ["trusted"] * 3
    assert not any("evidence" in state for state in told)


def faded(scene: Scene) -> Arrival:
    return replace(scene.arrival(UE1), snr_db=0.0, noise_db=None)


def jammed(scene: Scene) -> Arrival:
    """By less than the SNR could tell: 4 dB of 2 dB by which it differs anyhow."""
    arrival = scene.arrival(UE1)
    assert arrival.noise_db is not None
    return replace(arrival, snr_db=11.0, noise_db=tuple(level + 4 for level in arrival.noise_db))


def pulsed(scene: Scene) -> Arrival:
    """Four blocks in forty, no more lost than usual."""
    arrival = scene.arrival(UE1)
    assert arrival.noise_db is not None
    hit = tuple(level + 3 * (n % 10 == 0) for n, level in enumerate(arrival.noise_db))
    return replace(arrival, noise_db=hit)


def lossy(scene: Scene) -> Arrival:
    return replace(scene.arrival(UE1), block_errors=25)


def sent_again(scene: Scene) -> Arrival:
    return replace(scene.arrival(UE1), sequence=1)


def copied(scene: Scene) -> Arrival:
    values = scene.see(16)
    scene.judge(scene.arrival(UE1, values=values))
    return scene.arrival(UE1, values=values)


def aged(scene: Scene) -> Arrival:
    arrival = scene.arrival(UE1)
    return replace(arrival, observation=replace(arrival.observation, age_s=500.0))


def forged(scene: Scene) -> Arrival:
    return scene.arrival(UE1, values=scene.see(16, scene.other))


def poisoned(scene: Scene) -> Arrival:
    values = scene.see(16)
    values[:, 10:14, 12:16] = scene.other[:, 10:14, 12:16]
    return scene.arrival(UE1, values=values)


def beside(scene: Scene) -> Arrival:
    return scene.arrival(UE1, values=scene.see(17))


def far_off(scene: Scene) -> Arrival:
    return scene.arrival(UE1, column=25)


@pytest.mark.parametrize(
    ("attack", "kind"),
    [
        (jammed, "jammed"), (pulsed, "jammed"), (faded, "jammed"), (lossy, "jammed"),
        (sent_again, "replayed"), (copied, "replayed"), (aged, "replayed"), (forged, "forged"), (poisoned, "poisoned"),
        (beside, "spoofed"), (far_off, "spoofed"),
    ],
)  # fmt: skip
def test_each_attack_is_found_and_named(
    scene: Scene, attack: Callable[[Scene], Arrival], kind: str
) -> None:
    judged = scene.judge(attack(scene))
    assert judged.kind == kind
    assert not judged.trusted
    assert judged.tiles == ()
    worst = judged.evidence[0]
    assert worst.statistic > worst.limit
    desired = scene.store.get("ue/1").desired["monitor"]
    assert desired["status"] == "quarantined"
    assert desired["kind"] == kind
    assert desired["evidence"][0] == str(worst)
    assert f"at most {worst.limit:.2f} in clean runs" in str(worst)


def test_a_poisoned_patch_is_told_where_it_is(scene: Scene) -> None:
    (worst, *_) = scene.judge(poisoned(scene)).evidence
    assert worst.test == "patch, 3 min"
    assert worst.column is not None
    assert 16 + 12 - 4 <= worst.column <= 16 + 16
    assert 0 < worst.p_value < 0.01


def test_quarantine_lasts_until_the_source_has_agreed_for_so_long(scene: Scene) -> None:
    scene.judge(forged(scene))
    before = scene.monitor.replica.revision
    for _ in range(5):
        assert not scene.judge(scene.arrival(UE1)).trusted
    assert scene.monitor.replica.revision == before
    scene.judge(forged(scene))  # counts from the start again
    ended_s = scene.now_s
    while not scene.monitor.trusts(UE1):
        scene.go_on(1)
    assert scene.now_s >= ended_s + 600
    told = scene.store.get("ue/1").desired["monitor"]
    assert told["status"] == "trusted"
    assert told["since_s"] == pytest.approx(scene.now_s, abs=90)
    assert not {"kind", "evidence"} & told.keys()


def test_a_monitor_that_is_opened_again_keeps_the_quarantine(scene: Scene) -> None:
    scene.judge(forged(scene))
    again = Scene(scene.store)
    assert not again.monitor.trusts(UE1)
    assert again.monitor.trusts(UE2)
    assert again.monitor.doubted == {UE1}
    for side in (UE1, UE2, UE3):
        assert again.monitor._standing(side).tell() == scene.monitor._standing(side).tell()


def test_a_message_is_known_again_by_a_monitor_that_was_opened_again(scene: Scene) -> None:
    message = scene.arrival(UE2)
    assert not scene.judge(message).evidence
    again = Scene(scene.store)
    (first, *_) = again.judge(message).evidence
    assert first.test == "sequence"


def test_staying_just_below_each_limit_adds_up(scene: Scene) -> None:
    kinds = [
        scene.judge(replace(scene.arrival(UE1), snr_db=15 - 2.5 * 2.0)).evidence for _ in range(30)
    ]
    (evidence,) = next(filter(None, kinds))
    assert kinds[0] == ()
    assert (evidence.test, evidence.kind) == ("sum of link", "jammed")


def test_a_liar_cannot_make_its_neighbours_look_like_liars(scene: Scene) -> None:
    scene.judge(forged(scene))
    scene.go_on(2, (UE2, UE3))


def test_what_two_have_seen_is_believed_by_the_second(scene: Scene) -> None:
    scene.world[:, 8:16, 30:38] = scene.other[:, 8:16, 30:38]
    assert scene.judge(scene.arrival(UE1)).kind == "poisoned"
    second = scene.judge(scene.arrival(UE2))
    assert not second.evidence
    assert second.tiles
    assert not scene.judge(scene.arrival(UE1)).evidence


def test_a_source_that_nobody_else_can_check_is_told_by_its_own_past() -> None:
    scene = Scene()
    scene.go_on(3, (UE1,))
    kinds: list[str | None] = []
    # A little further towards another scene each time: what each has of the one before is noise.
    start = scene.world.copy()
    for step in range(1, 200):
        share = step / 200
        scene.world = ((1 - share) * start + share * scene.other).astype(np.float32)
        judged = scene.judge(scene.arrival(UE1))
        kinds.append(judged.kind)
        if judged.evidence:
            assert judged.evidence[0].test.startswith("anchor scene")
            break
        scene.now_s += 60
    assert kinds[-1] == "forged"
    assert len(kinds) > 20


def test_a_flower_where_one_looks_alone_is_told_once_and_believed_in_time() -> None:
    scene = Scene()
    scene.go_on(4, (UE1,))
    scene.world[:, 8:16, 26:34] = (2 * scene.other[:, 8:16, 26:34]).clip(-3.9, 3.9)
    kinds, trusted = [], []
    for _ in range(30):
        judged = scene.judge(scene.arrival(UE1))
        kinds.append(judged.kind)
        trusted.append(judged.trusted)
    assert kinds[0] == "poisoned"
    assert not any(kinds[1:])
    assert not any(trusted[:5])
    assert trusted[-1]
    shown = scene.monitor.replica.values[:, 8:16, 26:34]
    assert np.abs(shown - scene.world[:, 8:16, 26:34]).max() < 0.15


def test_what_others_saw_long_ago_gives_way_to_what_it_saw_itself() -> None:
    scene = Scene()
    scene.go_on(2)
    scene.now_s += 1_200  # the others have left
    scene.world[:, 8:16, 26:34] = scene.other[:, 8:16, 26:34]
    assert scene.judge(scene.arrival(UE1)).kind == "poisoned"
    scene.go_on(10, (UE1,))


def test_links_of_a_patrol_are_as_noisy_as_they_say() -> None:
    patrol = Patrol(rng_seed=5, rounds=200)
    levels = np.array([[link.noise_db for link in links] for links in patrol.links()])
    means = levels.mean(2)
    expected = patrol.expect(next(patrol.links())[0], 0.0)
    assert means.mean() == pytest.approx(expected.noise_db, abs=0.1)
    assert means.std() == pytest.approx(expected.noise_std_db, rel=0.1)
    assert (levels - means[..., None]).std() == pytest.approx(patrol.slot_noise_db, rel=0.1)


def test_another_scene_is_not_believed_for_being_sent_again_and_again() -> None:
    scene = Scene()
    scene.go_on(4, (UE1,))
    scene.world = scene.other
    for _ in range(30):
        judged = scene.judge(scene.arrival(UE1))
        assert judged.kind == "forged"
        assert not judged.trusted


def test_what_one_sees_alone_has_limits_of_its_own(scene: Scene) -> None:
    def tests_of(arrival: Arrival) -> set[str]:
        scores = scene.judge(arrival).scores
        return {s.test for s in scores if "patch" in s.test or "scene" in s.test}

    assert tests_of(scene.arrival(UE1)) == {"scene", "patch"}
    alone = Scene()
    alone.go_on(1, (UE1,))
    scene = alone
    assert tests_of(scene.arrival(UE1)) == {"own scene", "own patch"}


def test_scores_that_clean_arrivals_share_surprise_nobody() -> None:
    shared = [1.0] * (len(LEVELS) - 2) + [2.0, 3.0]
    limits = Limits(scores={"snr": shared}, counts={"snr": 10_000}, alarms={}, sums={})
    assert limits.surprise(Score(test="snr", value=1.0, compared="")) == 0
    above = limits.surprise(Score(test="snr", value=2.0, compared=""))
    assert above == pytest.approx(-np.log(LEVELS[-2]))


def test_who_does_not_tell_its_noise_is_judged_by_the_rest(scene: Scene) -> None:
    judged = scene.judge(replace(scene.arrival(UE1), noise_db=None))
    assert not judged.evidence
    assert {"noise", "pulses"}.isdisjoint(s.test for s in judged.scores)


def test_what_cannot_be_is_told(scene: Scene, tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="41 block errors in 40 blocks"):
        replace(scene.arrival(UE1), block_errors=41)
    arrival = scene.arrival(UE1)
    with pytest.raises(MeasurementError, match="noise levels of 2 blocks, 40 came"):
        replace(arrival, noise_db=(0.0, 0.0))
    with pytest.raises(MeasurementError, match="not finite"):
        replace(arrival, noise_db=(np.nan,) * 40)
    with pytest.raises(MeasurementError, match="not finite"):
        scene.arrival(UE1, values=np.full((4, 32, 32), np.nan, np.float32))
    with pytest.raises(MeasurementError, match=r"5\.0 s from now; ages begin at 0"):
        replace(arrival, observation=replace(arrival.observation, age_s=-5.0))
    with pytest.raises(TwinError, match="columns 40 to 71, the replica has 0 to 63"):
        scene.judge(scene.arrival(UE1, column=40, values=scene.see(16)))
    with pytest.raises(MeasurementError, match=r"0\.0 dB .* expected above 0"):
        Expectation(
            snr_db=1.0, snr_std_db=0.0, noise_db=0.0, noise_std_db=1.0, bler=0.1, column=0.0,
            column_std=1.0,
        )  # fmt: skip
    (tmp_path / "limits.json").write_text("{}")
    with pytest.raises(TwinError, match=r"holds no limits .* recipes/monitor.py"):
        Limits.read(tmp_path / "limits.json")


def test_the_limits_that_come_along_are_whole() -> None:
    limits = bundled_limits()
    for key, scores in limits.scores.items():
        assert key.partition(",")[0] in TESTS
        assert len(scores) == len(LEVELS)
        assert list(scores) == sorted(scores)
        assert limits.surprise(Score(test=key, value=1e9, compared="")) <= np.log(
            limits.counts[key] + 1
        )
        assert limits.surprise(Score(test=key, value=-1e9, compared="")) == 0
    assert limits.alarms.keys() == limits.scores.keys()
    assert limits.sums.keys() == SUMS.keys()
    assert limits.surprise(Score(test="unheard of", value=1.0, compared="")) == 0


def test_real_views_agree_and_another_gardens_do_not(bundle: Bundle) -> None:
    patrol = Patrol(rng_seed=10_000_321, ues=3, columns=48, rounds=3)
    with open_store() as store:
        monitor = Monitor(
            Replica.blank(32, 48), store, limits=bundled_limits(), quarantine=Quarantine()
        )
        for report in patrol.walk(bundle.encode):
            assert not monitor.judge(report.arrival, report.expectation).evidence
        alien = next(replace(patrol, rng_seed=10_000_322).walk(bundle.encode)).arrival
        lie = replace(
            report.arrival, sequence=9, observation=alien.observation, arrived_s=400.0
        )  # fmt: skip
        assert monitor.judge(lie, report.expectation).kind == "forged"


def test_what_a_liar_has_put_where_nobody_had_looked_frames_nobody_once_it_is_found() -> None:
    scene = Scene()
    other = np.roll(scene.world, 40, 2)
    first = scene.arrival(UE1, values=scene.see(16, other))
    assert not scene.judge(first).evidence  # nobody knows better
    assert scene.judge(first).kind == "replayed"
    for _ in range(2):
        honest = scene.judge(scene.arrival(UE2))
        assert not honest.evidence, [str(e) for e in honest.evidence]
    assert np.abs(scene.monitor.replica.values[:, :, 20:44] - scene.world[:, :, 20:44]).max() < 0.15
