"""Exported graphs compute what their models do, in programs that do not know the zoo."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from instances import INSTANCES, Instance
from torch import Tensor

from zoo import Zoo
from zoo.cli import main
from zoo.errors import ConfigError, ZooError
from zoo.export.graph import Graph, export_graph
from zoo.graphs import METHODS, methods_of
from zoo.store.card import render_card


def instance_of(name: str) -> Instance:
    return next(i for i in INSTANCES if i.cls.__name__ == name)


def card_of(name: str) -> str:
    return render_card(Zoo.info(name))


def run_onnx(path: Path, **inputs: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    return torch.from_numpy(output)


def test_a_generator_decodes_what_the_model_decodes(tmp_path: Path) -> None:
    model = instance_of("DCGAN").build()
    found = export_graph(model, tmp_path / "x.onnx", "onnx")
    assert (found.method, found.inputs, found.output) == ("decode", {"z": ["B", 3]}, ("x", ["B", 1, 8, 12]))
    z = torch.randn(5, 3)
    with torch.no_grad():
        torch.testing.assert_close(run_onnx(found.path, z=z), model.decode(z), atol=1e-5, rtol=1e-4)


def test_the_noise_of_a_bound_is_an_input(tmp_path: Path) -> None:
    instance = instance_of("VAE")
    model, x, epsilon = instance.build(), instance.data(4), torch.randn(4, 1)
    found = export_graph(model, tmp_path / "x.onnx", "onnx", "elbo")
    with torch.no_grad():
        expected = model.log_weights_at(x, epsilon[None])[0]
    torch.testing.assert_close(run_onnx(found.path, x=x, epsilon=epsilon), expected, atol=1e-4, rtol=1e-4)


KINDS = {instance.cls.__name__: instance for instance in reversed(INSTANCES) if methods_of(instance.cls)}


@pytest.mark.parametrize("name", KINDS)
def test_what_the_card_exports_can_be_traced(name: str) -> None:
    """The default method of every class; batches of one, three and four examples then give what the model gives."""
    graph = Graph(KINDS[name].build())
    program = graph.program().module()
    graph.check(lambda inputs: program(*inputs))


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("MADE", "log_prob"),
        ("GatedPixelCNN", "log_prob"),
        ("RBM", "energy"),
        ("EDM", "denoise"),
        ("ConditionalVAE", "decode"),
        ("GaussianMixture", "log_prob"),
    ],
)
def test_torch_loads_graphs_of_every_capability(name: str, method: str, tmp_path: Path) -> None:
    model = instance_of(name).build()
    found = export_graph(model, tmp_path / "x.pt2", "torch-export", method)
    program, inputs = torch.export.load(found.path).module(), Graph(model, method).examples(6)
    with torch.no_grad():
        torch.testing.assert_close(program(*inputs), Graph(model, method)(*inputs), atol=1e-5, rtol=1e-4)


def test_a_file_needs_no_zoo(tmp_path: Path) -> None:
    model = instance_of("GAN").build()
    path = export_graph(model, tmp_path / "x.pt2", "torch-export").path
    run = f"torch.export.load({str(path)!r}).module()(torch.zeros(7, 3))"
    code = f"import sys, torch\nprint({run}.shape, 'zoo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == "torch.Size([7, 1, 8, 12]) False"


def test_models_that_no_graph_holds_are_refused(tmp_path: Path) -> None:
    for name in ("DBN", "DBM"):
        with pytest.raises(ConfigError, match=r"draws by a chain or value by value, which no graph holds; others can"):
            Graph(instance_of(name).build())
    with pytest.raises(ConfigError, match=r"^--method: MADE can export log_prob, found sample$"):
        Graph(instance_of("MADE").build(), "sample")
    assert not [*tmp_path.iterdir()]


def test_a_file_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = instance_of("GAN").build(), 0

    def drifting(model: Any, z: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return model.decode(z) + 0.01 * (calls > 2)  # the second call is traced

    monkeypatch.setitem(
        METHODS, "decode", METHODS["decode"].__class__(**{**vars(METHODS["decode"]), "compute": drifting})
    )
    with pytest.raises(ZooError, match=r"the file differs from the model by 0.01; nothing was written"):
        export_graph(model, tmp_path / "x", "torch-export")
    assert not [*tmp_path.iterdir()]


def test_the_command_exports_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "vae.pt2"
    assert main(["export", "vae-mnist", "--to", "torch-export", "--out", str(path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == str(path)
    assert printed[1].startswith("decode: z [B, 16] -> x [B, 1, 28, 28], data decoded from codes z")
    assert "outputs differ from those of the model by at most " in printed[2]
    model: Any = Zoo.load("vae-mnist")
    z = torch.randn(2, *model.latent_shape)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.load(path).module()(z), model.decode(z), atol=1e-4, rtol=1e-4)


def test_the_card_says_how_to_run_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its command and its lines of Python, for a model with labels."""
    name, z, labels = "conditional-vae-mnist", np.random.randn(3, 24).astype(np.float32), np.array([1, 7, 7])
    (command,), snippet = (re.findall(rf"```{kind}\n(.*?)```", card_of(name), re.DOTALL) for kind in ("bash", "python"))
    monkeypatch.chdir(tmp_path)
    assert main(command.split()[1:]) == 0
    found = {"z": z, "labels": labels}
    exec(snippet[-1], found)
    model: Any = Zoo.load(name)
    with torch.no_grad():
        expected = model.decode(torch.from_numpy(z), labels=torch.from_numpy(labels))
    torch.testing.assert_close(torch.from_numpy(found["x"]), expected, atol=1e-4, rtol=1e-4)


def test_every_method_belongs_to_a_capability() -> None:
    models = {i.cls.__name__: i for i in INSTANCES if i.cls.__name__ in ("VAE", "GAN", "MADE", "RBM", "EDM", "LeNet")}
    found = {name: methods_of(instance.cls) for name, instance in models.items()}
    assert found == {
        "VAE": ["decode", "encode", "elbo"],
        "GAN": ["decode"],
        "MADE": ["log_prob"],
        "RBM": ["energy"],
        "EDM": ["denoise"],
        "LeNet": ["logits"],
    }
