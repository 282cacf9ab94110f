"""Mechanisms between one edge server and one user equipment."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from megdt.errors import MechanismError
from megdt.mechanisms.stages import Job, Mechanism, Stage
from megdt.models.lockstep import state_hash
from megdt.records import MIN_SIZE_PX, Feature, Side


def ask(job: Job) -> Feature:
    """The user types a prompt."""
    return Feature(kind="prompt", values=job.request.prompt)


def embed(job: Job, prompt: Feature) -> Feature:
    """Prompt to embedding."""
    return Feature(kind="prompt_embeds", values=job.models.embed([prompt.values])[0])


def denoise(job: Job, prompt_embeds: Feature) -> Feature:
    """Noise to latent, led by the prompt."""
    request = job.request
    latents = job.models.denoise(
        prompt_embeds.values[None],
        [request.rng_seed],
        size_px=request.size_px,
        steps=request.steps,
        guidance_scale=request.guidance_scale,
        progress=job.progress,
    )
    return Feature(kind="seed", values=latents[0])


def denoise_first(job: Job, prompt_embeds: Feature) -> Feature:
    """Noise to a latent that still is noise in part: the ES's share of the steps."""
    request = job.request
    latents = job.models.denoise(
        prompt_embeds.values[None],
        [request.rng_seed],
        size_px=request.size_px,
        steps=request.steps,
        guidance_scale=request.guidance_scale,
        handoff_step=request.es_steps,
        progress=job.progress,
    )
    return Feature(kind="seed", values=latents[0])


def denoise_small(job: Job, prompt_embeds: Feature) -> Feature:
    """Noise to the latent of a small picture, on the first grid, where the scene is decided."""
    return denoise(replace(job, request=replace(job.request, size_px=MIN_SIZE_PX)), prompt_embeds)


def enlarge(job: Job, seed: Feature, prompt_embeds: Feature, *awaited: Feature) -> Feature:
    """The first grid's latent, drawn on the finer grids: what `denoise` gives at once.

    Args:
        job: Whose request says how large.
        seed: Of the first grid.
        prompt_embeds: What leads it.
        awaited: What is made before, and not looked at.
    """
    del awaited
    request = job.request
    latents = job.models.enlarge(
        seed.values[None],
        prompt_embeds.values[None],
        [request.rng_seed],
        size_px=request.size_px,
        steps=request.steps,
        guidance_scale=request.guidance_scale,
        progress=job.progress,
    )
    return Feature(kind="seed", values=latents[0])


def denoise_last(job: Job, seed: Feature, prompt: Feature) -> Feature:
    """The steps that are left, and those that the noise of the air has undone."""
    latents, level = job.models.finish(
        seed.values[None],
        [prompt.values],
        [job.request.rng_seed],
        noise_power=seed.noise_power,
        steps=job.request.steps,
        handoff_step=job.request.es_steps,
        guidance_scale=job.request.guidance_scale,
        progress=job.progress,
    )
    redrawn_from = level if seed.noise_power else 0.0
    return Feature(kind="seed", values=latents[0], redrawn_from=redrawn_from)


def decode(job: Job, seed: Feature) -> Feature:
    """Latent to picture, told how much noise the air has left on it."""
    noise_power = np.array([seed.noise_power], np.float32)
    return Feature(kind="image", values=job.models.decode(seed.values[None], noise_power)[0])


def sketch(job: Job, image: Feature) -> Feature:
    """The picture, of which the codec keeps what its style does."""
    del job
    return Feature(kind="sketch", values=image.values)


def decode_rough(job: Job, seed: Feature) -> Feature:
    """Latent to picture, of which a sketch is to cross."""
    return sketch(job, decode(job, seed))


def preview(job: Job, sketch: Feature) -> Feature:
    """A sketch that has crossed, as the picture to look at until the real one is there."""
    del job
    return Feature(kind="image", values=sketch.values)


