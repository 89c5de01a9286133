"""What the pipes that draw on a device share: where they are, and settings that are read and not written."""

import contextlib
import copy
import inspect
import pickle

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from fastload.augment import AdaController, AdaPipe, Augment, AugmentPipe, DiffAugment
from fastload.augment.device_draws import DeviceDraws
from fastload.errors import ConfigError

MAKE = {
    "AdaPipe": lambda: AdaPipe.named("bgc", p=0.25, rank=0),
    "DiffAugment": lambda: DiffAugment(rank=0),
    "AugmentPipe": lambda: AugmentPipe(p=0.25, xflip=1, scale=1, rank=0),
}
every_pipe = pytest.mark.parametrize("kind", MAKE)
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture
def gpu(monkeypatch):
    """Tensors that say that they are on a GPU, where there is none: they have no values."""
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    with FakeTensorMode():
        yield torch.device("cuda", 0)


def devices(module):
    return {str(one.device) for one in module.buffers()}


# Where a pipe is


@every_pipe
def test_a_pipe_on_the_cpu_moves_to_the_first_images_and_stays(kind, gpu):
    pipe, images = MAKE[kind](), torch.empty(2, 3, 16, 16, device=gpu)
    pipe.check(images)
    assert devices(pipe) == {"cuda:0"}
    pipe.check(images)
    with pytest.raises(ConfigError, match=r"images are on cpu.*is on cuda:0.*\.to\(images\.device\)"):
        pipe.check(torch.empty(2, 3, 16, 16))


@every_pipe
def test_a_pipe_that_has_been_called_moves_only_where_it_is_told(kind, gpu):
    pipe, images = MAKE[kind](), torch.empty(2, 3, 16, 16, device=gpu)
    pipe.check(torch.empty(2, 3, 16, 16))
    with pytest.raises(ConfigError, match=r"is on cpu: move it with \.to\(images\.device\)"):
        pipe.check(images)
    pipe.to(gpu).check(images)
    assert devices(pipe) == {"cuda:0"}


@every_pipe
def test_a_pipe_that_was_moved_is_not_moved_again(kind, gpu):
    pipe = MAKE[kind]().to("cuda:1")
    with pytest.raises(ConfigError, match=r"images are on cuda:0.*is on cuda:1"):
        pipe.check(torch.empty(2, 3, 16, 16, device=gpu))


