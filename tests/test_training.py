"""The training loop: the step itself, stopping, resuming, and two processes that do the work of one."""

import json
import os
import runpy
import socket
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from zsrbook import training
from zsrbook.data.dataset import DataError
from zsrbook.training import Processes, Training, clip_gradients, pick_device, runs_in, train

QUICK = Training(epochs=6, patience=None, device="cpu")


class Line(nn.Module):
    """Least squares with dropout on the inputs; a batch is (inputs, outputs)."""

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, batch):
        inputs, outputs = batch
        return ((self.dropout(inputs) @ self.weight - outputs) ** 2).sum(), len(outputs)


def batches(epoch: int):
    """Of different sizes, so that a mean of means is not the mean."""
    generator = torch.Generator().manual_seed(epoch)
    for size in (5, 2, 9):
        inputs = torch.randn(size, 3, generator=generator)
        yield inputs, inputs @ torch.tensor([1.0, -2.0, 0.5]) + 0.1 * torch.randn(size, generator=generator)


def weights(network):
    return {k: v.clone() for k, v in network.state_dict().items()}


def without_seconds(curve):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in curve]


def same_weights(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("optimizer", ["adagrad", "adam"])
def test_a_step_is_that_of_a_plain_loop(optimizer):
    network, plain = Line(), Line()
    curve = train(network, batches, replace(QUICK, optimizer=optimizer, clip=0.5))
    stepper = {"adagrad": lambda p: torch.optim.Adagrad(p, 0.1, eps=1e-3), "adam": lambda p: torch.optim.Adam(p, 0.1)}[optimizer]([plain.weight])
    for row in curve:
        losses, sizes = [], []
        for inputs, outputs in batches(row["epoch"]):
            loss = ((inputs @ plain.weight - outputs) ** 2).mean()
            (gradient,) = torch.autograd.grad(loss, plain.weight)
            plain.weight.grad = gradient * min(1.0, 0.5 / (float(gradient.norm()) + 1e-6))
            stepper.step()
            losses.append(float(loss.detach()))
            sizes.append(len(outputs))
        assert row["train"] == pytest.approx(np.average(losses, weights=sizes), rel=1e-5)
    torch.testing.assert_close(network.weight, plain.weight)
    assert torch.equal(network.frozen, torch.ones(3))
    assert [row["epoch"] for row in curve] == list(range(6))
    assert curve[-1]["train"] < curve[0]["train"]
    assert not network.training


def test_validation_is_measured_in_evaluation_mode_each_epoch():
    network, modes = Line(), []
    curve = train(network, batches, QUICK, validate=lambda: modes.append(network.training) or float(len(modes)))
    assert modes == [False] * 6
    assert [row["valid"] for row in curve] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("patience", "scripted", "epochs_run", "best"),
    [
        (2, [5, 4, 3, 4, 4, 1], 5, 2),  # two epochs without a better one: the sixth is never run
        (1, [5, 6, 1], 2, 0),
        (3, [5, 4, 4, 4, 3, 2], 6, 5),  # better again just in time; an equal loss is no better
        (None, [1, 2, 3, 4, 5, 6], 6, 0),
    ],
)
def test_early_stopping_waits_as_told_and_keeps_the_best(patience, scripted, epochs_run, best):
    network, kept = Line(dropout=0.2), []

    def validate():
        kept.append(weights(network))
        return float(scripted[len(kept) - 1])

    curve = train(network, batches, replace(QUICK, patience=patience), validate)
    assert len(curve) == epochs_run
    same_weights(weights(network), kept[best])


def test_without_validation_all_epochs_run_and_the_last_is_kept():
    network, seen = Line(), []

    def growing(epoch):
        seen.append(epoch)
        inputs = torch.ones(4, 3)
        yield inputs, inputs.sum(1) * 10**epoch  # the loss grows each epoch, and yet the last one counts

    train(network, growing, replace(QUICK, patience=1, epochs=3))
    assert seen == [0, 1, 2]
    again = Line()
    train(again, growing, replace(QUICK, epochs=2))
    assert not torch.equal(network.weight, again.weight)


