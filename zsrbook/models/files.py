"""Model files: a fitted model with all that it takes to use it in another catalogue.

The tensors of a safetensors file are the model's ``state``. What they mean stands in its metadata, one JSON text a field:
``zsrbook`` (the version of this form), ``model`` (its class), ``settings``, and the other fields of ``ModelFile``. Reading one
runs no code of the file.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from zsrbook.data.dataset import DataError
from zsrbook.models.anchored import Anchored, AnchoredSettings
from zsrbook.models.base import Recommender
from zsrbook.models.zesrec import ZESRec, ZESRecSettings
from zsrbook.text import TextEncoder
from zsrbook.training import Training

#: what can be in a file: class name -> the class and its settings
MODELS = {"Anchored": (Anchored, AnchoredSettings), "ZESRec": (ZESRec, ZESRecSettings)}
FORM = 1


@dataclass(frozen=True)
class ModelFile:
    """What a model file holds.

    Attributes:
        model: fitted; one of ``MODELS``.
        name: as tables print it, such as ``ZESRec-G (tuned)``.
        encoder: made the item vectors that it learned from, so it must make those of every other catalogue too.
        source: name of the data that it learned from.
        data_sha256: ``Split.sha256`` of the source's split.
        code_version: of zsrbook when it learned.
    """

    model: Recommender
    name: str
    encoder: TextEncoder
    source: str
    data_sha256: str
    code_version: str

    def write(self, path: Path) -> None:
        about = {
            "zsrbook": FORM,
            "model": type(self.model).__name__,
            "settings": asdict(self.model.settings),
            "name": self.name,
            "encoder": asdict(self.encoder),
            "source": self.source,
            "data_sha256": self.data_sha256,
            "code_version": self.code_version,
        }
        self.model.save(path, {key: json.dumps(value) for key, value in about.items()})

    @classmethod
    def read(cls, path: Path) -> Self:
        """The inverse of ``write``.

        Raises:
            DataError: no such file, no safetensors or cut short, not written by ``write``, or by a version that differs too much.
        """
        if not path.is_file():
            raise DataError(f"{path}: no such file; `python -m zsrbook export` writes one")
        try:
            with safe_open(path, "pt") as file:
                texts = file.metadata() or {}
        except SafetensorError as error:
            raise DataError(f"{path}: no safetensors file, or one that was cut short ({error}); export it again") from None
        if "zsrbook" not in texts:
            raise DataError(f"{path}: was not written by `python -m zsrbook export`, so nothing says what its tensors mean; export a model")
        try:
            about = {key: json.loads(text) for key, text in texts.items()}
            if about.pop("zsrbook") != FORM:
                raise ValueError(f"form {texts['zsrbook']}, expected {FORM}")
            model, settings = MODELS[about.pop("model")]
            values = about.pop("settings")
            fitted = model(settings(**(values | {"training": Training(**values["training"])})))
            fitted.restore(load_file(path))  # not ``load``, whose error would say to save it again
            return cls(fitted, encoder=TextEncoder(**about.pop("encoder")), **about)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            written = texts.get("code_version", "an unknown version").strip('"')
            raise DataError(f"{path}: does not fit this version of zsrbook (it was written by {written}): {error}; export it again") from None