@every_pipe
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pipe: pickle.loads(pickle.dumps(pipe))])
def test_copies_follow_images_of_their_own(kind, copied, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    pipe = MAKE[kind]()
    pipe.check(torch.empty(2, 3, 16, 16))
    other = copied(pipe)
    with FakeTensorMode(allow_non_fake_inputs=True):
        images = torch.empty(2, 3, 16, 16, device="cuda:0")
        other.check(images)
        with pytest.raises(ConfigError, match="is on cpu"):
            pipe.check(images)
    assert devices(other) == {"cuda:0"} and devices(pipe) == {"cpu"}


@every_pipe
def test_what_was_loaded_goes_along_and_a_device_without_memory_is_refused(kind):
    pipe = MAKE[kind]()
    state = pipe.state_dict()
    state["calls"].fill_(7)
    pipe.load_state_dict(state)
    with pytest.raises(ConfigError, match=r"images are on meta.*\.to\(images\.device\)"):
        pipe(torch.zeros(2, 3, 16, 16, device="meta"))
    pipe(torch.zeros(2, 3, 16, 16))
    assert pipe.calls.item() == 8


@every_pipe
def test_a_move_within_a_captured_graph_is_refused(kind, gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    pipe, images = MAKE[kind](), torch.empty(2, 3, 16, 16, device=gpu)
    with pytest.raises(ConfigError, match=r"captured graph: move it before, with \.to\(images\.device\)"):
        pipe.check(images)
    assert devices(pipe) == {"cpu"}
    pipe.to(gpu).check(images)


@every_pipe
def test_a_move_within_a_compiled_graph_is_refused(kind, gpu, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with pytest.raises(ConfigError, match="compiled or captured graph"):
        MAKE[kind]().check(torch.empty(2, 3, 16, 16, device=gpu))


@every_pipe
def test_moved_in_inference_mode_it_can_still_count_outside(kind, gpu):
    pipe = MAKE[kind]()
    with torch.inference_mode():
        pipe.check(torch.empty(2, 3, 16, 16, device=gpu))
    assert devices(pipe) == {"cuda:0"} and not any(one.is_inference() for one in pipe.buffers())


@every_pipe
def test_called_eagerly_first_it_is_compiled_once(kind):
    torch.compiler.reset()
    pipe, images = MAKE[kind](), torch.rand(2, 3, 16, 16)
    compiled = torch.compile(pipe, fullgraph=True, backend="aot_eager")
    compiled(images)
    with torch.compiler.set_stance("fail_on_recompile"):
        pipe(images)
        compiled(images)
    assert pipe.calls.item() == 3


@on_a_gpu
@every_pipe
def test_on_a_real_gpu_the_first_call_draws_what_it_would_have_drawn_there(kind):
    images = torch.rand(4, 3, 32, 32, device="cuda")
    pipe, told = MAKE[kind](), MAKE[kind]().to("cuda")
    for found, expected in zip(pipe(images), told(images), strict=True):
        assert torch.equal(found, expected)


class OtherPipe(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("p", torch.zeros(()))


def test_controller_and_pipe_move_to_the_first_logits(gpu):
    controller = AdaController(AdaPipe.named("bgc", rank=0), 8)
    controller.report(torch.empty(4, device=gpu))
    assert devices(controller) == {"cuda:0"}
    with pytest.raises(ConfigError, match=r"logits are on cpu.*\.to\(logits\.device\)"):
        controller.report(torch.empty(4))


def test_a_controller_follows_its_pipe(gpu):
    controller = AdaController(AdaPipe.named("bgc", rank=0), 8, ada_interval=1)
    controller.pipe.check(torch.empty(2, 3, 16, 16, device=gpu))
    with contextlib.suppress(RuntimeError):  # this torch may have no GPU to compute p on
        controller.step()
    assert devices(controller) == {"cuda:0"}


def test_a_controller_whose_pipe_has_to_stay_says_which_is_to_move(gpu):
    for pipe in (AdaPipe.named("bgc", rank=0), OtherPipe()):
        controller = AdaController(pipe, 8)
        if isinstance(pipe, AdaPipe):
            pipe.check(torch.empty(2, 3, 16, 16))
        with pytest.raises(ConfigError, match=rf"{type(pipe).__name__} is on cpu.*\.to\(logits\.device\)"):
            controller.report(torch.empty(4, device=gpu))
        assert devices(controller) == {"cpu"}


# Settings


def published(kind):
    """The settings of a class by its own arguments, p aside, which is a buffer."""
    return [name for name in inspect.signature(type(MAKE[kind]())).parameters if name != "p"]


every_setting = pytest.mark.parametrize(
    "kind, name", [(kind, name) for kind in MAKE for name in published(kind)]
)


def test_so_many_attributes_are_those_that_were_published():
    own = {"seed", "rank", "impl"}
    assert len(set(published("AdaPipe")) - own) == 28 and len(set(published("AugmentPipe")) - own) == 23


@every_setting
def test_a_setting_can_be_read_and_not_written(kind, name):
    pipe = MAKE[kind]()
    before = getattr(pipe, name)
    for change in (lambda: setattr(pipe, name, 0.5), lambda: delattr(pipe, name)):
        with pytest.raises(ConfigError, match=rf"{kind}\.{name} .*graphs.*Make a new pipe"):
            change()
    assert getattr(pipe, name) == before


def test_settings_are_read_as_they_were_given():
    ada = AdaPipe(xflip=1, hue_max=0.5, imgfilter_bands=(1, 0, 2, 1), seed=5, rank=0, impl="reference")
    assert (ada.xflip, ada.hue_max, ada.scale, ada.xint_max) == (1.0, 0.5, 0.0, 0.125)
    assert tuple(ada.imgfilter_bands) == (1.0, 0.0, 2.0, 1.0)
    assert (ada.seed, ada.rank, ada.impl) == (5, 0, "reference")
    edm = AugmentPipe(p=0.5, rotate_frac=1, aniso_rotate_prob=0.25)
    assert (edm.rotate_frac, edm.aniso_rotate_prob, edm.yflip, edm.label_count) == (1.0, 0.25, 0.0, 2)
    assert DiffAugment("cutout").policy == "cutout"


def test_what_lies_behind_the_settings_cannot_be_written_either():
    ada, edm = MAKE["AdaPipe"](), MAKE["AugmentPipe"]()
    for pipe in (ada, edm):
        with pytest.raises(TypeError):
            pipe.settings["scale"] = 0.0
    with pytest.raises(TypeError):
        ada.imgfilter_bands[0] = 0.0
    with pytest.raises(ConfigError, match=r"label_count is fixed"):
        edm.label_count = 5
    with pytest.raises(ConfigError, match=r"xflip is fixed"):
        torch.nn.Sequential(ada)[0].xflip = 0.0


@every_pipe
def test_copies_pickles_and_states_have_the_settings_and_keep_them(kind):
    pipe = MAKE[kind]()
    name = published(kind)[0]
    for other in (copy.deepcopy(pipe), copy.copy(pipe), pickle.loads(pickle.dumps(pipe))):
        assert all(getattr(other, one) == getattr(pipe, one) for one in published(kind))
        with pytest.raises(ConfigError, match="is fixed"):
            setattr(other, name, 0.5)
        other.load_state_dict(pipe.state_dict())


@pytest.mark.parametrize("kind", ["AdaPipe", "AugmentPipe"])
def test_p_is_still_written(kind):
    pipe = MAKE[kind]()
    pipe.p.copy_(torch.tensor(0.75))
    assert pipe.state_dict()["p"].item() == 0.75
    pipe.p = torch.tensor(0.5)
    assert pipe.p.item() == 0.5 and "p" in dict(pipe.named_buffers())
    with pytest.raises(TypeError, match="p"):
        pipe.p = 0.5


def test_attributes_of_a_users_own_are_free():
    class Named(AdaPipe):
        def __init__(self, note):
            super().__init__(xflip=1, rank=0)
            self.note = note

    pipe = Named("first")
    pipe.note = "second"
    del pipe.note
    pipe.training = False
    assert isinstance(pipe, DeviceDraws) and not hasattr(pipe, "note")


def test_the_settings_of_augment_are_frozen():
    augment = Augment(xflip=0.5)
    with pytest.raises(AttributeError, match="xflip"):
        augment.xflip = 0.0
