"""The GAN example: every variant trains, writes its files, and resumes with the same numbers."""

import json
import math

import numpy as np
import pytest
import torch
from gan_report import Log, save_plot
from gan_steps import Gan
from PIL import Image
from train_gan import command_line, main

from tests import preloaded
from tests.examples.conftest import EXAMPLES
from tests.prepare.pictures import jpeg
from tests.quick import slow_but

SMALL = ("--size", "32", "--width", "4", "--batch-size", "8", "--log-every", "2", "--r1-interval", "4")
EPOCH = 2  # steps: 20 pictures in batches of 8
# Every loss with every augmentation, with and without classes.
VARIANTS = (
    ("bce", "none", True),
    ("bce", "ada", False),
    ("bce", "diffaugment", True),
    ("wgan-gp", "none", False),
    ("wgan-gp", "ada", True),
    ("wgan-gp", "diffaugment", False),
    ("ns-r1", "none", True),
    ("ns-r1", "ada", False),
    ("ns-r1", "diffaugment", True),
    ("ns-r1", "ada", True),
)
QUICK_VARIANTS = (
    ("bce", "diffaugment", True),
    ("wgan-gp", "none", False),
    ("ns-r1", "ada", True),
)


def run(source, out, *options):
    """Trains, and returns the checkpoint and the rows of the log."""
    main([str(source), "--out", str(out), *SMALL, *map(str, options)])
    return load(out), [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def load(out):
    return torch.load(out / "checkpoint.pt", weights_only=True)


def tensors(state, path=""):
    """Path -> tensor or number, of nested dicts and lists."""
    if isinstance(state, (dict, list, tuple)):
        parts = state.items() if isinstance(state, dict) else enumerate(state)
        return {key: one for name, part in parts for key, one in tensors(part, f"{path}/{name}").items()}
    return {path: state}


def differing(one, other):
    """The paths where two checkpoints are not equal to the last bit."""
    ours, theirs = tensors(one), tensors(other)
    assert ours.keys() == theirs.keys()
    return [
        path
        for path, was in ours.items()
        if not (torch.equal(was, theirs[path]) if torch.is_tensor(was) else was == theirs[path])
    ]


def stays(network, name, loss):
    """What has nothing to learn: the number that wgan-gp's critic adds to all its answers."""
    return (network, name, loss) == ("discriminator", "layers.6.bias", "wgan-gp")


def without_clock(rows):
    clock = ("images_per_second", "loader_wait")
    return [{name: number for name, number in row.items() if name not in clock} for row in rows]


@pytest.mark.parametrize(("loss", "augment", "conditional"), slow_but(QUICK_VARIANTS, VARIANTS))
def test_ten_steps_of_each_variant_train_both_networks(faces, tmp_path, loss, augment, conditional):
    options = ["--loss", loss, "--augment", augment] + ["--conditional"] * conditional
    if (loss, augment) == ("wgan-gp", "ada"):
        options += ["--p", "0.5"]
    elif augment == "ada":
        options += ["--ada-target", "-1", "--ada-kimg", "0.1"]
    first, _ = run(faces, tmp_path / "first", *options, "--steps", 1)
    state, rows = run(faces, tmp_path / "run", *options, "--steps", 10)

    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10]
    assert all(math.isfinite(row[name]) for row in rows for name in ("loss_d", "loss_g"))
    for network in ("generator", "discriminator", "average"):
        weights = first["gan"][network]
        unchanged = [name for name, one in weights.items() if one.equal(state["gan"][network][name])]
        assert unchanged == [name for name in weights if stays(network, name, loss)], network
    assert all((row["r_t"] is None) == (loss == "wgan-gp") for row in rows)
    assert all((row["p"] is None) == (augment != "ada") for row in rows)
    if augment == "ada" and loss != "wgan-gp":
        # Two updates of 8 * 4 images in 100, unless D calls every real image generated.
        assert rows[-1]["p"] == pytest.approx(0.64) and rows[0]["p"] == 0
    elif augment == "ada":
        assert {row["p"] for row in rows} == {0.5}

    grids = sorted(path.name for path in (tmp_path / "run").glob("samples-*.png"))
    assert grids == [f"samples-{epoch:05d}.png" for epoch in range(1, 10 // EPOCH + 1)]
    columns = 2 if conditional else 8
    with Image.open(tmp_path / "run" / grids[-1]) as grid:
        assert grid.size == (columns * 34 + 2, 8 * 34 + 2)
        assert len(np.unique(np.asarray(grid))) > 30  # pictures, and not one gray
    with Image.open(tmp_path / "run" / "plot.png") as plot:
        assert plot.height == 320 + 270 * (loss != "wgan-gp") + 270 * (augment == "ada")  # one panel, or more
        drawn = {tuple(colour) for colour in np.unique(np.asarray(plot).reshape(-1, 3), axis=0)}
        assert {(31, 119, 180), (214, 39, 40)} <= drawn  # both losses


@pytest.mark.parametrize(
    "options",
    [
        ("--loss", "ns-r1", "--augment", "ada", "--conditional", "--ada-kimg", "0.2", "--mirror"),
        ("--loss", "wgan-gp", "--augment", "diffaugment", "--n-critic", "3"),
        pytest.param(("--loss", "bce", "--augment", "none", "--crop", "random"), marks=pytest.mark.slow),
    ],
)
def test_six_steps_and_four_after_a_resume_are_ten(faces, tmp_path, options):
    whole, whole_rows = run(faces, tmp_path / "whole", *options, "--steps", 10)
    part, _ = run(faces, tmp_path / "parts", *options, "--steps", 6)
    assert part["step"] == 6 and differing(part["gan"], whole["gan"])
    torch.manual_seed(999)  # what another process would have
    rest, rows = run(faces, tmp_path / "parts", *options, "--steps", 10)

    assert not differing(whole["gan"], rest["gan"])
    assert whole["loader"] == rest["loader"] and rest["step"] == 10
    assert without_clock(rows) == without_clock(whole_rows)
    grids = [(tmp_path / name / "samples-00005.png").read_bytes() for name in ("whole", "parts")]
    assert grids[0] == grids[1]


def test_a_resume_in_the_middle_of_an_epoch_and_from_another_folder(faces, tmp_path):
    whole, _ = run(faces, tmp_path / "whole", "--steps", 6)
    run(faces, tmp_path / "before", "--steps", 3)
    checkpoint = tmp_path / "before" / "checkpoint.pt"
    rest, rows = run(faces, tmp_path / "after", "--steps", 6, "--resume", checkpoint)
    assert not differing(whole["gan"], rest["gan"])
    assert [row["step"] for row in rows] == [4, 6]


def test_a_killed_training_run_resumes_from_its_last_epoch(faces, tmp_path, monkeypatch):
    """Its checkpoint, of step 6, is from between two lines of the log, of steps 4 and 8."""
    options = ("--steps", 10, "--log-every", 4)
    whole, whole_rows = run(faces, tmp_path / "whole", *options)
    train_step = Gan.train_step

    def killed(gan, reals, labels, step):
        if step == 8:
            raise KeyboardInterrupt
        train_step(gan, reals, labels, step)

    with monkeypatch.context() as patch:
        patch.setattr(Gan, "train_step", killed)
        with pytest.raises(KeyboardInterrupt):
            run(faces, tmp_path / "parts", *options)
    assert load(tmp_path / "parts")["step"] == 6
    rest, rows = run(faces, tmp_path / "parts", *options)
    assert not differing(whole["gan"], rest["gan"])
    assert without_clock(rows) == without_clock(whole_rows)


def test_p_rises_and_after_a_resume_with_another_target_falls(faces, tmp_path):
    _, rising = run(faces, tmp_path, "--ada-kimg", "0.1", "--ada-target", "-1", "--steps", 8)
    _, falling = run(faces, tmp_path, "--ada-kimg", "0.1", "--ada-target", "1", "--steps", 12)
    assert rising[-1]["p"] == pytest.approx(0.64)
    assert falling[-1]["p"] == pytest.approx(0.32)


def test_a_fixed_p_is_that_of_the_command_after_a_resume_too(faces, tmp_path):
    run(faces, tmp_path, "--p", "0.25", "--steps", 4)
    _, rows = run(faces, tmp_path, "--p", "0.75", "--steps", 8)
    assert [row["p"] for row in rows] == [0.25, 0.25, 0.75, 0.75]


def small_gan(*options):
    options = command_line().parse_args(["--out", "nowhere", *SMALL, *options])
    return Gan(options, 0, torch.device("cpu"))


@pytest.mark.parametrize("loss", ["bce", "ns-r1", "wgan-gp"])
def test_nobody_learns_from_what_the_augmentation_hides(loss):
    """Real and generated images, penalties and the generator's gradient: all of them go through T."""
    gan = small_gan("--loss", loss)
    seen = []
    gan.augment = lambda images: seen.append(len(images)) or images * 0
    gan.train_step(torch.rand(8, 3, 32, 32), None, step=4)
    passes = {"bce": 3, "ns-r1": 4, "wgan-gp": 4}[loss]
    assert seen == [8] * passes
    assert not gan.discriminator.layers[0].weight.grad.any()  # the layer that looks at the pixels
    assert not any(one.grad.any() for one in gan.generator.parameters())


@pytest.mark.parametrize("loss", ["ns-r1", "wgan-gp"])
def test_penalties_are_of_the_gradient_at_images_before_the_augmentation(loss):
    gan = small_gan("--loss", loss, "--gamma", "0.5")
    gan.augment = lambda images: 3 * images
    gan.discriminator = lambda images, labels: images.flatten(1).sum(1) / 100
    gradient = 0.03 * math.sqrt(3 * 32 * 32)  # its norm, the same everywhere
    reals, fakes = torch.rand(8, 3, 32, 32), torch.rand(8, 3, 32, 32)
    if loss == "ns-r1":
        assert gan.r1_penalty(reals, None).item() == pytest.approx(0.5 / 2 * 4 * gradient**2, rel=1e-5)
    else:
        assert gan.gradient_penalty(reals, fakes, None).item() == pytest.approx(
            10 * (gradient - 1) ** 2, rel=1e-5
        )


def test_signs_are_reported_in_the_main_phase_and_in_that_of_r1():
    gan = small_gan()
    for step, count in ((1, 8), (2, 16), (3, 24)):
        gan.train_step(torch.rand(8, 3, 32, 32), None, step)
        assert gan.controller.sums[1] == count
    gan.controller.step = lambda: None  # it would begin anew
    gan.train_step(torch.rand(8, 3, 32, 32), None, step=4)
    assert gan.controller.sums[1] == 40


def test_discriminators_of_penalties_score_each_image_by_itself():
    images = torch.rand(8, 3, 32, 32)
    for loss, alone in (("bce", False), ("ns-r1", True), ("wgan-gp", True)):
        gan = small_gan("--loss", loss)
        together, one = gan.discriminator(images)[:4], gan.discriminator(images[:4])
        assert torch.allclose(together, one, rtol=1e-4, atol=1e-7) == alone, loss


def test_classes_matter_to_both_networks(faces, tmp_path):
    options = command_line().parse_args(["--out", "nowhere", *SMALL])
    gan = Gan(options, 3, torch.device("cpu"))
    labels = torch.arange(4) % 3
    z, images = torch.randn(1, 100).expand(4, -1), torch.rand(1, 3, 32, 32).expand(4, -1, -1, -1)
    pictures, logits = gan.generator(z, labels), gan.discriminator(images, labels)
    for same in (pictures, logits):
        assert torch.allclose(same[0], same[3]) and not torch.allclose(same[0], same[1])


def test_the_average_follows_the_generator(faces, tmp_path):
    state, _ = run(faces, tmp_path, "--steps", 10)
    weights = [name for name in state["gan"]["average"] if name.endswith("weight")]
    first, _ = run(faces, tmp_path / "first", "--steps", 1)
    for name in weights:
        begin, mean, end = (one["gan"][part][name] for one, part in (
            (first, "generator"), (state, "average"), (state, "generator")))  # fmt: skip
        assert 0 < (mean - end).norm() < (begin - end).norm(), name


def test_log_lines_of_a_killed_training_run_after_its_checkpoint_are_dropped(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in (2, 4, 6, 8)) + '{"step": 1')
    log = Log(path, step=4)
    assert [row["step"] for row in log.rows] == [2, 4]
    assert path.read_text() == '{"step": 2}\n{"step": 4}\n'


def test_the_plot_shows_a_line_where_its_numbers_are(tmp_path):
    rows = [{"kimg": kimg, "p": p, "r_t": None} for kimg, p in ((0, 0.0), (5, 0.0), (5, 1.0), (10, 1.0))]
    save_plot(rows, {"p": {"lines": ("p", "r_t")}}, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as plot:
        blue = (np.asarray(plot) == (31, 119, 180)).all(axis=2)
    left, right = blue[:, 100:500], blue[:, 560:950]
    assert left.any(0).mean() > 0.98 and right.any(0).mean() > 0.98  # but for ticks of the axis
    low, high = np.nonzero(left.any(1))[0], np.nonzero(right.any(1))[0]
    assert low.min() - high.max() == pytest.approx(220, abs=3)  # a panel's height
    assert np.ptp(low) <= 3 and np.ptp(high) <= 3


def test_a_checkpoint_that_could_not_be_written_leaves_the_one_before(faces, tmp_path, monkeypatch):
    run(faces, tmp_path, "--steps", 2)

    def full(state, path):
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(OSError, match="no space"):
            run(faces, tmp_path, "--steps", 4)
    assert load(tmp_path)["step"] == 2
    state, _ = run(faces, tmp_path, "--steps", 4)
    assert state["step"] == 4


@pytest.mark.parametrize("loss", ["ns-r1", "wgan-gp"])
def test_networks_in_bfloat16_learn_nearly_the_same(loss):
    """Penalties differentiate twice through autocast; 8 bits of a bfloat16 agree to a percent or two."""
    losses = []
    for options in ((), ("--amp",)):
        gan = small_gan("--loss", loss, *options)
        real = torch.linspace(-1, 1, 8 * 3 * 32 * 32).reshape(8, 3, 32, 32)
        for step in (4, 8):
            gan.train_step(real, None, step)
        assert gan.generator.layers[0].weight.dtype == torch.float32
        losses.append(gan.losses)
    assert torch.allclose(*losses, atol=0.02) and not torch.equal(*losses)


def test_a_loss_that_is_not_finite_ends_the_training_run(faces, tmp_path):
    with pytest.raises(SystemExit, match=r"loss is (nan|inf).*--lr"):
        run(faces, tmp_path, "--lr", "1e30", "--steps", 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--loss", "wgan-gp", "--augment", "ada"), "sign of D"),
        (("--augment", "none", "--p", "0.5"), "--p needs --augment ada"),
        (("--classes", "3"), "--classes needs --conditional"),
        (("--steps", "1", "--epochs", "1"), "not allowed with"),
        (("--batch-size", "0"), "invalid positive value"),
        (("--size", "48"), "invalid choice"),
    ],
)
def test_options_that_exclude_each_other_are_refused(faces, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit):
        run(faces, tmp_path / "run", *options)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_options_that_the_source_does_not_support_are_refused(faces, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="use batch_size=20 or less"):
        run(faces, tmp_path / "1", "--batch-size", "21")
    flat = tmp_path / "flat"
    flat.mkdir()
    for number in range(8):
        (flat / f"{number}.jpg").write_bytes(jpeg(number))
    with pytest.raises(SystemExit, match="give the number of classes with --classes N"):
        run(flat, tmp_path / "2", "--conditional")
    with pytest.raises(SystemExit, match="give one of blit"):
        run(faces, tmp_path / "3", "--pipe", "abc")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match="without torchrun"):
        run(faces, tmp_path / "4")


def test_a_checkpoint_of_other_options_is_refused(faces, tmp_path):
    run(faces, tmp_path, "--steps", 2)
    with pytest.raises(SystemExit, match="was saved with --loss ns-r1, got bce"):
        run(faces, tmp_path, "--steps", 4, "--loss", "bce")


def test_the_demo_set_has_classes(faces, tmp_path, monkeypatch):
    monkeypatch.setattr("train_gan.demo_set", lambda: str(faces))
    main(["--out", str(tmp_path), *SMALL, "--conditional", "--steps", "1"])
    assert load(tmp_path)["gan"]["generator"]["embed.weight"].shape[0] == 6


SCRIPT = """
import os, runpy, sys
del sys.argv[0]
sys.path[0] = os.path.dirname(sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_it_runs_as_a_script(faces, tmp_path):
    arguments = [str(faces), "--out", str(tmp_path / "run"), *SMALL, "--steps", "2"]
    done = preloaded.run(SCRIPT, str(EXAMPLES / "train_gan.py"), *arguments, limit_seconds=50)
    assert done.status == 0, done.err
    assert "step 2  kimg 0.02  D " in done.out and "r_t" in done.out
    assert load(tmp_path / "run")["step"] == 2
