"""The text encoder: a prompt to one embedding.

Words enter as the sum of their hashed character n-grams, so that plurals, compounds and typing
errors stay close to the word they come from and no word is out of vocabulary. A small transformer
reads them in order, since order says which colour belongs to which flower.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

EMBEDDING = 192
MAX_WORDS = 40
_BUCKETS = 6144
_WORD = re.compile(r"[a-z]+|[0-9]+|[.,;]")


def split_words(prompt: str, *, limit: int | None = MAX_WORDS) -> list[str]:
    """Lower-case words, numbers and commas of a prompt, at most `limit` of them.

    >>> split_words("Snow-white lilies, 2 of them")
    ['snow', 'white', 'lilies', ',', '2', 'of', 'them']
    """
    return _WORD.findall(prompt.lower())[:limit]


@lru_cache(maxsize=20_000)
def _grams(word: str) -> tuple[int, ...]:
    marked = f"<{word}>"
    grams = {marked[i : i + n] for n in (3, 4) for i in range(len(marked) - n + 1)} | {marked}
    return tuple(sorted(1 + zlib.crc32(g.encode()) % (_BUCKETS - 1) for g in grams))


class TextEncoder(nn.Module):
    """Prompts to embeddings."""

    def __init__(self, *, width: int = 128, layers: int = 2) -> None:
        super().__init__()
        self.grams = nn.EmbeddingBag(_BUCKETS, width, mode="mean", padding_idx=0)
        self.position = nn.Parameter(torch.randn(MAX_WORDS + 1, width) * 0.02)
        self.summary = nn.Parameter(torch.randn(width) * 0.02)
        block = nn.TransformerEncoderLayer(
            width, 4, 3 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.project = nn.Linear(width, EMBEDDING)

    def forward(self, prompts: Sequence[str]) -> Float[Tensor, "batch embedding"]:
        """Embed a batch of prompts.

        Args:
            prompts: Free text; what exceeds MAX_WORDS words is not read.

        Returns:
            Embeddings, each element within [-1, 1]. [batch, EMBEDDING]
        """
        sentences = [split_words(prompt) for prompt in prompts]
        longest = max(1, *(len(words) for words in sentences))
        device = self.position.device
        flat = [
            _grams(word) if word else (0,) for words in sentences for word in _pad(words, longest)
        ]
        offsets = [0]
        for grams in flat[:-1]:
            offsets.append(offsets[-1] + len(grams))
        indices = torch.tensor([g for grams in flat for g in grams], device=device)
        words = self.grams(indices, torch.tensor(offsets, device=device))
        words = words.view(len(prompts), longest, -1)
        summary = self.summary.expand(len(prompts), 1, -1)
        x = torch.cat((summary, words), 1) + self.position[: longest + 1]
        empty = torch.ones(len(prompts), longest + 1, dtype=torch.bool, device=device)
        for row, sentence in enumerate(sentences):
            empty[row, : len(sentence) + 1] = False
        embedding: Tensor = torch.tanh(
            self.project(self.blocks(x, src_key_padding_mask=empty)[:, 0])
        )
        return embedding


def _pad(words: list[str], length: int) -> list[str]:
    return words + [""] * (length - len(words))
