"""Text as a model of bytes sees it: one long tensor of byte values, cut into windows of the context's length."""
import math
from pathlib import Path

import torch
from torch.nn import functional as F


def read_folder(folder):
    """All .txt files below a folder, in the order of their paths, as one tensor of byte values."""
    files = sorted(Path(folder).rglob("*.txt"))
    data = bytearray(b"\n".join(file.read_bytes() for file in files))
    if len(data) < 2:
        raise SystemExit(f"error: no text: {folder} holds no .txt file with at least two bytes")
    return torch.frombuffer(data, dtype=torch.uint8)


class Windows:
    """Inputs and the bytes that follow them: window i predicts the bytes i*context+1 … (i+1)*context."""

    def __init__(self, data, context):
        self.data, self.context = data, context
        self.count = (len(data) - 1) // context
        if self.count == 0:
            raise SystemExit(f"error: {len(data)} bytes of text are too few, the context takes {context + 1}")

    def batch(self, indices):
        rows = [self.data[i * self.context:(i + 1) * self.context + 1] for i in indices]
        rows = torch.stack(rows).long()
        return rows[:, :-1], rows[:, 1:]


def negative_log_likelihood(model, inputs, targets, reduction="mean"):
    logits, _ = model(inputs)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction=reduction)


@torch.inference_mode()
def measure(model, data, batch=32):
    """Mean loss over every byte of `data` but the first, each predicted once, and what follows from it."""
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    context = model.config.max_position_embeddings
    scored = len(data) - 1
    whole = scored // context
    pieces = []
    for begin in range(0, whole, batch):
        pieces.append(Windows(data, context).batch(range(begin, min(begin + batch, whole))))
    if scored % context:
        rest = data[whole * context:].long().unsqueeze(0)
        pieces.append((rest[:, :-1], rest[:, 1:]))
    total = sum(negative_log_likelihood(model, inputs.to(device), targets.to(device), "sum").item()
                for inputs, targets in pieces)
    model.train(training)
    loss = total / scored
    return {"perplexity": math.exp(loss), "bits_per_byte": loss / math.log(2), "loss": loss, "bytes": scored}
