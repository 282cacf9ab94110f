"""Generative sub-models. The constants are here, where no torch is imported, because both ends
need them to know a seed's shape.
"""

LATENT_CHANNELS = 4
"""Channels of the default bundle's latents."""

FACTOR = 8
"""Pixels along the side of the square that one latent stands for."""

SHIFT = 1.5
"""Of noise levels on the first grid: more of the steps are spent where the scene is decided."""