def redraw(job: Job, sketch: Feature, prompt: Feature | None = None) -> Feature:
    """Noise to latent, led by a sketch that has crossed, and by the prompt where it is known."""
    if sketch.style is None:
        raise MechanismError(
            "the picture to redraw was not sketched: it has not crossed to another side under a "
            "sketch codec; put redraw on the other side"
        )
    request = job.request
    latents = job.models.redraw(
        sketch.values[None],
        None if prompt is None else job.models.embed([prompt.values]),
        [request.rng_seed],
        style=sketch.style,
        steps=request.steps,
        guidance_scale=request.guidance_scale,
        progress=job.progress,
    )
    return Feature(kind="seed", values=latents[0])


def hold(job: Job, feature: Feature, *awaited: Feature) -> Feature:
    """A feature as it is, once others have been made: what crosses after them is not before them."""
    del job, awaited
    return feature


def ask_recipe(job: Job) -> Feature:
    """Prompt and rng_seed: all that it takes to draw the picture."""
    return Feature(kind="recipe", values=(job.request.prompt, job.request.rng_seed))


def draw(job: Job, recipe: Feature) -> Feature:
    """The whole generation on one side, from what the recipe says."""
    prompt, rng_seed = recipe.values
    request = replace(job.request, prompt=prompt, rng_seed=rng_seed)
    job = replace(job, request=request)
    return decode(job, denoise(job, embed(job, Feature(kind="prompt", values=prompt))))


def sense(job: Job) -> Feature:
    """A picture that is there already: its feature is given, nothing is run."""
    raise MechanismError(
        f"no picture was given to send (the prompt is {job.request.prompt!r}); pass it as the done "
        "feature of stage sense"
    )


def encode(job: Job, image: Feature) -> Feature:
    """Picture to latent."""
    return Feature(kind="seed", values=job.models.encode(image.values[None])[0])


def observe(job: Job, image: Feature) -> Feature:
    """Picture to latent, with where and how long ago it was seen."""
    latent = job.models.encode(image.values[None])[0]
    return replace(
        image, kind="observation", values=latent, confidence=seen_in_latents(image.confidence)
    )


