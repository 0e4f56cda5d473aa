"""Training meets what streaming will: the same attention, the same steps, the same noise."""

from __future__ import annotations

import json
import random
import sys
from collections import defaultdict
from dataclasses import replace
from itertools import islice, pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel

from fkv.cache import KVCache
from fkv.kernels import rope_freqs_cis
from fkv.models.codec import TinyCodec
from fkv.models.words import WordEncoder
from fkv.policies import ChunkState, Full, evict
from fkv.training import clips as clips_module
from fkv.training import codec as codec_training
from fkv.training import curves, generator, pack
from fkv.training.attention import ChunkTextAttention, Context, TeacherForcedAttention
from fkv.training.clips import EMPHASIS, ClipStream, draw_cut, encoded, render_clips, render_memory_clips, script
from fkv.training.data import Clips
from fkv.training.generator import Training, flow_loss, optimizers, with_events
from fkv.training.history import FULL, History, draw_history
from fkv.training.muon import Muon, orthogonal
from fkv.training.precision import products_in
from fkv.training.rollout import DRIFT, FEW_SIGMAS, ROUNDS, SIGMAS, Draft, Pool
from fkv.training.validate import count, kinds_of
from fkv.transformer.causal import CausalTransformer
from fkv.transformer.coordinates import LEVELS, input_channels, with_coordinates
from fkv.world import WIDTH
from fkv.world.render import GENES
from fkv.world.story import STORY_GENES, Moment, Story
from fkv.world.tensors import genes_of

CHANNELS, WORDS = 16, 16


def transformer() -> WanTransformer3DModel:
    torch.manual_seed(0)
    return WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=input_channels(CHANNELS),
        out_channels=CHANNELS,
        text_dim=WORDS,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
    )


def clips(chunks: int = 2, judged: bool = True) -> Clips:
    torch.manual_seed(1)
    latents = torch.randn(1, 3 * chunks, CHANNELS, 4, 8)
    mask = torch.ones(3 * chunks, 1, 1, 1, dtype=torch.bool)
    mask[3:6] = judged
    return Clips(
        latents,
        torch.ones(1, 3 * chunks, 1, 4, 8),
        [["a red ball"] * chunks],
        torch.randn(1, 1, CHANNELS),
        [0, 1][:chunks],
        mask,
    )


@torch.inference_mode()
def test_a_chunk_in_training_sees_what_it_sees_in_a_stream():
    model, given = transformer().eval(), clips()
    text, noisy = torch.randn(1, 5, WORDS), torch.randn(1, 6, CHANNELS, 4, 8)
    streamed, rows, cols, tokens = CausalTransformer(model), 2, 4, 8
    cache = KVCache(streamed.geometry(4, 8, 3, 1), streamed.geometry(4, 8, 3, 1).every_head, 1)
    context = streamed.prepare_text(text)
    expected = []
    for chunk in range(2):
        frames, span = tuple(range(3 * chunk, 3 * chunk + 3)), slice(3 * chunk, 3 * chunk + 3)
        cache.begin(frames)
        table = streamed.rope(frames, rows, cols)
        expected.append(streamed(noisy[:, span], 500.0, context, cache, table))
        streamed(given.latents[:, span], 0.0, context, cache, table)
        evict(Full(), ChunkState(chunk, frames, cache))

    model = transformer().eval()
    every = [torch.arange(0), torch.arange(3 * tokens)]
    for layer, block in enumerate(model.blocks):
        block.attn1.set_processor(TeacherForcedAttention(layer))
        block.attn2.set_processor(ChunkTextAttention(2))
        block.attn1.processor.context = Context(
            rope_freqs_cis(range(6), rows, cols, 12), 2, 2, 3 * tokens, every, every, [False, False]
        )
    hidden = with_coordinates(torch.cat([given.latents, noisy]).transpose(1, 2), 3, opening=True)
    flow = model(hidden, torch.tensor([0.0, 500.0]), text.expand(2, -1, -1), return_dict=False)[0][1:].transpose(1, 2)
    torch.testing.assert_close(flow, torch.cat(expected, 1), atol=1e-5, rtol=1e-4)


