"""Serves a generator as PNG images: `MODEL=gan.onnx uvicorn app:app`, then http://localhost:8000/sample?num=16&seed=1.

The file is made by `zoo export NAME --to onnx --out gan.onnx`. The server needs neither the zoo nor torch:
`pip install fastapi uvicorn onnxruntime pillow`.
"""

import io
import os
from typing import Annotated

import numpy as np
import onnxruntime
from fastapi import FastAPI, Query, Response
from PIL import Image

session = onnxruntime.InferenceSession(os.environ["MODEL"], providers=["CPUExecutionProvider"])
codes, *others = session.get_inputs()
if (codes.name, [other.name for other in others]) not in (("z", []), ("z", ["labels"])):
    raise SystemExit("MODEL: expected a file of --method decode")
app = FastAPI(title="Images of a generative model")


@app.get("/sample")
def sample(num: Annotated[int, Query(ge=1, le=64)] = 1, seed: int = 0, label: int = 0) -> Response:
    """A row of `num` images as PNG; the same seed gives the same images."""
    z = np.random.default_rng(abs(seed)).standard_normal((num, *codes.shape[1:]), dtype=np.float32)
    inputs = {"z": z} | {other.name: np.full(num, label) for other in others}
    (images,) = session.run(None, inputs)  # [num, C, H, W] in [0, 1]
    row = np.concatenate([*np.rint(images.clip(0, 1) * 255).astype(np.uint8)], axis=2).transpose(1, 2, 0)
    content = io.BytesIO()
    Image.fromarray(row[:, :, 0] if row.shape[2] == 1 else row).save(content, "PNG")
    return Response(content.getvalue(), media_type="image/png")
