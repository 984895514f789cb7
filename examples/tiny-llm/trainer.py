"""The training loop that pretrain.py and finetune.py share: steps, ranks, logs, checkpoints, resuming.

Argument names, log lines, checkpoint-N folders and trainer_state.json are those of Hugging Face's Trainer, so that
whatever follows such a run can follow this one.
"""
import argparse
import math
import os
import re
import shutil
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from storage import load_tensors, read_json, save_tensors, write_folder, write_json
from text import Windows, measure, negative_log_likelihood, read_folder

# Exit codes from 128 on say "not this program's fault: run it again".
EXIT_PEER_LOST = 128
EXIT_STOPPED = 128 + signal.SIGTERM


def positive(kind):
    def parse(text):
        value = kind(text)
        if not value > 0 or value == math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not a positive number")
        return value
    return parse


def argument_parser(description, **defaults):
    """The arguments common to all training; an unknown or abbreviated one is an error, never ignored."""
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False,
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--input_dir", required=True, help="folder with train/ and, optionally, validate/ of .txt")
    parser.add_argument("--output_dir", required=True, help="where the finished model goes")
    parser.add_argument("--checkpoint_dir", help="where checkpoints go; the output folder where not given")
    parser.add_argument("--learning_rate", type=positive(float))
    parser.add_argument("--lr_scheduler_type", choices=("constant", "linear", "cosine"))
    parser.add_argument("--warmup_steps", type=int, default=0)
    parser.add_argument("--weight_decay", type=float, default=0.0)
    parser.add_argument("--max_grad_norm", type=positive(float), default=1.0)
    parser.add_argument("--per_device_train_batch_size", type=positive(int))
    parser.add_argument("--num_train_epochs", type=positive(float), default=1.0)
    parser.add_argument("--max_steps", type=int, default=-1, help="where positive, counts instead of the epochs")
    parser.add_argument("--save_strategy", choices=("no", "steps", "epoch"), default="steps")
    parser.add_argument("--save_steps", type=positive(int), default=200)
    parser.add_argument("--logging_steps", type=positive(int), default=20)
    parser.add_argument("--seed", type=int, default=42)
    parser.set_defaults(**defaults)
    return parser


class Ranks:
    """This process's place among those that train together, from the environment; a lone one is rank 0 of 1."""

    def __init__(self):
        self.rank, self.count = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        cuda = torch.cuda.is_available()
        self.device = torch.device("cpu")
        if cuda:
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
            torch.cuda.set_device(self.device)
        if self.count > 1:
            try:
                dist.init_process_group("nccl" if cuda and dist.is_nccl_available() else "gloo",
                                        timeout=timedelta(minutes=5))
            except (RuntimeError, TimeoutError) as error:
                self.fail(error)

    @property
    def main(self):
        return self.rank == 0

    @property
    def device_name(self):
        """"cpu", or "cuda:0 NVIDIA H200"."""
        if self.device.type == "cpu":
            return "cpu"
        return f"{self.device} {torch.cuda.get_device_name(self.device)}"

    def say(self, *values):
        if self.main:
            print(*values, flush=True)

    def broadcast(self, value):
        """Rank 0's whole number, in every rank."""
        if self.count == 1:
            return value
        box = torch.tensor([value], device=self.device)
        self.collective(dist.broadcast, box, 0)
        return int(box.item())

    def average(self, tensors):
        """Replaces each tensor by its mean over the ranks, in one exchange."""
        if self.count == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        self.collective(dist.all_reduce, flat)
        flat /= self.count
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors])):
            tensor.copy_(part.view_as(tensor))

    def collective(self, operation, *arguments):
        try:
            operation(*arguments)
        except RuntimeError as error:
            self.fail(error)

    def fail(self, error):
        print(f"error: rank {self.rank} lost touch with the others: {error}", file=sys.stderr, flush=True)
        # Not sys.exit: leaving in order would wait for the lost ones.
        os._exit(EXIT_PEER_LOST)