def test_genes_are_uniform():
    torch.manual_seed(0)
    drawn = torch.tensor([genes_of(corner) for corner in torch.randn(2000, CHANNELS)])
    assert drawn.shape == (2000, GENES) and 0 <= drawn.min() and drawn.max() < 1
    assert (drawn.mean(0) - 0.5).abs().max() < 0.03 and (drawn.var(0) - 1 / 12).abs().max() < 0.01


def test_draft_goes_through_the_sampler_and_becomes_history():
    given = clips(judged=False)
    draft, made = Draft.of(given), torch.zeros_like(given.latents)
    assert torch.equal(draft.noisy()[:, 0, :, 0, 0], given.corners[:, 0])
    for sigma in SIGMAS:
        assert draft.sigma == sigma and torch.equal(draft.history, given.latents)
        draft.advance(made)
    assert draft.sigma == SIGMAS[0] and draft.guess is None and draft.rounds == 1
    assert not draft.history[:, :3].any() and torch.equal(draft.history[:, 3:], given.latents[:, 3:])


def test_a_history_of_the_memory_world_keeps_small_errors_alone():
    given = replace(clips(), history=draw_history(random.Random(0), [0, 1]))
    draft = Draft.of(given)
    errors = torch.linspace(-1, 1, given.latents.numel()).view_as(given.latents)
    for _ in SIGMAS:
        draft.advance(given.latents + errors)
    torch.testing.assert_close(draft.history - given.latents, errors.clamp(-DRIFT, DRIFT))


def test_two_steps_learn_what_four_made_of_the_same_noise():
    given = clips()
    draft = Draft.of(given)
    noise = draft.noisy()
    pupils = [draft.advance(torch.full_like(given.latents, step)) for step in range(4)]
    assert pupils[:3] == [None] * 3
    pupil = pupils[3]
    assert torch.equal(pupil.noisy(), noise) and (pupil.target == 3).all() and pupil.history is given.latents
    assert not torch.equal(draft.noisy(), noise) and draft.target is given.latents
    levels = []
    for _ in FEW_SIGMAS:
        levels.append(pupil.sigma)
        assert pupil.advance(pupil.target) is None
    assert levels == [1.0, 0.5] and pupil.rounds == ROUNDS


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_pool_holds_as_many_pupils_as_are_asked_for(share):
    pool = Pool(4, clips, random.Random(0), share)
    taught = 0
    for _ in range(200):
        draft = pool.draw()
        taught += draft.sigmas == FEW_SIGMAS
        pool.give_back(draft, draft.advance(torch.zeros_like(draft.clips.latents)))
    assert taught == 0 if share == 0 else taught > 5


def test_pool_keeps_drafts_until_their_rounds_are_over():
    pool = Pool(2, clips, random.Random(0))
    seen = []
    for _ in range(200):
        draft = pool.draw()
        pupil = draft.advance(torch.zeros_like(draft.clips.latents))
        pool.give_back(draft, pupil)
        seen.append(draft)
        assert len(pool.drafts) <= 2
    assert max(draft.rounds for draft in seen) == ROUNDS and sum(draft.rounds == ROUNDS for draft in seen) > 2


def test_loss_falls_on_one_batch():
    model, words, rng = transformer().train(), WordEncoder(dim=WORDS).train(), random.Random(0)
    for layer, block in enumerate(model.blocks):
        block.attn1.set_processor(TeacherForcedAttention(layer))
        block.attn2.set_processor(ChunkTextAttention(2))
    steps, losses = optimizers(model, words, 3e-3), []
    for _ in range(25):
        given = clips()
        loss, errors, x0 = flow_loss(model, words, Draft.of(given), rng, noisy=2)
        loss.backward()
        for optimizer in steps:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(errors["own 1.0"])
    assert x0.shape == given.latents.shape and losses[-1] < 0.8 * losses[0]


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="PyTorch has Muon from 2.9 on")
def test_muon_takes_the_steps_of_pytorchs():
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in ((8, 8), (24, 8), (8, 8), (8, 24))]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    steps = Muon(ours, lr=0.1), torch.optim.Muon(theirs, lr=0.1, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape)
            b.grad = a.grad.clone()
        ours[2].grad = theirs[2].grad = None
        for step in steps:
            step.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=5e-3, rtol=0)  # theirs multiplies in bfloat16; a step moves 0.06 or more


