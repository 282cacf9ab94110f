"""The world of a twin, simulated: a scene, UEs that go through it, and their radio."""

from megdt.site.simulated import SimulatedSite, open_twin

__all__ = ["SimulatedSite", "open_twin"]
