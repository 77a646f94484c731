"""The server of docs/serving draws what the model decodes."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from instances import INSTANCES
from PIL import Image

from zoo.export.graph import export_graph

APP = Path(__file__).parents[2] / "docs" / "serving" / "app.py"


def server(path: Path, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    monkeypatch.setenv("MODEL", str(path))
    spec = importlib.util.spec_from_file_location("serving_app", APP)
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return TestClient(module.app)


def test_the_server_draws_what_the_model_decodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = next(i for i in INSTANCES if i.cls.__name__ == "ConditionalGAN").build()
    client = server(export_graph(model, tmp_path / "x.onnx", "onnx").path, monkeypatch)
    answer = client.get("/sample", params={"num": 3, "seed": 7, "label": 2})
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/png"
    found = np.asarray(Image.open(io.BytesIO(answer.content)))
    z = torch.from_numpy(np.random.default_rng(7).standard_normal((3, *model.latent_shape), dtype=np.float32))
    with torch.no_grad():
        expected = torch.cat([*model.decode(z, labels=torch.full((3,), 2))[:, 0]], 1).mul(255)
    np.testing.assert_allclose(found, expected, atol=0.51)
    assert client.get("/sample", params={"num": 3, "seed": 7, "label": 2}).content == answer.content
    assert client.get("/sample", params={"num": 0}).status_code == 422


def test_the_server_wants_a_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = next(i for i in INSTANCES if i.cls.__name__ == "FVSBN").build()
    path = export_graph(model, tmp_path / "x.onnx", "onnx").path
    with pytest.raises(SystemExit, match="expected a file of --method decode"):
        server(path, monkeypatch)