@pytest.mark.parametrize("native", [False, True])
def test_training_multiplies_bfloat16_only_where_the_cpu_does(monkeypatch, native):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": native})
    for precision, bfloat16 in ((None, native), ("bf16", True), ("fp32", False)):
        with products_in(precision, "cpu"):
            assert (torch.ones(1, 1) @ torch.ones(1, 1)).dtype == (torch.bfloat16 if bfloat16 else torch.float32)
    assert orthogonal(torch.randn(1, 4, 2)).dtype == (torch.bfloat16 if native else torch.float32)


@pytest.mark.parametrize("chunks", [1, 3])
def test_clips_of_the_world_fit_together(chunks):
    made = encoded(TinyCodec(width=8, depth=1), render_clips(random.Random(3), 16, 2, chunks), "cpu")
    assert made.latents.shape == (2, 3 * chunks, 16, 12, 20) and made.weight.shape == (2, 3 * chunks, 1, 12, 20)
    assert [len(each) for each in made.prompts] == [chunks] * 2 and len(made.chunks) == chunks
    assert made.weight.min() == 1 and made.weight.max() == 1 + EMPHASIS and made.judged[:3].all()


@pytest.mark.parametrize("chunks", [1, 8])
def test_memory_clips_fit_together(chunks):
    for seed in range(3):
        made = encoded(TinyCodec(width=8, depth=1), render_memory_clips(random.Random(seed), 16, 2, chunks), "cpu")
        assert made.latents.shape == (2, 3 * chunks, 16, 12, 20) and made.corners.shape == (2, chunks, 16)
        assert [len(each) for each in made.prompts] == [chunks] * 2 and len(made.chunks) == chunks
        assert torch.equal(made.noise()[:, ::3, :, 0, 0], made.corners) and made.judged[:3].all()
        assert made.history.chunks == tuple(made.chunks)


def test_every_process_renders_clips_of_its_own(monkeypatch):
    stream = ClipStream(render_clips, 16, 2, 2, openings=0.5, seed=3)

    def batches(process: int | None) -> list:
        monkeypatch.setattr(clips_module, "get_worker_info", lambda: process and SimpleNamespace(id=process))
        return list(islice(stream, 4))

    alone, again, other = batches(None), batches(None), batches(1)
    assert {tuple(batch.video.shape[:2]) for batch in alone} == {(2, 24), (4, 12)}
    assert [batch.prompts for batch in alone] == [batch.prompts for batch in again]
    assert torch.equal(alone[0].video, again[0].video) and torch.equal(alone[0].corners, again[0].corners)
    assert not {batch.prompts[0][0] for batch in alone} & {batch.prompts[0][0] for batch in other}


def test_cuts_hold_what_left_and_returned():
    drawn = [draw_cut(random.Random(seed), 8) for seed in range(80)]
    assert all(len(cut.chunks) == 8 and cut.chunks[:2] == (0, 1) for cut in drawn)
    watched = [cut for cut in drawn if cut.watched]
    assert 20 < len(watched) < 45 and all({*cut.cameras[2:]} == {"ahead"} and all(cut.present) for cut in watched)
    assert {cut.cameras[0] for cut in watched} == {"left", "ahead", "right"}
    motions = {shot.subject.motion for seed in range(20) for shot in script(random.Random(seed), watched[0])}
    assert motions == {"hiding", "roaming"}
    cuts = [cut for cut in drawn if not cut.watched]
    assert 10 < sum(cut.chunks[2] > 2 for cut in cuts) < 40

    def returns(shown: list) -> bool:
        return any(now != before and now in shown[:i] for i, (before, now) in enumerate(pairwise(shown)))

    panels = sum(returns([cut.cameras[chunk] for chunk in cut.chunks]) for cut in cuts)
    things = sum(returns([cut.present[chunk] for chunk in cut.chunks]) for cut in cuts)
    assert panels > 15 and things > 15