# -- resuming ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adagrad", "adam"])
@pytest.mark.parametrize("killed_in", [0, 1, 4])
def test_a_killed_run_goes_on_to_the_very_same_end(tmp_path, optimizer, killed_in):
    settings, losses = replace(QUICK, optimizer=optimizer, patience=2), [5.0, 4.0, 4.5, 3.0, 3.5, 3.2]

    def run(checkpoint, killed_in=None):
        torch.manual_seed(0)
        network, done = Line(dropout=0.4), torch.load(checkpoint, weights_only=True)["curve"] if checkpoint and checkpoint.exists() else []
        remaining = iter(losses[len(done) :])

        def dying(epoch):
            for number, batch in enumerate(batches(epoch)):
                if epoch == killed_in and number == 1:
                    raise KeyboardInterrupt
                yield batch

        return network, train(network, dying, settings, lambda: next(remaining), checkpoint)

    unbroken, curve = run(None)
    checkpoint = tmp_path / "folder" / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint, killed_in)
    assert checkpoint.exists() == (killed_in > 0)
    torch.rand(7)  # the random state of the new process is another one
    resumed, resumed_curve = run(checkpoint)
    same_weights(weights(resumed), weights(unbroken))
    assert without_seconds(resumed_curve) == without_seconds(curve)
    assert [p.name for p in checkpoint.parent.iterdir()] == ["run.pt"]


def test_a_finished_run_is_not_run_again(tmp_path):
    first, again = Line(), Line()
    curve = train(first, batches, QUICK, checkpoint=tmp_path / "run.pt")

    def never(epoch):
        raise AssertionError("it trained again")

    assert train(again, never, QUICK, checkpoint=tmp_path / "run.pt") == curve
    same_weights(weights(again), weights(first))


def test_a_run_that_stopped_early_stays_stopped(tmp_path):
    losses = iter([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    settings = replace(QUICK, patience=2)
    curve = train(Line(), batches, settings, lambda: next(losses), tmp_path / "run.pt")
    assert train(Line(), batches, settings, lambda: next(losses), tmp_path / "run.pt") == curve


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    train(Line(), batches, QUICK, checkpoint=tmp_path / "run.pt")
    with pytest.raises(DataError, match=r"run\.pt was written under other settings or from other data \(learning_rate 0\.1, now 0\.2\); delete it"):
        train(Line(), batches, replace(QUICK, learning_rate=0.2), checkpoint=tmp_path / "run.pt")
    with pytest.raises(DataError, match=r"run\.pt was written under other settings or from other data \(data None, now 'abc'\); delete it"):
        train(Line(), batches, QUICK, checkpoint=tmp_path / "run.pt", of=lambda: {"data": "abc"})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), r"can't be read as a checkpoint \(.*\); it is cut short or damaged"),
        (lambda path: path.write_bytes(b""), "can't be read as a checkpoint"),
        (lambda path: path.write_text("no checkpoint"), "can't be read as a checkpoint"),
        (lambda path: torch.save({"network": {}}, path), "is no checkpoint of this book"),
        (lambda path: torch.save(torch.load(path) | {"network": {}}, path), "holds another network than this one"),
        (lambda path: torch.save(torch.load(path) | {"optimizers": []}, path), "holds another network than this one"),
    ],
)
def test_a_damaged_checkpoint_is_named(tmp_path, spoil, message):
    train(Line(), batches, QUICK, checkpoint=tmp_path / "run.pt")
    spoil(tmp_path / "run.pt")
    with pytest.raises(DataError, match=rf"^\S*run\.pt {message}(.|\n)*; delete it to start anew"):
        train(Line(), batches, QUICK, checkpoint=tmp_path / "run.pt")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("[enforce fail at inline_container.cc] file write failed")])
