"""Implements `fedreid-pl export`."""

from __future__ import annotations

import os
from pathlib import Path

from fedreid_pl.commands.embed import load_model, model_words
from fedreid_pl.commands.words import yes_or_no
from fedreid_pl.errors import FedReIDError

EXPORT = ("out", "checkpoint", "client", "flip", "int8", "pictures", "model.name")


def export(words: list[str]) -> int:
    """Exports a trained model to a file for other programs, and compares the features of the file and the model."""
    options, (run,) = model_words(words, "export RUN out=model.onnx", EXPORT, 1)
    if "out" not in options:
        raise FedReIDError("export: give the file to write, out=model.onnx (or .torchscript, .pt2, .safetensors)")
    flip = yes_or_no("flip", options.get("flip", "false"))
    int8 = yes_or_no("int8", options.get("int8", "false"))
    out = Path(os.path.expanduser(options["out"]))
    if int8 and (out.suffix != ".onnx" or "pictures" not in options):
        raise FedReIDError("int8=true: needs out=NAME.onnx and pictures=FOLDER with some hundred pictures of persons")
    model = load_model(run, options)
    from fedreid_pl.retrieval.export import export as write
    from fedreid_pl.retrieval.pictures import paths_of
    from fedreid_pl.retrieval.quantization import quantize

    if int8:
        done, cost = quantize(model, out, flip, options["pictures"])
        print(cost)
    else:
        pictures = model.read(paths_of(options["pictures"])[:256]) if "pictures" in options else None
        done = write(model, out, flip, pictures)
    size = model.card.dim
    print(f"{done.files[0]}: {done.files[0].stat().st_size / 1e6:.1f} MB, features of {size} values, flip {flip}")
    if done.agreement is not None:
        print(f"lowest cosine similarity with the model's features: {done.agreement:.6f}")
    for file in done.files[1:]:
        print(f"{file}: size and preprocessing")
    return 0