def in_sight(moment: Moment) -> bool:
    thing = moment.things[0]
    return thing.x < WIDTH and (moment.wall is None or abs(thing.x - moment.wall) > 12)


def test_a_thing_that_leaves_by_itself_comes_back_in_most_clips():
    drawn = [draw_cut(random.Random(seed), 8) for seed in range(60)]
    returning = [cut for cut in drawn if cut.returns is not None]
    assert len(returning) > 10 and sum(cut.watched for cut in drawn) > len(returning)
    for cut in returning:
        rng, story = random.Random(0), Story()
        scenes = script(rng, cut)
        for chunk in range(cut.chunks[-1] + 1):
            story.extend(scenes[chunk], [cut.genes(rng, chunk)[0], *[0.9] * (STORY_GENES - 1)])
        seen = [in_sight(told.moments[-1]) for told in story.chunks]
        assert seen[1] and not seen[cut.returns - 1]
        assert any(seen[chunk] for chunk in cut.chunks if chunk > cut.returns)
    assert all(draw_cut(random.Random(seed), 4).chunks[2] >= 2 for seed in range(60))


def test_histories_see_what_cache_policies_keep():
    chunks = (0, 4, 5, 20, 21)
    full, window, hybrid = (History(kind, chunks) for kind in ("full", "window", "hybrid"))
    assert full.frames(4) == list(range(12)) and window.frames(4) == [0, 9, 10, 11] and hybrid.frames(4) == [0, 11]
    assert window.frames(3) == [0] and window.frames(2) == [0, 3, 4, 5] and not full.frames(0)
    assert {frame for frame, _ in hybrid.segments(4, random.Random(0))} <= {9, 10}
    seen = frozenset((4, 5, 12))
    assert full.remembered(20, seen) == {4, 5} and not window.remembered(20, seen)
    assert window.remembered(13, seen) == seen  # a chunk outside the clip
    assert draw_history(random.Random(0), chunks, FULL) == History("full", chunks, local_prior=False)


def test_an_extended_model_generates_the_same_until_it_is_trained():
    model, words = transformer().eval(), WordEncoder(dim=WORDS).eval()
    larger, longer = with_events(model, words)
    latents = torch.randn(1, CHANNELS, 6, 4, 8)
    time_steps = torch.tensor([500.0])

    def flow(net, encoder, events):
        hidden = with_coordinates(latents, 3, True, events)
        return net.eval()(hidden, time_steps, encoder.eval()(["a red ball"]), return_dict=False)[0]

    old = flow(model, words, False)
    new = flow(larger, longer, True)
    torch.testing.assert_close(old, new, atol=1e-6, rtol=1e-5)
    assert longer.tokens(["nothing from before"]).count_nonzero() == 3
    assert with_events(larger, longer) == (larger, longer) and CausalTransformer(larger).events


def test_later_chunks_see_their_first_pixel():
    latents = torch.randn(1, 2, 6, 4, 8)
    planes = with_coordinates(latents, 3, True, events=True)[0, 8:]
    assert not planes[:2, :3].any() and torch.equal(planes[:2, 3:], latents[0, :, 3:4, :1, :1].expand(-1, 3, 4, 8))
    single = with_coordinates(latents[:, :, 3:], 3, False, events=True)[0, 8:]
    assert torch.equal(single, planes[:, 3:])


