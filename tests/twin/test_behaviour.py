"""The policy that imitates the expert: what it sees, what it learns, and that it pays."""

from __future__ import annotations

import json

import numpy as np
import pytest

from megdt.errors import TwinError
from megdt.models.bundle import Bundle
from megdt.twin.behaviour import FEATURES, Choices, GardenTwin, Policy, clone, imitate, rollout
from megdt.twin.flowers import KEPT, FlowerCounter, draw_views, learn_to_count
from megdt.twin.perceptron import Training
from megdt.worlds.watering import Expert, Patrol, Wanderer, WateredGarden, tend
from tests.plain_models import PlainModels

HELD_OUT = range(9_500_000, 9_500_008)


def blind(garden: WateredGarden) -> GardenTwin:
    """A twin that knows times and weather alone, and so draws nothing."""
    return GardenTwin(garden, PlainModels().encode, None)


def test_a_policy_that_has_imitated_the_expert_beats_chance() -> None:
    rounds = [range(700, 706), range(706, 712), range(712, 718)]
    how = Training(hidden=(24, 24), steps=200, rate=1e-2)
    *_, policy = imitate(blind, rounds, hours=36, training=how)
    learned, chance = [], []
    for seed in HELD_OUT:
        garden = WateredGarden(seed)
        learned.append(rollout(garden, blind(garden), policy, hours=36)[0].fresh)
        chance.append(tend(WateredGarden(seed), Wanderer(seed).choose, hours=36).fresh)
    assert np.mean(learned) > np.mean(chance) + 0.04


def test_learning_again_gives_the_same_policy() -> None:
    first, second = (
        imitate(blind, [[701], [702]], hours=12, length_m=8, training=Training(steps=20))
        for _ in range(2)
    )
    for one, other in zip(first, second, strict=True):
        for a, b in zip(one.network.weights, other.network.weights, strict=True):
            assert (a == b).all()
    assert (first[0].network.weights[0] != first[1].network.weights[0]).any()


def test_the_kept_policy_keeps_more_flowers_fresh_than_a_patrol(bundle: Bundle) -> None:
    counter, policy = FlowerCounter.kept(), Policy.kept()
    learned, patrol = [], []
    for seed in HELD_OUT:
        garden = WateredGarden(seed)
        twin = GardenTwin(garden, bundle.encode, counter, every_h=36)
        learned.append(rollout(garden, twin, policy, hours=72)[0].fresh)
        patrol.append(tend(WateredGarden(seed), Patrol().choose, hours=72).fresh)
    assert np.mean(learned) > np.mean(patrol) + 0.03


def test_flowers_are_counted_in_gardens_that_the_counter_never_saw(bundle: Bundle) -> None:
    drawn = [draw_views(seed, bundle.encode) for seed in HELD_OUT[:4]]
    latents, counts = (np.concatenate(part) for part in zip(*drawn, strict=True))
    assert latents.shape == (12, 4, 32, 32)
    told = np.stack([FlowerCounter.kept().count(view) for view in latents])
    for kind in range(2):
        assert np.corrcoef(told[..., kind].ravel(), counts[..., kind].ravel())[0, 1] > 0.5


def test_what_is_kept_was_learned_on_the_bundle_in_the_tree(bundle: Bundle) -> None:
    kept = json.loads(KEPT.read_text())
    assert kept["bundle_sha256"] == bundle.checksum
    assert len(KEPT.read_bytes()) < 60_000
    # Going on from the expert's gardens to its own has paid.
    assert kept["fresh_after_round"][-1] > kept["fresh_after_round"][0]


def test_the_twin_knows_what_was_seen_and_reported_and_not_what_is_true(bundle: Bundle) -> None:
    garden = WateredGarden(703, length_m=8)
    twin = GardenTwin(garden, bundle.encode, FlowerCounter.kept(), every_h=2.0)
    before = twin.situation()
    assert before.shape == (8, len(FEATURES))
    garden.water = garden.water * 0.5
    assert (twin.situation() == before).all()
    revision = twin.replica.revision
    for _ in range(7):
        twin.update(garden.step())
    assert twin.replica.revision == revision
    twin.update(garden.step())
    assert twin.replica.revision > revision
    told = dict(zip(FEATURES, twin.situation().T, strict=True))
    assert (told["watered_since_seen"] == 0).all()
    twin.update(3)
    told = dict(zip(FEATURES, twin.situation().T, strict=True))
    assert told["watered_days"][3] == 0
    assert np.flatnonzero(told["beside_watered_days"] == 0).tolist() == [2, 3, 4]


def test_the_expert_in_a_rollout_does_as_it_says() -> None:
    garden, same = WateredGarden(705, length_m=8), WateredGarden(705, length_m=8)
    tally, choices = rollout(garden, blind(garden), Expert(), hours=12)
    assert tally == tend(same, Expert().choose, hours=12)
    assert choices.situations.shape == (len(choices.beds), 8, len(FEATURES))
    assert set(choices.beds.tolist()) <= set(range(8))


def test_what_cannot_be_is_refused(bundle: Bundle) -> None:
    with pytest.raises(TwinError, match="a view every 0 h; give hours above 0, or infinity"):
        GardenTwin(WateredGarden(1, length_m=8), bundle.encode, None, every_h=0)
    nothing = Choices(situations=np.zeros((0, 8, len(FEATURES)), np.float32), beds=np.zeros(0, int))
    with pytest.raises(TwinError, match="no choices of an expert to learn from"):
        clone([nothing], rng_seed=0)
    with pytest.raises(TwinError, match=r"latents are \(4, 32, 9\)"):
        FlowerCounter.kept().count(np.zeros((4, 32, 9), np.float32))


def test_a_counter_learns_from_views() -> None:
    """Where a fresh flower is a bright latent of the first channel, a wilting one of the second."""
    rng = np.random.default_rng(0)
    there = np.zeros((40, 2, 32, 32), bool)
    for view in there:
        view[rng.integers(2, size=16), rng.integers(12, 30, 16), rng.integers(32, size=16)] = True
    latents = rng.normal(0, 0.3, (40, 4, 32, 32)).astype(np.float32)
    latents[:, :2] += 3 * there
    beds = [there[..., max(8 * bed - 2, 0) : 8 * bed + 10].sum((2, 3)) for bed in range(4)]
    counts = np.stack(beds, 1).astype(np.float32)
    how = Training(hidden=(8,), steps=200, rate=2e-2, decay=0.0)
    counter = learn_to_count(latents[:32], counts[:32], rng_seed=0, training=how)
    told = np.stack([counter.count(view) for view in latents[32:]])
    assert np.corrcoef(told.ravel(), counts[32:].ravel())[0, 1] > 0.7
