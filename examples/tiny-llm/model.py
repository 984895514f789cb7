"""A small decoder of the LLaMA family over bytes, and LoRA adapters for it.

Files, tensor names and shapes are those of Hugging Face's LlamaForCausalLM and of PEFT, so that any tool that
reads such folders reads these. There is no tokenizer: a token is a byte of UTF-8 text.
"""
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from storage import load_tensors, read_json, save_tensors, write_json

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass
class Config:
    """config.json, with Hugging Face's names. The values are a model of 357,000 parameters."""

    hidden_size: int = 96
    intermediate_size: int = 256
    num_hidden_layers: int = 3
    num_attention_heads: int = 3
    max_position_embeddings: int = 128
    vocab_size: int = 256
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    tie_word_embeddings: bool = True
    initializer_range: float = 0.02
    architectures: list = field(default_factory=lambda: ["LlamaForCausalLM"])
    model_type: str = "llama"
    hidden_act: str = "silu"
    torch_dtype: str = "float32"
    bos_token_id: int = None
    eos_token_id: int = None
    tokenizer: str = "none: a token is a byte of UTF-8 text, its id the byte's value"

    def __post_init__(self):
        if self.model_type != "llama" or self.vocab_size != 256:
            raise ValueError("config.json does not describe a LLaMA model over bytes (vocab_size 256)")
        if self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError("hidden_size must be a multiple of twice num_attention_heads")

    @staticmethod
    def load(folder):
        values = read_json(Path(folder) / "config.json")
        return Config(**{name: values[name] for name in Config.__dataclass_fields__ if name in values})


class RMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps)