def seen_in_latents(seen: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
    """What latents can be believed of a picture that is hidden in places. [height, width]"""
    if seen is None:
        return None
    # The encoder mixes what is hidden into the latents next to it.
    padded = np.pad(seen, 1, constant_values=1)
    rows = np.minimum.reduce([padded[:-2], padded[1:-1], padded[2:]])
    believed: NDArray[np.float32] = np.minimum.reduce([rows[:, :-2], rows[:, 1:-1], rows[:, 2:]])
    return believed


def remember(job: Job) -> Feature:
    """What the ES has of the view: its feature is given, nothing is run."""
    raise MechanismError(
        f"the ES was given nothing to remember (the prompt is {job.request.prompt!r}); pass the "
        "replica's picture as the done feature of stage remember"
    )


def edit(job: Job, seed: Feature, prompt_embeds: Feature) -> Feature:
    """Latent to latent: what was hidden is drawn, the rest as far as the request's strength goes."""
    request = job.request
    where = seed.confidence
    latents = job.models.edit(
        seed.values[None],
        prompt_embeds.values[None],
        [request.rng_seed],
        strength=request.strength,
        steps=request.steps,
        guidance_scale=request.guidance_scale,
        confidence=None if where is None else where[None],
        progress=job.progress,
    )
    return Feature(kind="seed", values=latents[0])


def fuse(job: Job, *observations: Feature | None) -> Feature:
    """All sides' observations to one seed, by the gate; with those alone that are there.

    Raises:
        MechanismError: If none is there, or their shapes differ.
    """
    there = [o for o in observations if o is not None]
    if len({o.values.shape for o in there}) != 1:
        shapes = ", ".join(str(o.values.shape) for o in there) or "nothing"
        raise MechanismError(
            f"the gate on {job.side} was given {shapes}; it fuses observations of one shape, of the "
            "same bundle and view"
        )
    size = there[0].values.shape[1:]
    seen = [np.ones(size, np.float32) if o.confidence is None else o.confidence for o in there]
    fused = job.models.fuse(
        np.stack([o.values for o in there])[None],
        np.stack(seen)[None],
        np.array([[o.age_s for o in there]], np.float32),
        np.array([[o.noise_power for o in there]], np.float32),
    )
    return Feature(kind="seed", values=fused[0], confidence=np.max(seen, axis=0))


def write(job: Job, prompt: Feature) -> Feature:
    """Prompt to text."""
    text = job.models.write(prompt.values, rng_seed=job.request.rng_seed)
    return Feature(kind="text", values=text)


DESCRIBE = "Describe this picture in one sentence."
"""What `describe` asks of who writes. The request's own prompt has not crossed to there."""


def describe(job: Job, image: Feature) -> Feature:
    """Picture to text."""
    text = job.models.write(DESCRIBE, image.values, rng_seed=job.request.rng_seed)
    return Feature(kind="text", values=text)


def vouch(job: Job, seed: Feature) -> Feature:
    """The name of what this side's copy of the gate has made."""
    del job
    return Feature(kind="state", values=state_hash(seed.values))


def agree(job: Job, seed: Feature, state: Feature | None) -> Feature:
    """Whether both copies hold the same: not if one has missed a feature, or is another gate."""
    del job
    if state is None:
        return Feature(kind="agreement", values="unknown")
    same = state_hash(seed.values) == state.values
    return Feature(kind="agreement", values="same" if same else "differs")


def show(job: Job, feature: Feature) -> Feature:
    """A picture or a text as it arrived."""
    del job
    return feature


ES_TO_UE = Mechanism(
    name="es_to_ue",
    about="E2U (section II-C1): the ES embeds and denoises, the seed crosses the air, the UE decodes.",
    stages=(
        Stage(name="ask", side=Side.UE, makes="prompt", run=ask),
        Stage(name="embed", side=Side.ES, inputs=("ask",), makes="prompt_embeds", run=embed),
        Stage(name="denoise", side=Side.ES, inputs=("embed",), makes="seed", run=denoise),
        Stage(name="decode", side=Side.UE, inputs=("denoise",), makes="image", run=decode),
    ),
)

ES_TO_UE_STEPS = Mechanism(
    name="es_to_ue_steps",
    about="E2U split among the denoising steps: the ES runs the first, the noisy seed crosses the air, the UE's student, or a pipeline's own denoiser, runs the last, the noise of the air with them.",
    stages=(
        Stage(name="ask", side=Side.UE, makes="prompt", run=ask),
        Stage(name="embed", side=Side.ES, inputs=("ask",), makes="prompt_embeds", run=embed),
        Stage(name="denoise_first", side=Side.ES, inputs=("embed",), makes="seed", run=denoise_first),
        Stage(
            name="denoise_last", side=Side.UE, inputs=("denoise_first", "ask"), makes="seed",
            run=denoise_last,
        ),
        Stage(name="decode", side=Side.UE, inputs=("denoise_last",), makes="image", run=decode),
    ),
)  # fmt: skip

CENTRALIZED = Mechanism(
    name="centralized",
    about="The baseline: the whole picture is made at the ES, and the picture crosses the air.",
    stages=(
        Stage(name="ask", side=Side.UE, makes="prompt", run=ask),
        Stage(name="embed", side=Side.ES, inputs=("ask",), makes="prompt_embeds", run=embed),
        Stage(name="denoise", side=Side.ES, inputs=("embed",), makes="seed", run=denoise),
        Stage(name="decode", side=Side.ES, inputs=("denoise",), makes="image", run=decode),
        Stage(name="show", side=Side.UE, inputs=("decode",), makes="image", run=show),
    ),
)

PROMPT_ONLY = Mechanism(
    name="prompt_only",
    about="The baseline for a UE that holds the whole model: prompt and rng_seed cross, nothing else.",
    stages=(
        Stage(name="ask", side=Side.ES, makes="recipe", run=ask_recipe),
        Stage(name="draw", side=Side.UE, inputs=("ask",), makes="image", run=draw),
    ),
)

UE_TO_ES = Mechanism(
    name="ue_to_es",
    about="U2E (section II-C1): a picture that the UE senses goes to the ES as its seed, which decodes it.",
    stages=(
        Stage(name="sense", side=Side.UE, makes="image", run=sense),
        Stage(name="encode", side=Side.UE, inputs=("sense",), makes="seed", run=encode),
        Stage(name="decode", side=Side.ES, inputs=("encode",), makes="image", run=decode),
    ),
)

SEND_PICTURE = Mechanism(
    name="send_picture",
    about="The baseline of U2E: the picture itself crosses, under an image codec.",
    stages=(
        Stage(name="sense", side=Side.UE, makes="image", run=sense),
        Stage(name="show", side=Side.ES, inputs=("sense",), makes="image", run=show),
    ),
)

_SKETCHING = (
    Stage(name="ask", side=Side.UE, makes="prompt", run=ask),
    Stage(name="embed", side=Side.ES, inputs=("ask",), makes="prompt_embeds", run=embed),
    Stage(name="denoise", side=Side.ES, inputs=("embed",), makes="seed", run=denoise),
    Stage(name="picture", side=Side.ES, inputs=("denoise",), makes="image", run=decode),
    Stage(name="sketch", side=Side.ES, inputs=("picture",), makes="sketch", run=sketch),
    Stage(name="redraw", side=Side.UE, inputs=("sketch", "ask"), makes="seed", run=redraw),
)

ES_TO_UE_SKETCH = Mechanism(
    name="es_to_ue_sketch",
    about="E2U by sketch (section III-A2): the ES draws the picture, its sketch crosses, and the UE, which has typed the prompt, draws it again.",
    stages=(
        *_SKETCHING,
        Stage(name="decode", side=Side.UE, inputs=("redraw",), makes="image", run=decode),
    ),
)

PREVIEW_THEN_SEED = Mechanism(
    name="preview_then_seed",
    about="Sketch and seed: the sketch first, small enough to come through, for a preview; then the seed, from which the picture is decoded.",
    stages=(
        *_SKETCHING,
        Stage(name="preview", side=Side.UE, inputs=("redraw",), makes="image", run=decode),
        Stage(name="refine", side=Side.ES, inputs=("denoise", "sketch"), makes="seed", run=hold),
        Stage(name="decode", side=Side.UE, inputs=("refine",), makes="image", run=decode),
    ),
)

SKETCH_FIRST = Mechanism(
    name="sketch_first",
    about="An interactive scene: the sketch of the first, coarse grid is sent and shown at once, while the ES goes on to the finer grids; then the seed, from which the picture is decoded.",
    stages=(
        Stage(name="ask", side=Side.UE, makes="prompt", run=ask),
        Stage(name="embed", side=Side.ES, inputs=("ask",), makes="prompt_embeds", run=embed),
        Stage(name="first", side=Side.ES, inputs=("embed",), makes="seed", run=denoise_small),
        Stage(name="rough", side=Side.ES, inputs=("first",), makes="sketch", run=decode_rough),
        Stage(name="preview", side=Side.UE, inputs=("rough",), makes="image", run=preview),
        # After the sketch: else the ES would be busy when it is to be coded.
        Stage(
            name="enlarge", side=Side.ES, inputs=("first", "embed", "rough"), makes="seed",
            run=enlarge,
        ),
        Stage(name="decode", side=Side.UE, inputs=("enlarge",), makes="image", run=decode),
    ),
)  # fmt: skip

UE_TO_ES_GUIDED = Mechanism(
    name="ue_to_es_guided",
    about="U2E by sketch and prompt: what the user says of the picture goes up beside its sketch, and leads the drawing.",
    stages=(
        Stage(name="ask", side=Side.UE, makes="prompt", run=ask),
        Stage(name="sense", side=Side.UE, makes="image", run=sense),
        Stage(name="sketch", side=Side.UE, inputs=("sense",), makes="sketch", run=sketch),
        Stage(name="redraw", side=Side.ES, inputs=("sketch", "ask"), makes="seed", run=redraw),
        Stage(name="decode", side=Side.ES, inputs=("redraw",), makes="image", run=decode),
    ),
)

UE_TO_ES_SKETCH = Mechanism(
    name="ue_to_es_sketch",
    about="U2E by sketch: a picture that the UE senses goes to the ES as its sketch, and is drawn again from that alone.",
    stages=(
        Stage(name="sense", side=Side.UE, makes="image", run=sense),
        Stage(name="sketch", side=Side.UE, inputs=("sense",), makes="sketch", run=sketch),
        Stage(name="redraw", side=Side.ES, inputs=("sketch",), makes="seed", run=redraw),
        Stage(name="decode", side=Side.ES, inputs=("redraw",), makes="image", run=decode),
    ),
)

TEXT = Mechanism(
    name="text",
    about="Text generation (centralized, as a text takes few bits): the prompt goes up, the ES writes, the text comes down.",
    stages=(
        Stage(name="ask", side=Side.UE, makes="prompt", run=ask),
        Stage(name="write", side=Side.ES, inputs=("ask",), makes="text", run=write),
        Stage(name="show", side=Side.UE, inputs=("write",), makes="text", run=show),
    ),
)

DESCRIBE_PICTURE = Mechanism(
    name="describe",
    about="U2E and a text: a picture that the UE senses goes up as its seed, the ES decodes it and writes what it shows, the text comes down.",
    stages=(
        Stage(name="sense", side=Side.UE, makes="image", run=sense),
        Stage(name="encode", side=Side.UE, inputs=("sense",), makes="seed", run=encode),
        Stage(name="decode", side=Side.ES, inputs=("encode",), makes="image", run=decode),
        Stage(name="write", side=Side.ES, inputs=("decode",), makes="text", run=describe),
        Stage(name="show", side=Side.UE, inputs=("write",), makes="text", run=show),
    ),
)

SEQUENTIAL = Mechanism(
    name="sequential",
    about="SEU (section II-C1): what the UE senses goes up, the ES edits it as the prompt says and keeps it, and the seed of that comes down.",
    stages=(
        Stage(name="ask", side=Side.UE, makes="prompt", run=ask),
        Stage(name="sense", side=Side.UE, makes="image", run=sense),
        Stage(name="observe", side=Side.UE, inputs=("sense",), makes="observation", run=observe),
        Stage(name="embed", side=Side.ES, inputs=("ask",), makes="prompt_embeds", run=embed),
        Stage(name="edit", side=Side.ES, inputs=("observe", "embed"), makes="seed", run=edit),
        Stage(name="replica", side=Side.ES, inputs=("edit",), makes="image", run=decode),
        Stage(name="decode", side=Side.UE, inputs=("edit",), makes="image", run=decode),
    ),
)

_BOTH = ("observe", "recall")
PARALLEL = Mechanism(
    name="parallel",
    about="PEU (section II-C1): UE and ES encode and send what they have at once; a copy of the gate on each fuses both, and both decode. The UE shows its own view until the ES's comes, and hears whether both copies hold the same.",
    stages=(
        Stage(name="sense", side=Side.UE, makes="image", run=sense),
        Stage(name="remember", side=Side.ES, makes="image", run=remember),
        Stage(name="observe", side=Side.UE, inputs=("sense",), makes="observation", run=observe),
        Stage(name="recall", side=Side.ES, inputs=("remember",), makes="observation", run=observe),
        Stage(
            name="gate_es", side=Side.ES, inputs=_BOTH, optional=("observe",), as_sent=("recall",),
            makes="seed", run=fuse,
        ),
        Stage(
            name="gate", side=Side.UE, inputs=_BOTH, optional=("recall",), as_sent=("observe",),
            makes="seed", run=fuse,
        ),
        Stage(name="vouch", side=Side.ES, inputs=("gate_es",), makes="state", run=vouch),
        Stage(name="first", side=Side.UE, inputs=("observe",), makes="image", run=decode),
        Stage(name="replica", side=Side.ES, inputs=("gate_es",), makes="image", run=decode),
        Stage(
            name="agree", side=Side.UE, inputs=("gate", "vouch"), optional=("vouch",),
            makes="agreement", run=agree,
        ),
        Stage(name="decode", side=Side.UE, inputs=("gate",), makes="image", run=decode),
    ),
)  # fmt: skip
