"""Draws within a backward pass: torch.utils.checkpoint computes functions again, and must not draw again.

Covers registering.py.
"""

import copy
import functools
import itertools

import pytest
import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from fastload.augment import AdaController, AdaPipe, Augment, AugmentPipe, DiffAugment
from fastload.errors import ConfigError
from fastload.ops import draw_diff_augment
from tests.quick import slow_but

MAKE = {
    "AdaPipe": lambda: AdaPipe.named("bgc", p=0.8, rank=0),
    "DiffAugment": lambda: DiffAugment(rank=0),
    "AugmentPipe": lambda: AugmentPipe(p=0.8, xflip=1, scale=1, rotate_frac=1, rank=0),
}
every_pipe = pytest.mark.parametrize("kind", MAKE)
both_modes = pytest.mark.parametrize("use_reentrant", [True, False])


def batch():
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def augmented(pipe, images):
    out = pipe(images)
    return out[0] if isinstance(out, tuple) else out


def drawn(pipe, images):
    n, _, height, width = images.shape
    return pipe.draw(n, height, width) if isinstance(pipe, DiffAugment) else pipe.draw(*images.shape)


def gradient(function):
    images = batch().requires_grad_()
    function(images).square().sum().backward()
    return images.grad


@every_pipe
@both_modes
def test_a_draw_that_is_made_again_raises_says_the_way_out_and_is_not_counted(kind, use_reentrant):
    pipe = MAKE[kind]()
    with pytest.raises(ConfigError, match=r"checkpoint.*pipe\.draw.*apply_params\(images, params\)"):
        gradient(lambda x: checkpoint(lambda y: augmented(pipe, y), x, use_reentrant=use_reentrant))
    assert pipe.calls.item() == 1
    plain = MAKE[kind]()
    gradient(lambda x: augmented(plain, x))
    want, found = (gradient(lambda x, one=one: augmented(one, x)) for one in (plain, pipe))
    assert torch.equal(want, found), "and the pipe goes on where it stood"


@every_pipe
@both_modes
def test_drawn_before_the_checkpointed_function_the_gradient_is_the_right_one(kind, use_reentrant):
    pipe, plain = MAKE[kind](), MAKE[kind]()

    def outside(images):
        params = drawn(pipe, images)
        return checkpoint(lambda y: pipe.apply_params(y, params), images, use_reentrant=use_reentrant)

    for _ in range(2):
        assert torch.equal(gradient(outside), gradient(lambda x: augmented(plain, x)))
    assert pipe.calls.item() == 2


ORDERS = ["compiled in checkpoint", "checkpoint in compiled"]
COMPILED = list(itertools.product(MAKE, ORDERS))
QUICK_COMPILED = list(zip(MAKE, itertools.cycle(ORDERS)))


@pytest.mark.parametrize("kind, order", slow_but(QUICK_COMPILED, COMPILED))
def test_compiled_as_one_graph_it_raises_as_well(kind, order):
    torch.compiler.reset()
    pipe, inner = MAKE[kind](), functools.partial(checkpoint, use_reentrant=False)
    compiled = functools.partial(torch.compile, fullgraph=True, backend="aot_eager")
    if order == "compiled in checkpoint":
        step = compiled(lambda x: augmented(pipe, x))
        function = lambda x: inner(step, x)  # noqa: E731
    else:
        function = compiled(lambda x: inner(lambda y: augmented(pipe, y), x))
    with pytest.raises(ConfigError, match="apply_params"):
        gradient(function)
    assert pipe.calls.item() == 1


@every_pipe
def test_selective_checkpointing_that_saves_the_draws_has_the_right_gradient(kind):
    def policy(context, operator, *arguments, **options):
        saved = str(operator).startswith("fastload.draw_")
        return CheckpointPolicy.MUST_SAVE if saved else CheckpointPolicy.PREFER_RECOMPUTE

    pipe, plain = MAKE[kind](), MAKE[kind]()
    contexts = functools.partial(create_selective_checkpoint_contexts, policy)

    def selective(images):
        return checkpoint(lambda y: augmented(pipe, y), images, use_reentrant=False, context_fn=contexts)

    assert torch.equal(gradient(selective), gradient(lambda x: augmented(plain, x)))
    assert pipe.calls.item() == 1


@every_pipe
def test_a_hook_of_the_backward_pass_may_apply_parameters_that_are_there(kind):
    pipe, images = MAKE[kind](), batch().requires_grad_()
    params = drawn(pipe, images)
    images.register_hook(lambda gradient: pipe.apply_params(gradient, params))
    images.sum().backward()
    assert torch.equal(images.grad, pipe.apply_params(torch.ones_like(images), params))


@every_pipe
def test_between_a_gradient_and_the_gradient_of_its_size_one_may_draw(kind):
    pipe, images = MAKE[kind](), batch().requires_grad_()
    (first,) = torch.autograd.grad(augmented(pipe, images).square().sum(), images, create_graph=True)
    augmented(pipe, images)
    first.square().sum().backward()
    assert pipe.calls.item() == 2 and (images.grad != 0).any()


def in_a_backward_pass(function):
    """What `function` returned where a hook of a backward pass called it."""
    found, one = [], torch.zeros(1, requires_grad=True)
    one.register_hook(lambda gradient: found.append(function()))
    one.sum().backward()
    return found[0]


def test_the_operator_that_draws_is_refused_by_itself():
    calls, ticket = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int32)
    with pytest.raises(ConfigError, match="backward pass"):
        in_a_backward_pass(lambda: draw_diff_augment(calls, ticket, 2, 8, 8))
    assert calls.item() == 0


def test_what_is_drawn_from_positions_is_the_same_in_a_backward_pass():
    augment, images = Augment(xflip=0.5, rotate=20, color_jitter=(0.4, 0.4, 0.4, 0.1)), batch() / 2 + 0.5
    again = in_a_backward_pass(lambda: augment(images, range(4), seed=3))
    assert torch.equal(again, augment(images, range(4), seed=3))


@both_modes
@pytest.mark.parametrize("compiled", [False, True])
def test_logits_that_are_computed_again_do_not_count_twice(use_reentrant, compiled):
    torch.compiler.reset()
    controller = AdaController(MAKE["AdaPipe"](), 4)

    def discriminator(images):
        logits = images.square().mean((1, 2, 3)) + 1
        controller.report(logits)
        return logits.square()

    function = (
        torch.compile(discriminator, fullgraph=True, backend="aot_eager") if compiled else discriminator
    )
    with pytest.raises(ConfigError, match=r"count twice.*Report what the checkpointed function returns"):
        gradient(lambda x: checkpoint(function, x, use_reentrant=use_reentrant))
    assert controller.sums.tolist() == [4, 4]
    twin = copy.deepcopy(controller)
    twin.report(torch.tensor([1.0, -2.0, 0.0]))
    assert twin.sums.tolist() == [4, 7]