def complete_checkpoints(folder):
    """The steps of the checkpoints in a folder, in order. They get their names when complete (write_folder)."""
    names = (re.fullmatch(r"checkpoint-(\d+)", path.name) for path in Path(folder).glob("checkpoint-*"))
    steps = sorted(int(name[1]) for name in names if name)
    return [step for step in steps if (Path(folder) / f"checkpoint-{step}" / "trainer_state.json").is_file()]


class Trainer:
    """Trains the parameters of `model` that ask for it. `model` has save, load_weights and config (model.py)."""

    def __init__(self, model, arguments, ranks):
        self.arguments, self.ranks = arguments, ranks
        self.model = model.to(ranks.device).train()
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=arguments.learning_rate, betas=(0.9, 0.99),
                                           weight_decay=arguments.weight_decay)
        self.checkpoints = Path(arguments.checkpoint_dir or arguments.output_dir)

        source = Path(arguments.input_dir)
        self.windows = Windows(read_folder(source / "train"), model.config.max_position_embeddings)
        self.validation = read_folder(source / "validate") if (source / "validate").is_dir() else None
        self.batch_size = arguments.per_device_train_batch_size * ranks.count
        self.steps_per_epoch = math.ceil(self.windows.count / self.batch_size)
        self.max_steps = (arguments.max_steps if arguments.max_steps > 0
                          else math.ceil(arguments.num_train_epochs * self.steps_per_epoch))
        self.step, self.history = 0, []
        self.order, self.order_epoch = None, -1
        self.stopping = False

    def train(self):
        """Runs to the last step. Weights, order of data and dropout depend on the arguments only: a resumed run
        repeats an uninterrupted one."""
        signal.signal(signal.SIGTERM, self.request_stop)
        self.ranks.say(f"device: {self.ranks.device_name}")
        self.resume()
        self.ranks.say(f"training {sum(p.numel() for p in self.parameters)} parameters, steps {self.step} to "
                       f"{self.max_steps}, batch {self.batch_size}, {self.windows.count} windows of "
                       f"{self.windows.context} bytes, {self.ranks.count} rank(s) on {self.ranks.device.type}")
        started, first, losses = time.monotonic(), self.step, []
        while self.step < self.max_steps:
            losses.append(self.train_step())
            if self.step % self.arguments.logging_steps == 0 or self.step == self.max_steps:
                self.log(loss=round(sum(losses) / len(losses), 4), learning_rate=self.learning_rate(self.step - 1))
                losses.clear()
            saving = self.save_is_due()
            if saving and self.validation is not None and self.ranks.main:
                result = measure(self.model, self.validation)
                self.log(eval_loss=round(result["loss"], 4), eval_perplexity=round(result["perplexity"], 4))
            if saving or (self.stopping and self.arguments.save_strategy != "no"):
                self.save_checkpoint()
            if self.stopping and self.step < self.max_steps:
                self.ranks.say(f"stopped at step {self.step}")
                sys.exit(EXIT_STOPPED)
        seconds = max(time.monotonic() - started, 1e-3)
        self.log(train_runtime=round(seconds, 3), train_steps_per_second=round((self.step - first) / seconds, 3))

    def train_step(self):
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(self.step)
        # Seeded anew at every step, so that nothing random has to be kept in a checkpoint.
        torch.manual_seed(self.seed_of(self.step) * 4096 + self.ranks.rank)
        inputs, targets = self.windows.batch(self.batch_indices())
        loss = negative_log_likelihood(self.model, inputs.to(self.ranks.device), targets.to(self.ranks.device))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        loss = loss.detach()
        self.ranks.average([loss] + [p.grad for p in self.parameters])
        torch.nn.utils.clip_grad_norm_(self.parameters, self.arguments.max_grad_norm)
        self.optimizer.step()
        self.step += 1
        return loss.item()

    def batch_indices(self):
        """This rank's share of the step's windows. An epoch takes each once, in an order of its own."""
        epoch, place = divmod(self.step, self.steps_per_epoch)
        if epoch != self.order_epoch:
            generator = torch.Generator().manual_seed(self.seed_of(epoch))
            self.order = torch.randperm(self.windows.count, generator=generator).tolist()
            self.order_epoch = epoch
        size = self.arguments.per_device_train_batch_size
        begin = place * self.batch_size + self.ranks.rank * size
        # The last batch of an epoch is filled up from its first windows.
        return [self.order[i % self.windows.count] for i in range(begin, begin + size)]

    def seed_of(self, number):
        return (self.arguments.seed * 1_000_003 + number) % (1 << 48)

    def learning_rate(self, step):
        peak, warmup = self.arguments.learning_rate, self.arguments.warmup_steps
        if step < warmup:
            return peak * (step + 1) / warmup
        left = (self.max_steps - step) / max(1, self.max_steps - warmup)
        return peak * {"constant": 1.0, "linear": left,
                       "cosine": 0.5 - 0.5 * math.cos(math.pi * left)}[self.arguments.lr_scheduler_type]

    def log(self, **values):
        values["epoch"] = round(self.step / self.steps_per_epoch, 4)
        self.ranks.say(values)
        self.history.append({**values, "step": self.step})

    def state(self):
        return {"global_step": self.step, "max_steps": self.max_steps, "epoch": self.step / self.steps_per_epoch,
                "num_train_epochs": math.ceil(self.max_steps / self.steps_per_epoch),
                "train_batch_size": self.arguments.per_device_train_batch_size, "world_size": self.ranks.count,
                "logging_steps": self.arguments.logging_steps, "save_steps": self.arguments.save_steps,
                "is_world_process_zero": self.ranks.main, "log_history": self.history}

    def save_is_due(self):
        if self.arguments.save_strategy == "no":
            return False
        every = self.arguments.save_steps if self.arguments.save_strategy == "steps" else self.steps_per_epoch
        return self.step % every == 0 or self.step == self.max_steps

    def save_checkpoint(self):
        path = self.checkpoints / f"checkpoint-{self.step}"
        if self.ranks.main:
            write_folder(path, self.fill_checkpoint)
            self.ranks.say(f"saved {path}")

    def fill_checkpoint(self, folder):
        self.model.save(folder)
        state = self.optimizer.state_dict()["state"]
        save_tensors(folder / "optimizer.safetensors",
                     {f"{i}.{name}": value for i, values in state.items() for name, value in values.items()})
        write_json(folder / "trainer_state.json", self.state())

    def resume(self):
        """Goes on from the newest complete checkpoint. Rank 0 chooses, so that all go on from the same one."""
        self.step = self.ranks.broadcast(max(complete_checkpoints(self.checkpoints), default=0)
                                         if self.ranks.main else 0)
        if self.ranks.main:
            for leftover in self.checkpoints.glob(".checkpoint-*.tmp"):
                shutil.rmtree(leftover)
        if self.step == 0:
            return
        path = self.checkpoints / f"checkpoint-{self.step}"
        self.ranks.say(f"resuming from {path} at step {self.step}")
        try:
            self.model.load_weights(path)
        except (OSError, RuntimeError, ValueError) as error:
            sys.exit(f"error: {path} does not fit this run: {error}")
        self.history = read_json(path / "trainer_state.json")["log_history"]
        state = {}
        for key, value in load_tensors(path / "optimizer.safetensors").items():
            index, name = key.split(".", 1)
            state.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})

    def finish(self, save):
        """Lets rank 0 write the result with `save(folder)`, and the run's history beside it."""
        if self.ranks.main:
            output = Path(self.arguments.output_dir)
            save(output)
            write_json(output / "trainer_state.json", self.state())
            self.ranks.say(f"saved {output}")
        if self.ranks.count > 1:
            self.ranks.collective(dist.barrier)
            dist.destroy_process_group()

    def request_stop(self, *_):
        self.stopping = True
