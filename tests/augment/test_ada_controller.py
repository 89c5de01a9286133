"""AdaController: the rule, its state, what it waits for, and that ranks agree."""

import io
import json

import numpy as np
import pytest
import torch

from fastload.augment import AdaController, AdaPipe
from fastload.errors import ConfigError
from tests import preloaded


def make(**options):
    settings = {"batch_size": 50, "ada_kimg": 10, **options}
    return AdaController(AdaPipe.named("bgc", rank=0), **settings)


def expected(batches, p=0.0, target=0.6, interval=4, step=50 * 4 / 10_000):
    """The published rule in NumPy: batches is a list of lists of logits."""
    p, r_t, found, since = np.float32(p), np.float32(0), [], []
    for number, reported in enumerate(batches, 1):
        since += reported
        if number % interval == 0:
            r_t = np.float32(np.mean(np.sign(since))) if since else r_t
            p = max(np.float32(0), p + np.sign(r_t - np.float32(target)) * np.float32(step))
            since = []
        found.append((p, r_t))
    return found


def test_p_follows_the_published_rule():
    rng = np.random.default_rng(0)
    batches = [list(rng.normal(shift, 1, 7).astype(np.float32)) for shift in rng.normal(0.9, 1, 400)]
    batches[40:44] = [[], [], [], []]  # nothing reported: the mean before
    batches[100] += [0.0, 0.0]  # the sign of 0 is 0
    controller = make()
    for logits, (p, r_t) in zip(batches, expected(batches), strict=True):
        if logits:
            controller.report(torch.tensor(logits))
        controller.step()
        assert controller.p.item() == pytest.approx(p, abs=1e-6)
        assert controller.r_t.item() == pytest.approx(r_t, abs=1e-6)
    steps = np.diff([p for p, _ in expected(batches)])
    assert (steps > 0).any() and (steps < 0).any(), "it went up and down"


def test_p_rises_from_0_to_1_in_ada_kimg_thousand_images():
    controller = make(batch_size=100, ada_kimg=4, ada_interval=4)
    for _ in range(40):
        controller.report(torch.ones(10))
        controller.step()
    assert controller.p.item() == pytest.approx(1.0, abs=1e-5)


def test_exactly_at_the_target_nothing_changes_and_p_stays_above_0():
    controller = make(ada_target=0.5, p=0.25, ada_interval=1)
    controller.report(torch.tensor([1.0, 1, 1, -1]))
    controller.step()
    assert controller.p.item() == 0.25
    for _ in range(200):
        controller.report(-torch.ones(4))
        controller.step()
    assert controller.p.item() == 0


def test_the_pipe_begins_at_p_and_follows():
    controller = make(ada_interval=1, p=0.5)
    assert controller.pipe.p.item() == 0.5
    controller.report(torch.ones(3))
    controller.step()
    assert controller.pipe.p.item() == pytest.approx(0.505)


def test_a_fixed_p_stays_and_r_t_is_measured():
    controller = make(ada_target=None, p=0.2, ada_interval=2)
    for _ in range(4):
        controller.report(torch.tensor([1.0, -1, 1, 1]))
        controller.step()
    assert controller.stats() == {"p": pytest.approx(0.2), "r_t": 0.5}


def test_a_fixed_p_is_the_pipes_own_unless_one_is_given():
    assert AdaController(AdaPipe.named("bgc", p=0.6), 8, ada_target=None).p.item() == pytest.approx(0.6)
    assert AdaController(AdaPipe.named("bgc", p=0.6), 8, ada_target=None, p=0.1).p.item() == pytest.approx(
        0.1
    )
    assert AdaController(AdaPipe.named("bgc", p=0.6), 8).p.item() == 0


@pytest.mark.parametrize("cast", ["half", "bfloat16"])
def test_small_steps_still_move_p_in_a_network_of_half_precision(cast):
    controller = getattr(make(ada_interval=1, ada_kimg=500, p=0.5), cast)()
    for _ in range(10):
        controller.report(torch.ones(4))
        controller.step()
    assert controller.p.item() == pytest.approx(0.501, abs=1e-5)


def test_logits_of_any_shape_and_dtype_count_one_by_one():
    controller = make(ada_interval=1)
    controller.report(torch.full((2, 1, 5, 5), -3.0, dtype=torch.bfloat16))
    controller.report(torch.full((150,), 0.1, requires_grad=True))
    controller.step()
    assert controller.r_t.item() == 0.5


