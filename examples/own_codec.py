"""Plug in a codec of your own: here, a seed that keeps only the signs of its elements.

python examples/own_codec.py
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from megdt.codecs.prompt import TextCodec
from megdt.link.energy import load_profile
from megdt.link.radio import RadioLink
from megdt.mechanisms.simulate import simulate
from megdt.mechanisms.single_user import ES_TO_UE
from megdt.models import FACTOR, LATENT_CHANNELS
from megdt.models.bundle import Bundle
from megdt.models.quality import psnr_db
from megdt.records import Delivery, Feature, Packet, Request, Side


@dataclass(frozen=True, kw_only=True)
class SignCodec:
    """One bit an element; a Gaussian's mean magnitude stands for what is lost."""

    shape: tuple[int, int, int]

    def encode(self, feature: Feature) -> Packet:
        return Packet(payload=np.packbits(feature.values > 0).tobytes())

    def decode(self, delivery: Delivery) -> Feature:
        count = int(np.prod(self.shape))
        bits = np.unpackbits(np.frombuffer(delivery.payload, np.uint8), count=count)
        signs = bits.astype(np.float32) * 2 - 1
        return Feature(kind="seed", values=signs.reshape(self.shape) * np.float32(0.8))


def main() -> None:
    request = Request(prompt="a sea of purple tulips at dusk")
    side = request.size_px // FACTOR
    codecs = {"prompt": TextCodec(), "seed": SignCodec(shape=(LATENT_CHANNELS, side, side))}
    bundle, link = Bundle(), RadioLink(snr_db=0)
    links = {"prompt": link, "seed": link}
    devices = {Side.ES: load_profile("edge_gpu"), Side.UE: load_profile("phone")}
    result = simulate(ES_TO_UE, request, models=bundle, codecs=codecs, links=links, devices=devices)
    assert result.image is not None, result.outcome
    error_free = bundle.decode(result.features["denoise"].values[None])[0]
    seed = result.ledger.crossings[1]
    print(f"{seed.bits} bits, PSNR {psnr_db(result.image, error_free):.1f} dB")


if __name__ == "__main__":
    main()
