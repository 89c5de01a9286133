"""AdaPipe and AugmentPipe as modules: what they do to images, their state, and torch.compile."""

import copy
import io
import itertools
import math
import pickle

import numpy as np
import pytest
import torch

from fastload.augment import AdaPipe, AugmentPipe
from fastload.augment.ada import PIPES
from fastload.errors import ConfigError
from fastload.ops import AdaParams, EdmParams, ada_augment, move_pixels
from tests.ops.ada.ada_cases import images
from tests.quick import slow_but

EDM = dict.fromkeys(("xflip", "yflip", "rotate_int", "translate_int", "scale", "rotate_frac", "aniso"), 1.0)
EDM |= dict.fromkeys(("translate_frac", "brightness", "contrast", "lumaflip", "hue", "saturation"), 1.0)


def picture(n=4, channels=3, height=24, width=32, dtype=torch.float32):
    return images(n, channels, height, width, dtype)


@pytest.mark.parametrize("name", PIPES)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_named_pipe_changes_images_and_is_differentiable(name, channels):
    x = picture(channels=channels).requires_grad_()
    out = AdaPipe.named(name, p=0.9, rank=0)(x)
    assert out.shape == x.shape and out.dtype == x.dtype and not torch.equal(out, x)
    out.square().sum().backward()
    assert torch.isfinite(x.grad).all() and (x.grad != 0).any()


def test_named_pipes_are_the_published_groups():
    assert AdaPipe.named("bgc", rank=0).settings == AdaPipe(
        xflip=1, rotate90=1, xint=1, scale=1, rotate=1, aniso=1, xfrac=1,
        brightness=1, contrast=1, lumaflip=1, hue=1, saturation=1,
    ).settings  # fmt: skip
    assert AdaPipe.named("bgcfnc", xint_max=0.25).settings["xint_max"] == 0.25
    with pytest.raises(ConfigError, match="bgcfnc"):
        AdaPipe.named("bcg")


def test_calling_is_drawing_and_applying():
    x, pipe = picture(), AdaPipe.named("bgcfnc", p=0.7, rank=0)
    twin = copy.deepcopy(pipe)
    params = twin.draw(*x.shape)
    assert torch.equal(pipe(x), twin.apply_params(x, params))
    assert torch.equal(twin.apply_params(x, params), twin.apply_params(x, params)), "draws can be replayed"


def test_drawn_parameters_can_be_looked_at_and_changed():
    x, pipe = picture(), AdaPipe.named("bgc", p=0.7, rank=0)
    params = pipe.draw(*x.shape)
    own = AdaParams(G_inv=params.G_inv.clone(), C=params.C.clone())
    assert torch.equal(pipe.apply_params(x, params), pipe.apply_params(x, own))
    params.C[:, :3, 3] += 1
    brighter = pipe.apply_params(x, params)
    torch.testing.assert_close(brighter, pipe.apply_params(x, own) + 1, rtol=0, atol=1e-6)


def test_p_of_0_changes_nothing_and_draws_all_the_same():
    x, pipe = picture(), AdaPipe.named("bgcfnc", p=0, rank=0)
    torch.testing.assert_close(pipe(x), x, rtol=0, atol=1e-5)
    assert pipe.calls.item() == 1


def test_p_is_a_buffer_that_may_be_changed_at_any_time():
    x, pipe = picture(64), AdaPipe(xflip=1, p=0.0, rank=0)
    assert "p" in pipe.state_dict() and torch.equal(pipe(x), x)
    pipe.p.fill_(1.0)
    assert not torch.equal(pipe(x), x)


@pytest.mark.parametrize("channels", [2, 5])
def test_geometry_filter_noise_and_cutout_take_any_channels(channels):
    pipe = AdaPipe(scale=1, rotate=1, imgfilter=1, noise=1, cutout=1, rank=0)
    assert pipe(picture(channels=channels)).shape == (4, channels, 24, 32)
    with pytest.raises(ConfigError, match="channels"):
        AdaPipe.named("color", rank=0)(picture(channels=channels))


