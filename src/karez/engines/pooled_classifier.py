"""A classifier of texts: the pooled vector of a text model, and a linear layer on it.

Its folder is one of sentence-transformers, with the modules Transformer, Pooling and Dense; the
names of the labels are in config.json, as transformers has them.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel
from transformers.modeling_outputs import SequenceClassifierOutput

from karez.engines.vector_model import Pooling, pooled

DENSE = "2_Dense"
LABELS = "labels.json"
"""File beside the dense layer: the labels, in the order of its outputs."""
DROPOUT = 0.1
_MODULES = (("0", "", "Transformer"), ("1", "1_Pooling", "Pooling"), ("2", DENSE, "Dense"))


def has_pooling(folder: Path) -> bool:
    """Whether a folder says how vectors of texts are pooled: it was trained for that."""
    return (folder / "1_Pooling" / "config.json").is_file()


def is_pooled_classifier(folder: Path) -> bool:
    """Whether a folder holds what `PooledClassifier.save_pretrained` writes.

    Other folders of sentence-transformers may have a dense layer too, which makes vectors.
    """
    return has_pooling(folder) and (folder / DENSE / LABELS).is_file()


class PooledClassifier(nn.Module):
    """Shapes: B texts, L tokens, D dimensions, C labels."""

    def __init__(self, body: Any, pooling: Pooling, dense: nn.Linear) -> None:
        """Create it of a model of transformers whose config has the labels."""
        super().__init__()
        self.body = body
        self.config = body.config
        self.pooling = pooling
        self.dropout = nn.Dropout(float(getattr(body.config, "hidden_dropout_prob", DROPOUT)))
        self.dense = dense

    @classmethod
    def new(cls, folder: Path, labels: Sequence[str]) -> Self:
        """A model with a linear layer that knows nothing yet. Raises OSError, ValueError."""
        body = AutoModel.from_pretrained(folder, dtype=torch.float32)
        body.config.id2label = dict(enumerate(labels))
        body.config.label2id = {label: number for number, label in enumerate(labels)}
        dense = nn.Linear(body.config.get_text_config().hidden_size, len(labels))
        return cls(body, Pooling.of(folder), dense)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load what `save_pretrained` wrote. Raises OSError, ValueError, KeyError."""
        body = AutoModel.from_pretrained(folder, dtype=torch.float32)
        weights = load_file(folder / DENSE / "model.safetensors")
        classes, width = weights["linear.weight"].shape
        if classes != body.config.num_labels:
            raise ValueError(f"{DENSE} has {classes} labels, config.json {body.config.num_labels}")
        dense = nn.Linear(width, classes)
        dense.load_state_dict({"weight": weights["linear.weight"], "bias": weights["linear.bias"]})
        return cls(body, Pooling.of(folder), dense)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.dense.weight.device

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        labels: torch.Tensor | None = None,
        **more: torch.Tensor,
    ) -> SequenceClassifierOutput:
        """Logits (B, C) of texts (B, L), and the mean cross-entropy where labels (B,) are given."""
        told = self.body(input_ids=input_ids, attention_mask=attention_mask, **more)
        vectors_BD = pooled(self.pooling, told.last_hidden_state, attention_mask)
        logits_BC = self.dense(self.dropout(vectors_BD))
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(logits_BC.float(), labels)
        return SequenceClassifierOutput(loss=loss, logits=logits_BC)

    def save_pretrained(self, folder: Path) -> None:
        """Write it as a folder of sentence-transformers."""
        self.body.save_pretrained(folder)
        width, pooling = self.dense.in_features, self.pooling
        _write(folder / "1_Pooling" / "config.json", _pooling_config(pooling, width))
        dense = {
            "in_features": width,
            "out_features": self.dense.out_features,
            "bias": True,
            "activation_function": "torch.nn.modules.linear.Identity",
        }
        _write(folder / DENSE / "config.json", dense)
        named = self.config.id2label
        _write(folder / DENSE / LABELS, [named[n] for n in range(self.dense.out_features)])
        weights = {f"linear.{n}": t.contiguous().cpu() for n, t in self.dense.state_dict().items()}
        save_file(weights, folder / DENSE / "model.safetensors", metadata={"format": "pt"})
        modules = [
            {"idx": n, "name": name, "path": path, "type": f"sentence_transformers.models.{kind}"}
            for n, (name, path, kind) in enumerate(_MODULES)
        ]
        _write(folder / "modules.json", modules)


def _pooling_config(pooling: Pooling, width: int) -> dict[str, Any]:
    return {
        "word_embedding_dimension": width,
        "pooling_mode_cls_token": pooling.is_first,
        "pooling_mode_mean_tokens": not pooling.is_first and not pooling.is_last,
        "pooling_mode_lasttoken": pooling.is_last,
    }


def _write(path: Path, told: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told, indent=1))