def test_every_chunk_sees_which_levels_its_first_pixel_exceeds():
    latents = torch.zeros(1, 2, 6, 4, 8)
    latents[0, :, 0, 0, 0] = torch.tensor([-9.0, 0.01])
    latents[0, :, 3, 0, 0] = torch.tensor([9.0, -0.01])
    levels = with_coordinates(latents, 3, True, events=True)[0, 10:].unflatten(0, (2, len(LEVELS)))
    for channel, frame, above in ((0, 2, 0), (1, 0, 6), (0, 3, 11), (1, 5, 5)):  # 5 of the 11 levels are below a half
        assert torch.equal(levels[channel, :, frame].amin((1, 2)), levels[channel, :, frame].amax((1, 2)))
        assert (levels[channel, :, frame, 0, 0] > 0).sum() == above
    assert genes_of(latents[0, :, 0, 0, 0], 2)[1] > 0.5 == LEVELS[5]


def test_every_step_of_a_model_with_events_sees_the_pixels_that_its_chunks_began_with(monkeypatch):
    seen = []
    wrapped = with_coordinates

    def seeing(latents, *args, **settings):
        seen.append(latents)
        return wrapped(latents, *args, **settings)

    monkeypatch.setattr("fkv.training.generator.with_coordinates", seeing)
    given = clips()
    draft = Draft.of(given)
    models = with_events(transformer(), WordEncoder(dim=WORDS))
    training = Training(*models, 1e-3)
    training.prepare(len(given.chunks))
    for _ in range(2):
        draft.advance(flow_loss(*models, draft, random.Random(0), 2)[2])
    first, second = (latents.unflatten(0, (3, -1))[1].transpose(1, 2) for latents in seen)
    assert torch.equal(second[:, ::3, :, 0, 0], draft.start[:, ::3, :, 0, 0])
    assert torch.equal(first, draft.start) and not torch.equal(second[..., 1:], draft.start[..., 1:])