def test_images_too_small_for_the_filter_are_refused_with_the_size_that_is_not():
    with pytest.raises(ConfigError, match="22"):
        AdaPipe.named("filter", rank=0)(picture(height=21))
    AdaPipe.named("bgc", rank=0)(picture(height=2, width=3))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: AdaPipe(scale=-1), "scale=-1"),
        (lambda: AdaPipe(xflip="yes"), "xflip='yes'"),
        (lambda: AdaPipe(noise_std=math.inf), "noise_std"),
        (lambda: AdaPipe(imgfilter_bands=(1, 1)), "four multipliers"),
        (lambda: AdaPipe(p=-0.1), "p=-0.1"),
        (lambda: AdaPipe(seed=-1), "seed"),
        (lambda: AdaPipe(rank=-1), "rank"),
        (lambda: AdaPipe.named("bgc", rank=0)(picture(), 1.5), "debug_percentile"),
        (lambda: AdaPipe.named("bgc", rank=0)(picture(), 0.0), "between 0 and 1"),
        (lambda: AdaPipe.named("bgc", rank=0)(picture(), "half"), "debug_percentile"),
        (lambda: AdaPipe(imgfilter_bands=1), "imgfilter_bands=1"),
        (lambda: AdaPipe(imgfilter_bands=(1, 1, -1, 1)), r"imgfilter_bands=\(1, 1, -1, 1\)"),
        (lambda: AdaPipe(impl="fast"), "impl='fast'"),
        (lambda: AugmentPipe(translate_int=1, translate_int_max=0), "translate_int_max=0"),
        (lambda: AugmentPipe(rank=0).apply_params(picture(), AdaParams()), "EdmParams"),
        (lambda: AdaPipe.named("bgc", rank=0)(picture().byte()), "floats"),
        (lambda: AugmentPipe(rotate_int=1, rank=0)(picture()), "square"),
        (lambda: AugmentPipe(translate_int_max=2), "translate_int_max"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_pipe_on_another_device_than_the_images_says_so():
    with pytest.raises(ConfigError, match=r"\.to\(images.device\)"):
        AdaPipe.named("bgc", rank=0)(torch.zeros(1, 3, 8, 8, device="meta"))


def test_a_resumed_pipe_draws_what_the_first_would_have_drawn():
    x, pipe = picture(), AdaPipe.named("bgcfnc", p=0.8, seed=3, rank=0)
    pipe(x)
    file = io.BytesIO()
    torch.save(pipe.state_dict(), file)
    expected = [pipe(x) for _ in range(2)]
    resumed = AdaPipe.named("bgcfnc", seed=3, rank=0)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert resumed.p.item() == pytest.approx(0.8)
    assert all(torch.equal(one, resumed(x)) for one in expected)
    assert set(resumed.state_dict()) == {"p", "calls"}


def test_ranks_draw_as_one_process_with_the_whole_batch():
    x = picture(6)
    whole = AdaPipe.named("bgcfnc", p=0.8, rank=0)(x)
    parts = [AdaPipe.named("bgcfnc", p=0.8, rank=rank)(x[2 * rank : 2 * rank + 2]) for rank in range(3)]
    assert torch.equal(torch.cat(parts), whole)


def test_the_rank_is_that_of_the_launcher(monkeypatch):
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    pipe = AdaPipe.named("bgc", p=0.8)
    assert torch.equal(
        pipe.draw(2, 3, 8, 8).G_inv, AdaPipe.named("bgc", p=0.8, rank=2).draw(2, 3, 8, 8).G_inv
    )


def test_copies_and_pickles_find_a_rank_of_their_own(monkeypatch):
    pipe = AdaPipe.named("bgc")
    pipe.draw(2, 3, 8, 8)
    pickled = pickle.dumps(pipe)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    expected = AdaPipe.named("bgc", rank=1)
    expected.draw(2, 3, 8, 8)
    expected = expected.draw(2, 3, 8, 8).G_inv
    for other in (pickle.loads(pickled), copy.deepcopy(pipe)):
        assert torch.equal(other.draw(2, 3, 8, 8).G_inv, expected)
    assert pipe.key(2)[1] == 0, "and the first keeps its own"


def test_loading_keeps_the_dtypes_and_finds_the_device():
    state = AdaPipe.named("bgc", p=0.4, rank=0).state_dict()
    state["p"] = state["p"].half()
    with torch.device("meta"):
        pipe = AdaPipe.named("bgc", rank=0)
    pipe.load_state_dict(state, assign=True)
    assert pipe.p.dtype == torch.float32 and pipe.ticket.device.type == "cpu" and pipe.ticket.item() == 0
    pipe.type(torch.float16)
    assert pipe.calls.dtype == torch.int64 and pipe.p.dtype == torch.float32


def test_forward_mode_is_refused_where_it_would_be_lost():
    pipe, x = AdaPipe.named("bgc", rank=0), picture(1, height=8, width=8)
    params = pipe.draw(1, 3, 8, 8)
    with pytest.raises(ConfigError, match="forward-mode"):
        torch.func.jvp(lambda image: pipe.apply_params(image, params), (x,), (x,))
    _, tangent = torch.func.jvp(lambda image: ada_augment(image, params, "reference"), (x,), (x,))
    assert (tangent != 0).any()


@pytest.mark.parametrize("cast", ["half", "bfloat16", "double"])
def test_p_stays_float32_whatever_a_network_around_it_becomes(cast):
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), AdaPipe.named("bgc", p=0.123, rank=0))
    getattr(network, cast)()
    assert network[0].weight.dtype != torch.float32
    assert network[1].p.dtype == torch.float32 and network[1].p.item() == np.float32(0.123)