def test_a_checkpoint_that_can_not_be_written_is_named(tmp_path, monkeypatch, error):
    def full(written, path):
        path.write_text("half")
        raise error

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(DataError, match=r"run\.pt can't be written \(.*\); make room there"):
        train(Line(), batches, QUICK, checkpoint=tmp_path / "run.pt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("none", [[], [(torch.zeros(0, 3), torch.zeros(0))]])
def test_nothing_to_train_on_is_an_error_that_says_so(none):
    with pytest.raises(ValueError, match="my model: there is nothing to train on; epoch 0 has no batch, or none with a target"):
        train(Line(), lambda epoch: none, QUICK, title="my model")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_not_finite_is_an_error_that_says_where(bad):
    def broken(epoch):
        for inputs, outputs in batches(epoch):
            yield inputs, outputs * bad if epoch == 2 else outputs

    with pytest.raises(FloatingPointError, match=r"my model: the training loss is (nan|inf) in epoch 2; lower learning_rate \(0\.1\)"):
        train(Line(), broken, QUICK, title="my model")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("epoch", [0, 2])
def test_a_validation_loss_that_is_not_finite_is_no_success(bad, epoch):
    losses = iter([1.0] * epoch + [bad])
    with pytest.raises(FloatingPointError, match=rf"my model: the validation loss is {bad} in epoch {epoch}; lower learning_rate \(0\.1\)"):
        train(Line(), batches, QUICK, lambda: next(losses), title="my model")


# -- device, precision, chance -------------------------------------------------------------------------------------------------


def test_the_seed_decides_dropout_and_the_caller_keeps_its_random_state():
    def run(seed):
        network = Line(dropout=0.5)
        train(network, batches, replace(QUICK, seed=seed))
        return network.weight.detach()

    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = run(0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    assert torch.equal(run(0), first)
    assert not torch.equal(run(1), first)


def test_bfloat16_is_used_when_asked_for_and_ends_nearby():
    kinds = {}

    class Watched(Line):
        def forward(self, batch):
            inputs, outputs = batch
            found = inputs @ self.weight[:, None]
            kinds.setdefault(current, set()).add(found.dtype)
            return ((found.squeeze(1).float() - outputs) ** 2).sum(), len(outputs)

    ends = []
    for current in ("float32", "bfloat16"):
        network = Watched()
        train(network, batches, replace(QUICK, epochs=20, precision=current))
        assert network.weight.dtype == torch.float32
        ends.append(network.weight.detach())
    assert kinds == {"float32": {torch.float32}, "bfloat16": {torch.bfloat16}}
    assert 0 < float((ends[0] - ends[1]).norm() / ends[0].norm()) < 0.05


@pytest.mark.parametrize("hardware", [True, False])
def test_auto_is_bfloat16_where_the_device_has_it(monkeypatch, hardware):
    monkeypatch.setattr(training, "has_bfloat16", lambda device: hardware)
    said, kinds = "bfloat16" if hardware else "float32", set()

    class Watched(Line):
        def forward(self, batch):
            kinds.add(str((batch[0] @ self.weight[:, None]).dtype))
            return super().forward(batch)

    train(Watched(), batches, replace(QUICK, precision="auto"))
    assert kinds == {f"torch.{said}"}
    assert [runs_in(asked, torch.device("cpu")) for asked in ("float32", "bfloat16", "auto")] == ["float32", "bfloat16", said]


@pytest.mark.parametrize("tiles", [True, False])
def test_a_processor_has_bfloat16_by_its_matrix_tiles(monkeypatch, tiles):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)  # of which a product gains nothing
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    assert training.has_bfloat16(torch.device("cpu")) is tiles


def test_devices_by_name():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_one_process_is_alone():
    processes = Processes()
    assert (processes.count, processes.rank) == (1, 0)
    assert processes.sum(torch.tensor([2.0])).tolist() == [2.0]


def test_a_model_that_does_not_share_its_work_out_is_for_one_process(monkeypatch):
    network = Line()
    train(network, batches, QUICK, shares=False)
    ended = weights(network)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"my model: 2 processes were started, but .* each would do all of it; start it without accelerate launch"):
        train(network, batches, QUICK, title="my model", shares=False)
    same_weights(weights(network), ended)


# -- two processes -------------------------------------------------------------------------------------------------------------

