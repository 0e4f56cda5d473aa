"""Schedule, flow arithmetic and noise."""

import numpy as np
import pytest
import torch

from fkv.sampler import Schedule, SeededNoise, renoise, x0_of
from fkv.unipc import UniPC


def test_the_warped_schedule_has_the_official_timesteps():
    assert [1000 * s for s in Schedule.warped().sigmas] == pytest.approx([1000, 937.5, 833.3333, 625], abs=1e-3)


def test_even_levels():
    assert Schedule.even(4).sigmas == (1.0, 0.75, 0.5, 0.25)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8])
def test_unipc_is_that_of_diffusers(steps):
    """With flows that depend on the latents, so that every step's correction counts."""
    from diffusers import UniPCMultistepScheduler

    ours = Schedule.unipc(steps)
    theirs = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)
    theirs.set_timesteps(sigmas=np.array(ours.sigmas))
    assert ours.sigmas == pytest.approx(theirs.sigmas[:-1].tolist(), abs=1e-6)
    assert list(ours.timesteps) == theirs.timesteps.tolist()
    noise = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    x, y, solver = noise, noise, UniPC(ours.sigmas)
    for step, (sigma, timestep) in enumerate(zip(ours.sigmas, theirs.timesteps, strict=True)):
        torch.testing.assert_close(x, y)
        flow = torch.sin(3 * x) + sigma
        x0 = x0_of(x, flow, sigma)
        y = theirs.step(torch.sin(3 * y) + sigma, timestep, y, return_dict=False)[0]
        x = solver.step(x, x0) if step + 1 < steps else x0
    torch.testing.assert_close(x, y)


def test_fewer_steps_keep_the_solver():
    assert Schedule.unipc(4).with_steps(2) == Schedule.unipc(2)


@pytest.mark.parametrize("sigmas", [(), (0.5, 0.5), (0.2, 0.8), (1.5, 1.0), (1.0, 0.0), (float("nan"),)])
def test_impossible_levels_are_refused(sigmas):
    with pytest.raises(ValueError, match="noise levels must fall"):
        Schedule(sigmas)


def test_a_perfect_flow_gives_back_the_clean_latents():
    clean, noise = torch.randn(2, 5), torch.randn(2, 5)
    assert torch.allclose(x0_of(renoise(clean, noise, 0.7), noise - clean, 0.7), clean, atol=1e-6)


def test_noise_depends_on_seed_chunk_and_step_alone():
    a, b = SeededNoise(3), SeededNoise(3)
    b.initial(9, (4, 4))
    assert torch.equal(a.initial(1, (4, 4)), b.initial(1, (4, 4)))
    draws = [
        a.initial(0, (8,)),
        a.initial(1, (8,)),
        a.between(0, 0, (8,)),
        a.between(0, 1, (8,)),
        SeededNoise(4).initial(0, (8,)),
    ]
    assert all(not torch.equal(x, y) for i, x in enumerate(draws) for y in draws[:i])


def test_fewer_steps_take_levels_that_the_model_knows():
    four = Schedule.warped()
    assert [four.with_steps(count).sigmas for count in (1, 2, 4)] == [four.sigmas[:1], four.sigmas[::2], four.sigmas]
    assert four.with_steps(3).sigmas == four.sigmas[:3] and Schedule.even(4).with_steps(2) == Schedule.even(2)
    for count in (0, 5, True):
        with pytest.raises(ValueError, match="whole number from 1 to 4"):
            four.with_steps(count)