def test_a_pipe_that_was_made_without_memory_is_as_new_after_loading():
    state = AdaPipe.named("bgc", p=0.4, rank=0).state_dict()
    with torch.device("meta"):
        pipe = AdaPipe.named("bgc", rank=0)
    pipe.to_empty(device="cpu")
    pipe.ticket.fill_(77)
    pipe.load_state_dict(state)
    assert pipe.ticket.item() == 0 and pipe.p.item() == np.float32(0.4)


def test_parameters_get_no_gradient():
    C = torch.eye(4)[None].clone().requires_grad_()
    for impl in ("reference", "native"):
        assert not ada_augment(picture(1), AdaParams(C=C), impl).requires_grad


def test_seeds_and_calls_change_the_draws():
    draws = [AdaPipe.named("bgc", seed=seed, rank=0).draw(8, 3, 16, 16).G_inv for seed in (0, 1, 2**64 - 1)]
    pipe = AdaPipe.named("bgc", seed=0, rank=0)
    draws += [pipe.draw(8, 3, 16, 16).G_inv for _ in range(3)][1:]
    assert all(not torch.equal(one, other) for n, one in enumerate(draws) for other in draws[:n])


def test_gradient_accumulation_and_the_regularizers_call_draw_anew():
    """Each call has draws of its own, and a later one does not touch the parameters of an earlier one."""
    pipe, x = AdaPipe.named("bgc", p=0.8, rank=0), picture().requires_grad_()
    first = pipe(x)
    kept = first.detach().clone()
    second = pipe(x)
    assert torch.equal(first, kept) and not torch.equal(first, second)
    (of_first,) = torch.autograd.grad(first.sum(), x, retain_graph=True)
    (of_second,) = torch.autograd.grad(second.sum(), x)
    assert not torch.equal(of_first, of_second)


def r1_gradients(discriminator, pipe, x):
    real = x.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(pipe(real)).sum(), real, create_graph=True)
    return torch.autograd.grad(gradient.square().sum(), list(discriminator.parameters())[:1])


@pytest.mark.parametrize("impl", ["reference", "native"])
def test_r1_through_the_pipe_trains_and_is_that_of_float64(impl):
    torch.manual_seed(0)
    D = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, 2), torch.nn.Softplus(), torch.nn.Flatten(), torch.nn.LazyLinear(1)
    )
    x = picture(2, height=12, width=12)
    D(x)
    (exact,) = r1_gradients(
        copy.deepcopy(D).double(), AdaPipe.named("bgc", p=0.8, rank=0, impl="reference"), x.double()
    )
    (found,) = r1_gradients(D, AdaPipe.named("bgc", p=0.8, rank=0, impl=impl), x)
    assert (found - exact).abs().max() < 1e-4 * exact.abs().max()
    with torch.autocast("cpu", torch.bfloat16):
        (cast,) = r1_gradients(D, AdaPipe.named("bgc", p=0.8, rank=0, impl=impl), x)
    assert torch.isfinite(cast).all() and (cast - exact).abs().max() < 0.1 * exact.abs().max()


COMPILED = list(itertools.product(["ada", "edm"], ["aot_eager", "inductor"]))