def test_a_logit_that_is_no_number_does_not_become_p():
    controller = make(ada_interval=1)
    controller.report(torch.tensor([float("nan"), float("inf"), 1.0, 1.0]))
    controller.step()
    assert controller.r_t.item() == 0.75 and controller.p.item() > 0


def test_a_resumed_controller_goes_on_as_the_first_would_have():
    rng = torch.Generator().manual_seed(0)
    logits = [torch.randn(6, generator=rng) + 0.7 for _ in range(40)]

    def run(controller, some):
        for one in some:
            controller.report(one)
            controller.step()
        return controller.stats()

    first = make()
    run(first, logits[:18])  # in the middle of an interval
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = make()
    second.load_state_dict(torch.load(file, weights_only=True))
    assert run(first, logits[18:]) == run(second, logits[18:])
    assert torch.equal(first.pipe.draw(3, 3, 8, 8).G_inv, second.pipe.draw(3, 3, 8, 8).G_inv)


class NoWaiting(torch.utils._python_dispatch.TorchDispatchMode):
    """Fails where a number is read from a tensor, which on a GPU would wait for it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert "_local_scalar_dense" not in str(func), f"{func} waits for the device"
        assert "nonzero" not in str(func)
        return func(*args, **(kwargs or {}))


def test_no_step_reads_a_number_from_the_device():
    controller, logits = make(ada_interval=1, p=0.9), torch.randn(8)
    with NoWaiting():
        for _ in range(3):
            controller.report(logits)
            controller.step()
        with pytest.raises(AssertionError, match="waits"):
            controller.p.item()


def test_p_above_the_limit_warns_where_it_is_read_anyway():
    controller = make(p=0.81)
    with pytest.warns(UserWarning, match=r"0\.810.*leak"):
        controller.stats()
    with pytest.warns(UserWarning, match="leak"):
        controller.state_dict()
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        controller.report(torch.ones(1))
        controller.step()
        make(p=0.8).state_dict()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"ada_target": 2}, "r_t lies"),
        ({"ada_interval": 0}, "ada_interval=0"),
        ({"batch_size": 2.5}, "batch_size=2.5"),
        ({"ada_kimg": 0}, "ada_kimg=0"),
        ({"p": -1}, "p=-1"),
        ({"p": float("inf")}, "p=inf"),
        ({"ada_kimg": "5"}, "ada_kimg='5'"),
        ({"ada_target": "high"}, "r_t lies"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        make(**options)
    with pytest.raises(ConfigError, match=r"\.to\(logits.device\)"):
        make().report(torch.zeros(1, device="meta"))
    with pytest.raises(ConfigError, match="buffer p"):
        AdaController(torch.nn.Linear(1, 1), 8)


RANKS = """
import json, sys
import torch
import torch.distributed as dist
from torch.multiprocessing import get_context
from fastload.augment import AdaController, AdaPipe

def rank_of_two(rank, meeting, queue):
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    pipe = AdaPipe.named("bgc")
    controller = AdaController(pipe, batch_size=50, ada_kimg=10, ada_interval=2)
    for number in range(8):
        # Rank 0 sees more logits than rank 1, and of another sign: the mean is over all of them.
        controller.report(torch.ones(30) if rank == 0 else -torch.ones(2 if number < 4 else 30))
        controller.step()
    queue.put((rank, controller.stats(), pipe.draw(3, 3, 16, 16).G_inv.tolist()))
    dist.destroy_process_group()

context = get_context("fork")
queue = context.Queue()
processes = [context.Process(target=rank_of_two, args=(rank, sys.argv[1], queue)) for rank in range(2)]
for process in processes:
    process.start()
print(json.dumps(sorted(queue.get(timeout=120) for _ in processes)))
for process in processes:
    process.join()
    assert process.exitcode == 0
"""


def test_ranks_agree_on_p_and_draw_rows_of_their_own(tmp_path):
    ended = preloaded.run(RANKS, f"file://{tmp_path}/meeting", limit_seconds=120)
    assert ended.status == 0, ended.err
    found = json.loads(ended.out)
    assert found[0][1] == found[1][1]
    assert found[0][1]["r_t"] == 0 and found[0][1]["p"] == pytest.approx(0, abs=1e-7)
    pipe = AdaPipe.named("bgc", rank=0)
    pipe.p.fill_(found[0][1]["p"])
    whole = pipe.draw(6, 3, 16, 16).G_inv.tolist()
    assert found[0][2] + found[1][2] == whole