def rotate(x, cos, sin):
    """Rotary position embedding, with the two halves of a head as the pairs' components (as in HF)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        size = config.hidden_size
        self.heads = config.num_attention_heads
        self.q_proj = nn.Linear(size, size, bias=False)
        self.k_proj = nn.Linear(size, size, bias=False)
        self.v_proj = nn.Linear(size, size, bias=False)
        self.o_proj = nn.Linear(size, size, bias=False)

    def forward(self, x, cos, sin, mask, past):
        """`past` holds the keys and values of the tokens before x; answers those of all tokens too."""
        batch, length, size = x.shape
        q, k, v = (layer(x).view(batch, length, self.heads, -1).transpose(1, 2)
                   for layer in (self.q_proj, self.k_proj, self.v_proj))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if past is not None:
            k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
        q = q * (size // self.heads) ** -0.5  # here, not on the scores, which are many more
        mixed = (q @ k.transpose(2, 3) + mask).softmax(dim=-1) @ v
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, size)), (k, v)


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x, cos, sin, mask, past):
        mixed, present = self.self_attn(self.input_layernorm(x), cos, sin, mask, past)
        x = x + mixed
        return x + self.mlp(self.post_attention_layernorm(x)), present


class Decoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

        context = config.max_position_embeddings
        half = config.hidden_size // config.num_attention_heads // 2
        frequencies = config.rope_theta ** (-torch.arange(half) / half)
        angles = torch.outer(torch.arange(context), torch.cat((frequencies, frequencies)))
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        self.register_buffer("mask", torch.full((context, context), -math.inf).triu(1), persistent=False)

    def forward(self, tokens, past):
        begin = past[0][0].shape[2] if past else 0
        end = begin + tokens.shape[1]
        x, presents = self.embed_tokens(tokens), []
        for i, layer in enumerate(self.layers):
            x, present = layer(x, self.cos[begin:end], self.sin[begin:end], self.mask[begin:end, :end],
                               past[i] if past else None)
            presents.append(present)
        return self.norm(x), presents


class LlamaForCausalLM(nn.Module):
    weights_file = "model.safetensors"

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=config.initializer_range)

    def forward(self, tokens, past=None):
        """Logits of the next byte after each of `tokens`, and the key-value cache for going on from there."""
        x, presents = self.model(tokens, past)
        tied = self.config.tie_word_embeddings
        return F.linear(x, self.model.embed_tokens.weight if tied else self.lm_head.weight), presents

    def save(self, folder):
        save_tensors(Path(folder) / self.weights_file, self.state_dict())
        # Last, because a folder with a config.json is taken for a model.
        write_json(Path(folder) / "config.json", asdict(self.config))

    def load_weights(self, folder):
        self.load_state_dict(load_tensors(Path(folder) / self.weights_file))


class LoRALinear(nn.Module):
    """A frozen linear layer plus a trained update of low rank: W x + B A x * alpha / r."""

    def __init__(self, base, settings):
        super().__init__()
        rank = settings["r"]
        self.base = base
        self.scale = settings["lora_alpha"] / rank
        self.dropout = nn.Dropout(settings["lora_dropout"])
        self.lora_A = nn.Linear(base.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False)
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B.weight)  # an untrained adapter changes nothing

    def forward(self, x):
        return self.base(x) + self.lora_B(self.lora_A(self.dropout(x))) * self.scale

    def merged(self):
        with torch.no_grad():
            self.base.weight += self.lora_B.weight @ self.lora_A.weight * self.scale
        return self.base


class LoRAModel(nn.Module):
    """A frozen model with an adapter on its linear layers; only the adapter is trained and saved."""

    weights_file = "adapter_model.safetensors"
    prefix = "base_model.model."  # of tensor names in PEFT's files

    def __init__(self, model, r, lora_alpha, lora_dropout, base, target_modules=LORA_TARGETS):
        super().__init__()
        if r < 1 or not 0 <= lora_dropout < 1:
            raise ValueError("LoRA needs a rank of 1 or more and a dropout from 0 to below 1")
        self.settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(base),
                         "r": r, "lora_alpha": lora_alpha, "lora_dropout": lora_dropout,
                         "target_modules": list(target_modules), "bias": "none"}
        self.base = model.requires_grad_(False)
        self.config = model.config
        self.replace(nn.Linear, lambda layer: LoRALinear(layer, self.settings))

    def replace(self, kind, make):
        for parent in list(self.base.modules()):
            for name in self.settings["target_modules"]:
                if isinstance(getattr(parent, name, None), kind):
                    setattr(parent, name, make(getattr(parent, name)))

    def forward(self, tokens, past=None):
        return self.base(tokens, past)

    def merge(self):
        """The model with the adapter worked into its weights: as fast as the base. This object is used up."""
        self.replace(LoRALinear, LoRALinear.merged)
        return self.base.requires_grad_(True)

    def save(self, folder):
        adapter = {self.prefix + name: value for name, value in self.base.state_dict().items() if "lora_" in name}
        save_tensors(Path(folder) / self.weights_file, adapter)
        write_json(Path(folder) / "adapter_config.json", self.settings)

    def load_weights(self, folder):
        adapter = {name.removeprefix(self.prefix): value
                   for name, value in load_tensors(Path(folder) / self.weights_file).items()}
        expected = {name for name in self.base.state_dict() if "lora_" in name}
        if expected != set(adapter):
            raise ValueError(f"the adapter in {folder} was made for other layers")
        self.base.load_state_dict(adapter, strict=False)


def load_model(folder):
    """The model in a folder; where the folder holds an adapter only, its base model with the adapter merged."""
    folder = Path(folder)
    if not (folder / "config.json").exists() and (folder / "adapter_config.json").exists():
        settings = read_json(folder / "adapter_config.json")
        base = settings["base_model_name_or_path"]
        adapted = LoRAModel(load_model(base), settings["r"], settings["lora_alpha"], settings["lora_dropout"], base,
                            settings["target_modules"])
        adapted.load_weights(folder)
        return adapted.merge()
    model = LlamaForCausalLM(Config.load(folder))
    model.load_weights(folder)
    return model