@pytest.mark.parametrize("kind, backend", slow_but([("ada", "inductor"), ("edm", "aot_eager")], COMPILED))
def test_compiled_as_one_graph_it_is_what_it_was(kind, backend):
    torch.compiler.reset()

    def make():
        return AdaPipe.named("bgcfnc", p=0.8, rank=0) if kind == "ada" else AugmentPipe(p=0.8, **EDM, rank=0)

    pipe, plain, found = make(), make(), []
    compiled = torch.compile(lambda x: pipe(x), fullgraph=True, backend=backend)
    for module in (compiled, plain):
        for _ in range(2):
            x = picture(height=32).requires_grad_()
            out = module(x)
            out = out if isinstance(out, tuple) else (out,)
            found.append([*out, *torch.autograd.grad(out[0].square().sum(), x)])
    assert pipe.calls.item() == plain.calls.item() == 2
    for one, other in zip(found[:2], found[2:], strict=True):
        for tensor, expected in zip(one, other, strict=True):
            torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-5)


def test_a_whole_r1_step_compiles_as_one_graph(monkeypatch):
    import torch._dynamo.config as config  # not above: it brings Triton along

    if not hasattr(config, "trace_autograd_ops"):
        pytest.skip("this torch does not compile autograd.grad")
    torch.compiler.reset()
    monkeypatch.setattr(config, "trace_autograd_ops", True)
    torch.manual_seed(0)
    D = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, 2), torch.nn.Softplus(), torch.nn.Flatten(), torch.nn.LazyLinear(1)
    )
    x, pipe = picture(2, height=12, width=12), AdaPipe.named("bgc", p=0.8, rank=0)
    D(x)
    (expected,) = r1_gradients(D, pipe, x)
    pipe.calls.zero_()
    (found,) = torch.compile(r1_gradients, fullgraph=True, backend="aot_eager")(D, pipe, x)
    torch.testing.assert_close(found, expected)


# The non-leaky pipe


def test_the_non_leaky_pipe_moves_then_warps_then_colours():
    x, pipe = picture(8, height=32), AugmentPipe(p=0.8, **EDM, rank=0)
    params = copy.deepcopy(pipe).draw(*x.shape)
    out, labels = pipe(x)
    moved = move_pixels(x, params.xflip, params.yflip, params.rotate_int, params.translate_int)
    expected = ada_augment(moved, AdaParams(G_inv=params.G_inv, C=params.C))
    assert torch.equal(out, expected) and torch.equal(labels, params.labels)
    assert torch.equal(pipe.apply_params(x, params), expected)


def test_exact_moves_alone_only_move_pixels():
    x, pipe = picture(16, height=32), AugmentPipe(xflip=1, yflip=1, rotate_int=1, translate_int=1, rank=0)
    out, labels = pipe(x)
    params = copy.deepcopy(pipe).draw(*x.shape)
    assert params.G_inv is None and params.C is None and labels.shape == (16, 6)
    assert not torch.equal(out, x)
    for image, source in zip(out, x, strict=True):
        assert set(image.flatten().tolist()) <= set(source.flatten().tolist())


def test_users_may_fill_the_parameters():
    x = picture(1, height=32)
    flipped = EdmParams(xflip=torch.ones(1, dtype=torch.int32))
    assert torch.equal(AugmentPipe(rank=0).apply_params(x, flipped), x.flip(3))
    assert EdmParams(C=torch.eye(4)[None], xflip=flipped.xflip).to(torch.float64).xflip.dtype == torch.int32


def test_a_pipe_without_multipliers_has_no_labels():
    out, labels = AugmentPipe(rank=0)(picture())
    assert torch.equal(out, picture()) and labels.shape == (4, 0)


def test_the_non_leaky_pipe_is_differentiable():
    x = picture(2, height=32).requires_grad_()
    out, _ = AugmentPipe(p=0.9, **EDM, rank=0)(x)
    out.sum().backward()
    assert (x.grad != 0).any()


def test_p_of_0_is_the_image_with_labels_of_0():
    x = picture(height=32)
    out, labels = AugmentPipe(p=0, **EDM, rank=0)(x)
    torch.testing.assert_close(out, x, rtol=0, atol=1e-6)
    assert labels.shape == (4, 19) and (labels == 0).all()


def test_what_a_pipe_does_is_in_its_repr():
    assert "scale=0.5" in repr(AdaPipe(scale=0.5)) and "xflip=1" in repr(AugmentPipe(xflip=1))
    assert np.isclose(AdaPipe(scale=0.5).settings["scale_std"], 0.2)