def test_a_run_resumes_where_it_stopped(tmp_path):
    model, words = with_events(transformer(), WordEncoder(dim=WORDS))
    first = Training(model.train(), words.train(), 1e-3)
    first.prepare(2)
    given = clips()
    loss, errors, _ = flow_loss(first.transformer, first.words, Draft.of(given), random.Random(0), 2)
    first.update(loss, errors)
    first.minutes = 3.5
    first.save(tmp_path)
    second = Training(*with_events(transformer(), WordEncoder(dim=WORDS)), 1e-3)
    second.resume(tmp_path / "state.pt", "cpu")
    assert (second.step, second.minutes) == (1, 3.5)
    for a, b in zip(first.modules, second.modules, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert (tmp_path / "model" / "transformer" / "config.json").exists()


def test_curves_of_a_run_with_few_steps_are_drawn(tmp_path):
    (tmp_path / "codec.jsonl").write_text('{"step": 1, "psnr": 20}\n{"step": 2, "psnr": 21}\n')
    names = ("1.0", "0.5", "own 0.5", "two steps 1.0", "two steps 0.5")
    rows = [{"step": step, "minutes": step, "loss": 1.0} | dict.fromkeys(names, 1 / step) for step in (1, 2)]
    (tmp_path / "generator.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    curves.draw(tmp_path / "codec.jsonl", [tmp_path / "generator.jsonl"], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size


def test_histories_are_for_the_memory_world(monkeypatch, capsys):
    command = ["generator", "--codec", "c", "--out", "o", "--history", "full"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit):
        generator.parse_arguments()
    assert "--history goes with --stage memory" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [*command, "--stage", "memory"])
    assert generator.parse_arguments().history == "full"


def test_packed_weights_are_those_of_the_run(tmp_path, capsys):
    model, words = transformer(), WordEncoder(dim=WORDS)
    model.save_pretrained(tmp_path / "model" / "transformer")
    words.save_pretrained(tmp_path / "model" / "text_encoder")
    folders = [str(tmp_path / name) for name in ("model", "packed", "start")]
    pack.main(["--model", folders[0], "--out", folders[1]])
    pack.main(["--unpack", "--model", folders[1], "--out", folders[2]])
    again = WanTransformer3DModel.from_pretrained(tmp_path / "start" / "transformer")
    kept = WordEncoder.from_pretrained(tmp_path / "start" / "text_encoder")
    for one, other in ((model, again), (words, kept)):
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            step = a.abs().flatten(1).amax(1).max() / 127 if a.ndim > 1 else 1e-3 * a.abs().max()
            assert (a - b).abs().max() <= 0.51 * step + 1e-6
    for options, sentence in (
        (["--model", folders[1]], "are already packed"),
        (["--unpack", "--model", folders[0]], "are not packed"),
        (["--model", str(tmp_path)], "name a folder with transformer/ and text_encoder/"),
    ):
        with pytest.raises(SystemExit):
            pack.main([*options, "--out", str(tmp_path / "none")])
        assert sentence in capsys.readouterr().err


def test_loss_falls_on_a_clip_of_the_memory_world():
    training = Training(*(module.train() for module in with_events(transformer(), WordEncoder(dim=WORDS))), lr=3e-3)
    training.prepare(8)
    rng = random.Random(0)
    torch.manual_seed(0)
    given = encoded(TinyCodec(width=8, depth=1), render_memory_clips(rng, 16, 1, 8), "cpu")
    latents = given.latents[..., :4, :8]
    given = replace(given, latents=(latents - latents.mean()) / latents.std(), weight=given.weight[..., :4, :8])
    losses = []
    for _ in range(15):
        training.step = 100  # past the warm-up
        training.set_rate(1.0)
        loss, errors, _ = flow_loss(training.transformer, training.words, Draft.of(given), rng, noisy=2)
        training.update(loss, errors)
        losses.append(errors["own 1.0"])
    assert losses[-1] < 0.8 * losses[0]


def test_the_codec_trains_on_both_worlds():
    video, mask = codec_training.batch(random.Random(0), 6, 12, (64, 96), memory=1.0)
    assert video.shape == (6, 12, 3, 64, 96) and mask.shape == (6, 12, 1, 64, 96)
    assert 0 < mask.mean() < 0.4 and set(mask.unique().tolist()) == {0.0, 1.0}
    turns = [codec_training.memory_clip(random.Random(seed), 12)[0] for seed in range(8)]
    moved = [float((clip[1:] - clip[:-1]).abs().mean()) for clip in turns]
    assert max(moved) > 2 * min(moved)  # some clips show a turn of the camera


def test_a_codec_that_is_normalised_again_decodes_the_same_from_unit_latents():
    torch.manual_seed(0)
    codec = TinyCodec(width=8, depth=1, latents_mean=[0.3] * 16, latents_std=[0.05] * 16).eval()
    again = codec_training.normalise(codec, random.Random(0), memory=1.0).eval()
    video, _ = codec_training.batch(random.Random(0), 96, 4, None, memory=1.0)
    with torch.inference_mode():
        latents = again.encode(video)
        torch.testing.assert_close(latents.mean((0, 1, 3, 4)), torch.zeros(16), atol=1e-3, rtol=0)
        torch.testing.assert_close(latents.std((0, 1, 3, 4)), torch.ones(16), atol=1e-2, rtol=0)
        few = video[:2]
        torch.testing.assert_close(
            again.decode(again.encode(few))[0], codec.decode(codec.encode(few))[0], atol=1e-4, rtol=0
        )


def test_validation_counts_items_by_what_a_chunk_must_do():
    rendered = render_memory_clips(random.Random(2), 16, 1, 8, FULL, 1.0)
    given = encoded(TinyCodec(width=8, depth=1), rendered, "cpu")
    kinds = kinds_of(given)
    assert kinds[0] == "open" and {"stay", "reveal", "return"} <= set(kinds)
    true = rendered.video[0].numpy()
    right, wrong = ({kind: defaultdict(list) for kind in kinds if kind} for _ in range(2))
    count(given, true, true, right)
    count(given, np.zeros_like(true), true, wrong)
    for kind in right:
        assert all(all(found) for found in right[kind].values())
        assert not any(any(found) for item, found in wrong[kind].items() if item != "lit")
    assert sum(len(right[kind]["lit"]) for kind in right) == sum(1 for kind in kinds if kind)