SCRIPT = """
import json, sys
from pathlib import Path
import numpy as np, pandas as pd
from safetensors.torch import save_file
from zsrbook.data.dataset import Dataset
from zsrbook.data.splits import split_by_user
from zsrbook.models.zesrec import ZESRec, ZESRecSettings
from zsrbook.training import Processes, Training

rng = np.random.default_rng(0)
user = np.repeat(np.arange(60), rng.integers(1, 9, 60))
frame = pd.DataFrame({"user": user.astype(str), "item": rng.integers(20, size=len(user)).astype(str), "time": 1e9 + 5e4 * np.arange(len(user))})
data = Dataset.from_raw("tiny", frame, pd.DataFrame({"raw": [str(i) for i in range(20)], "text": ""})).with_features(rng.normal(size=(20, 6)))
split = split_by_user(data, valid=0.3)
training = Training(epochs=4, device="cpu", patience=None, learning_rate=0.05)
model = ZESRec(ZESRecSettings(users="hrnn", width=8, hidden=8, dropout=0.0, batch_targets=40, item_offset=0.5, user_offset=9.0, training=training))
out = Path(sys.argv[1])
model.checkpoint = out / "run.pt"
model.fit(split.train, split.valid)
rank = Processes().rank
(out / f"curve-{rank}.json").write_text(json.dumps(model.curve))
save_file({k: v.contiguous() for k, v in model.network.state_dict().items()}, out / f"weights-{rank}.safetensors")
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_two_processes_do_the_work_of_one(tmp_path, monkeypatch):
    script = tmp_path / "fit.py"
    script.write_text(SCRIPT)
    environment = {k: v for k, v in os.environ.items() if k not in {"WORLD_SIZE", "RANK", "LOCAL_RANK"}} | {
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    # on CPUs, accelerate's own launcher starts one process whatever it is told, unless there is MPI
    launch = f"-m torch.distributed.run --nproc_per_node 2 --master_addr 127.0.0.1 --master_port {free_port()}"
    for count in ("1", "2"):
        (tmp_path / count).mkdir()
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path / "1")])
    runpy.run_path(str(script))
    command = [sys.executable, *launch.split(), str(script), str(tmp_path / "2")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-4000:]
    alone = json.loads((tmp_path / "1" / "curve-0.json").read_text())
    weights_alone = load_file(tmp_path / "1" / "weights-0.safetensors")
    assert sorted(p.name for p in (tmp_path / "2").iterdir()) == [
        "curve-0.json", "curve-1.json", "run.pt", "weights-0.safetensors", "weights-1.safetensors",
    ]  # fmt: skip
    for rank in range(2):
        curve = json.loads((tmp_path / "2" / f"curve-{rank}.json").read_text())
        assert len(curve) == len(alone) == 4
        for one, two in zip(alone, curve, strict=True):
            assert two["train"] == pytest.approx(one["train"], rel=1e-5)
            assert two["valid"] == pytest.approx(one["valid"], rel=1e-5)
        for name, weight in load_file(tmp_path / "2" / f"weights-{rank}.safetensors").items():
            torch.testing.assert_close(weight, weights_alone[name], rtol=1e-3, atol=1e-5)
    assert abs(alone[0]["train"] - alone[-1]["train"]) > 0.01, "nothing was learned, so agreement says nothing"


def test_settings_can_be_written_down():
    assert Training(**asdict(QUICK)) == QUICK


def test_settings_of_unknown_words_are_refused():
    with pytest.raises(ValueError, match="training settings: optimizer is 'sgd'; expected one of adagrad, adam"):
        Training(optimizer="sgd")


@pytest.mark.parametrize("size", [0.1, 30.0, 1e18, 1e30])
def test_gradients_are_clipped_whatever_their_length(size):
    """To the length, in their direction; a norm in float32 overflows from 1e19 on."""
    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((3, 4), (5,), (2,))]
    generator = torch.Generator().manual_seed(0)
    for p in parameters[:2]:
        p.grad = torch.randn(p.shape, generator=generator) * size
    given = torch.cat([p.grad.flatten() for p in parameters[:2]]).double()
    clip_gradients(parameters, 2.0)
    got = torch.cat([p.grad.flatten() for p in parameters[:2]]).double()
    torch.testing.assert_close(got, given * min(1.0, 2.0 / float(given.norm())), rtol=1e-5, atol=0)
    assert parameters[2].grad is None


def test_a_gradient_that_is_no_number_stays_none():
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([1.0, float("nan")])
    clip_gradients([parameter], 1.0)
    assert parameter.grad.isnan().any()
