"""The tiny model's codec: shapes, carried state, and what the shipped weights reconstruct."""

import random

import torch

from fkv.models.codec import TinyCodec
from fkv.models.frames import to_frames
from fkv.models.tiny import FOLDER
from fkv.world.captions import Scene, Thing
from fkv.world.render import PALETTE, render
from fkv.world.tensors import random_genes, to_pixels


def test_latents_are_4x_in_time_and_8x_in_space():
    codec = TinyCodec(latent_channels=5, width=8, depth=1)
    latents = codec.encode(torch.zeros(2, 8, 3, 16, 24))
    assert latents.shape == (2, 2, 5, 2, 3)
    video, state = codec.decode(latents)
    assert video.shape == (2, 8, 3, 16, 24) and torch.equal(state, latents[:, -1:])


def test_streamed_decoding_equals_whole_decoding():
    codec, latents = TinyCodec(latent_channels=4, width=8, depth=1).eval(), torch.randn(1, 7, 4, 3, 4)
    whole, _ = codec.decode(latents)
    parts, state = [], None
    for part in latents.split((1, 3, 2, 1), 1):
        video, state = codec.decode(part, state)
        parts.append(video)
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-5)


def test_pixels_and_frames_convert_both_ways():
    frames = torch.randint(0, 256, (3, 4, 5, 3), dtype=torch.uint8).numpy()
    assert (to_frames(to_pixels(frames)) == frames).all()


def test_the_shipped_codec_keeps_every_colour():
    codec = TinyCodec.from_pretrained(FOLDER / "codec").eval()
    genes = random_genes(random.Random(0))
    for name, colour in PALETTE.items():
        clip = to_pixels(render(Scene("hills", "day", (Thing(name, "box", "drifting"),)), range(8), genes))[None]
        with torch.inference_mode():
            decoded = codec.decode(codec.encode(clip))[0]
        assert -10 * torch.log10((decoded - clip).square().mean() / 4) > 26
        inside = (clip - torch.tensor(colour).view(3, 1, 1) / 127.5 + 1).abs().amax(2) < 0.02
        shown = decoded.movedim(2, -1)[inside].mean(0)
        distances = {other: (shown - (torch.tensor(rgb) / 127.5 - 1)).norm().item() for other, rgb in PALETTE.items()}
        assert min(distances, key=distances.get) == name
