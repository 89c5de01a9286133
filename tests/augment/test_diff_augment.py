"""The module DiffAugment: what it draws, counts and stores, alone, on ranks, compiled and captured."""

import itertools
import shutil
import subprocess
import sys

import pytest
import torch

import fastload.augment
from fastload.augment import DiffAugment
from fastload.errors import ConfigError
from fastload.ops.diff.diff_augment import diff_augment
from fastload.world import World


@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA")
    return torch.device(request.param)


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def random_images(n=4, channels=3, height=9, width=14, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, channels, height, width, generator=generator).to(device)


def equal(params, others):
    names = [name for name in vars(params) if name[0] != "_" and getattr(params, name) is not None]
    return all(torch.equal(getattr(params, name), getattr(others, name)) for name in names)


@pytest.mark.parametrize("policy", ["color,translation,cutout", "cutout,color", "translation", ""])
def test_forward_is_the_operator_with_the_next_draw(policy, device):
    images = random_images(device=device)
    module, other = (DiffAugment(policy, seed=3).to(device) for _ in range(2))
    for _ in range(2):
        params = other.draw(4, 9, 14)
        assert torch.equal(module(images), diff_augment(images, params, policy))
    assert (params.shift is None) == ("translation" not in policy)
    assert module.calls.tolist() == [2] and module.ticket.tolist() == [0]
    assert torch.equal(other.apply_params(images, params), diff_augment(images, params, policy))
    assert other.calls.tolist() == [2]


def test_a_resumed_training_run_draws_what_it_would_have_drawn(device):
    module = DiffAugment(seed=1).to(device)
    for _ in range(3):
        module.draw(5, 16, 16)
    state = {name: one.clone() for name, one in module.state_dict().items()}
    assert list(state) == ["calls"] and state["calls"].tolist() == [3]
    rest = [module.draw(5, 16, 16) for _ in range(2)]
    resumed = DiffAugment(seed=1).to(device)
    resumed.load_state_dict(state)
    for expected in rest:
        assert equal(resumed.draw(5, 16, 16), expected)
    assert not equal(rest[0], rest[1])


def test_another_seed_draws_other_numbers():
    draws = [DiffAugment(seed=seed).draw(64, 32, 32) for seed in (0, 1, 2**64 - 1)]
    for one, other in itertools.pairwise(draws):
        assert (one.brightness != other.brightness).all()


def test_the_rows_of_two_ranks_are_those_of_one_alone(device):
    whole = DiffAugment(seed=2, rank=0).to(device).draw(10, 32, 32)
    for rank in range(2):
        part = DiffAugment(seed=2, rank=rank).to(device).draw(5, 32, 32)
        for name in ("brightness", "saturation", "contrast", "shift", "cut_offset"):
            assert torch.equal(getattr(part, name), getattr(whole, name)[rank * 5 : rank * 5 + 5])


def test_the_rank_is_found_at_the_first_draw_and_kept(monkeypatch):
    module = DiffAugment()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    first = module.draw(3, 8, 8)
    assert module._found_rank == 1 and equal(first, DiffAugment(rank=1).draw(3, 8, 8))
    monkeypatch.setenv("RANK", "0")
    module.draw(3, 8, 8)
    assert module._found_rank == 1
    given = DiffAugment(rank=0)
    monkeypatch.setattr(World, "current", lambda: pytest.fail("the environment was read"))
    given.draw(3, 8, 8)


def test_gradients_reach_the_images_and_not_the_counter():
    images = random_images().requires_grad_()
    module = DiffAugment(seed=4)
    result = module(images)
    (gradient,) = torch.autograd.grad(result.square().sum(), images, create_graph=True)
    gradient.square().sum().backward()  # R1's way
    assert images.grad.abs().sum() > 0
    assert not any(one.requires_grad for one in module.buffers()) and not list(module.parameters())


def compiled(module, backend):
    torch._dynamo.reset()
    return torch.compile(module, backend=backend, fullgraph=True)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_as_one_graph_it_draws_and_counts_as_it_does_alone(backend, device, monkeypatch):
    if (
        backend == "inductor"
        and device.type == "cpu"
        and not (shutil.which("g++") or shutil.which("clang++"))
    ):
        pytest.skip("no C++ compiler for inductor")
    alone, module = (DiffAugment(seed=5).to(device) for _ in range(2))
    step = compiled(module, backend)
    for number in range(3):
        images, others = (random_images(device=device).requires_grad_() for _ in range(2))
        with torch.compiler.set_stance("fail_on_recompile" if number else "default"):
            result = step(images)
        expected = alone(others)
        result.square().sum().backward()
        expected.square().sum().backward()
        # inductor adds the mean up in another order.
        torch.testing.assert_close(result, expected, rtol=0, atol=2e-6 * 8)
        torch.testing.assert_close(images.grad, others.grad, rtol=0, atol=2e-6 * 32)
        assert module.calls.tolist() == alone.calls.tolist() == [number + 1]
        # From the second call on: neither does it read the environment, nor compile once more.
        monkeypatch.setattr(World, "current", lambda: pytest.fail("the environment was read"))


@pytest.mark.parametrize("policy", ["cutout,translation,color", "translation", "color"])
def test_every_stage_compiles_as_one_graph(policy):
    step, images = compiled(DiffAugment(policy, seed=6), "aot_eager"), random_images()
    assert torch.equal(step(images), DiffAugment(policy, seed=6)(images))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA: nothing is captured")
def test_a_captured_call_draws_anew_in_each_replay():
    module, other = (DiffAugment(seed=7, rank=0).cuda() for _ in range(2))
    images = random_images(n=70, device="cuda")
    module(images), other(images)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = module(images)
    for _ in range(3):
        graph.replay()
        assert torch.equal(result, other(images))


def test_an_invalid_policy_seed_rank_or_twin_is_refused():
    for arguments, message in [
        ({"policy": "colour"}, "policy='colour'"),
        ({"seed": -1}, "seed must be .* got -1"),
        ({"rank": -1}, "rank=-1"),
        ({"rank": True}, "rank=True"),
        ({"impl": "native"}, "impl='native'"),
    ]:
        with pytest.raises(ConfigError, match=message):
            DiffAugment(**arguments)
    assert "seed=0" in repr(DiffAugment())


def test_importing_the_room_and_listing_its_names_loads_no_torch():
    script = "import fastload.augment as room, sys; print('DiffAugment' in dir(room), 'torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["True", "False"]


def test_a_name_that_the_room_does_not_have_is_missing():
    with pytest.raises(AttributeError, match="no attribute 'NoSuch'"):
        fastload.augment.NoSuch  # noqa: B018
