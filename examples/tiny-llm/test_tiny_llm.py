"""Tests of the example: /usr/bin/python3 -m unittest, in this folder."""
import contextlib
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import evaluate
import finetune
import pretrain

import torch

from model import Config, LlamaForCausalLM, LoRAModel, load_model
from storage import load_tensors, read_json, save_tensors
from trainer import EXIT_STOPPED, Ranks, Trainer, complete_checkpoints

HERE = Path(__file__).parent
SHAPE = ["--hidden_size", "16", "--intermediate_size", "24", "--num_hidden_layers", "2", "--num_attention_heads", "2",
         "--max_position_embeddings", "32", "--per_device_train_batch_size", "2", "--logging_steps", "1"]


def run(main, *arguments):
    """Runs a script's main in this process; answers what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        main([str(argument) for argument in arguments])
    return printed.getvalue()


def command(code, *arguments):
    """The command that runs a script, or a piece of Python with the scripts at hand, in a process of its own."""
    start = [str(HERE / code)] if code.endswith(".py") else ["-c", code]
    return [sys.executable, "-B", *start, *map(str, arguments)]


def environment(**values):
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE), **values}


def small_model(**values):
    torch.manual_seed(1)
    return LlamaForCausalLM(Config(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
                                   max_position_embeddings=32, initializer_range=0.2, **values)).eval()


class Case(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        torch.set_num_threads(1)

    def train_arguments(self, name, *more):
        return ["--input_dir", HERE / "data" / "tune", "--output_dir", self.folder / name,
                "--checkpoint_dir", self.folder / f"{name}-checkpoints", *SHAPE, *more]

    def assert_same_weights(self, one, other, tolerance=0.0):
        one, other = (load_tensors(self.folder / name / "model.safetensors") for name in (one, other))
        self.assertEqual(one.keys(), other.keys())
        for name in one:
            self.assertTrue(torch.allclose(one[name], other[name], rtol=0, atol=tolerance), name)


class ModelTest(Case):
    tokens = torch.tensor([list(b"In the beginning was the Word")])

    def test_tensors_survive_a_file(self):
        tensors = {"a": torch.randn(3, 5), "b": torch.tensor(7.0), "c": torch.arange(4), "d": torch.randn(2).bfloat16(),
                   "e": torch.randn(4, 2).t()}
        save_tensors(self.folder / "x.safetensors", tensors)
        loaded = load_tensors(self.folder / "x.safetensors")
        for name, tensor in tensors.items():
            self.assertTrue(torch.equal(loaded[name], tensor), name)
            self.assertEqual(loaded[name].dtype, tensor.dtype)

    def test_model_survives_a_folder(self):
        for tied in (True, False):
            model = small_model(tie_word_embeddings=tied)
            model.save(self.folder)
            self.assertTrue(torch.equal(load_model(self.folder)(self.tokens)[0], model(self.tokens)[0]))
            self.assertEqual("lm_head.weight" in load_tensors(self.folder / "model.safetensors"), not tied)
        self.assertEqual(read_json(self.folder / "config.json")["architectures"], ["LlamaForCausalLM"])

    def test_cache_changes_nothing(self):
        model, past, steps = small_model(), None, []
        for token in self.tokens[0]:
            logits, past = model(token.view(1, 1), past)
            steps.append(logits)
        self.assertTrue(torch.allclose(torch.cat(steps, dim=1), model(self.tokens)[0], atol=1e-5))

    def test_the_future_is_not_seen(self):
        changed = self.tokens.clone()
        changed[0, 20] = 0
        model = small_model()
        self.assertTrue(torch.equal(model(changed)[0][:, :20], model(self.tokens)[0][:, :20]))

    def test_merged_adapter_equals_adapter(self):
        small_model().save(self.folder / "base")
        base_logits = small_model()(self.tokens)[0]
        adapted = LoRAModel(load_model(self.folder / "base"), 4, 8, 0.1, self.folder / "base").eval()
        self.assertTrue(torch.equal(adapted(self.tokens)[0], base_logits), "an untrained adapter changes nothing")
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        expected = adapted(self.tokens)[0]
        self.assertFalse(torch.allclose(expected, base_logits, atol=0.1))
        adapted.save(self.folder / "adapter")
        loaded = load_model(self.folder / "adapter").eval()
        self.assertTrue(torch.allclose(loaded(self.tokens)[0], expected, atol=1e-5))
        adapted.merge().save(self.folder / "merged")
        merged = load_model(self.folder / "merged").eval()
        self.assertTrue(torch.allclose(merged(self.tokens)[0], expected, atol=1e-5))


class TrainingTest(Case):
    def test_resumed_run_equals_uninterrupted_run(self):
        """Dropout, the order of the data, the optimizer and the schedule all go on where they were."""
        small_model().save(self.folder / "base")
        tune = ["--model_dir", self.folder / "base", "--input_dir", HERE / "data" / "tune", "--learning_rate", "1e-2",
                "--max_steps", "6", "--save_steps", "3", "--logging_steps", "1"]
        for strategy in ("LoRA", "FineTune"):
            with self.subTest(strategy):
                names = [f"{strategy}-{part}" for part in ("whole", "resumed")]
                whole, resumed = ([*tune, "--fine_tune_strategy", strategy, "--output_dir", self.folder / name,
                                   "--checkpoint_dir", self.folder / f"{name}-checkpoints"] for name in names)
                first = run(finetune.main, *whole)
                kept = self.folder / f"{names[1]}-checkpoints" / "checkpoint-3"
                shutil.copytree(self.folder / f"{names[0]}-checkpoints" / "checkpoint-3", kept)
                second = run(finetune.main, *resumed)
                self.assertNotIn("resuming", first)
                self.assertIn(f"resuming from {kept} at step 3\n", second)
                self.assert_same_weights(*names)
                history = read_json(self.folder / names[1] / "trainer_state.json")["log_history"]
                self.assertEqual([entry["step"] for entry in history if "loss" in entry], [1, 2, 3, 4, 5, 6])

    def test_killed_while_saving(self):
        """A checkpoint cut short has no name yet: the run goes on from the one before and clears up."""
        arguments = self.train_arguments("killed", "--max_steps", "6", "--save_steps", "2")
        code = ("import os, pretrain, storage\n"
                "def rename(source, target, rename=os.rename):\n"
                "    os.kill(os.getpid(), 9) if 'checkpoint-4' in str(target) else rename(source, target)\n"
                "os.rename = rename\n"
                "pretrain.main()")
        killed = subprocess.run(command(code, *arguments), env=environment(), capture_output=True, text=True)
        self.assertEqual(killed.returncode, -signal.SIGKILL, killed.stderr)
        checkpoints = self.folder / "killed-checkpoints"
        self.assertTrue((checkpoints / ".checkpoint-4.tmp").exists())
        self.assertEqual(complete_checkpoints(checkpoints), [2])
        self.assertFalse((self.folder / "killed").exists())

        self.assertIn("at step 2\n", run(pretrain.main, *arguments))
        self.assertEqual(sorted(path.name for path in checkpoints.iterdir()),
                         ["checkpoint-2", "checkpoint-4", "checkpoint-6"])
        run(pretrain.main, *self.train_arguments("whole", "--max_steps", "6", "--save_strategy", "no"))
        self.assert_same_weights("killed", "whole")

    def test_stop_saves_first(self):
        arguments = pretrain.parse_arguments(list(map(str, self.train_arguments("stopped", "--max_steps", "9"))))
        trainer = Trainer(small_model(), arguments, Ranks())
        trainer.request_stop()
        with self.assertRaises(SystemExit) as stopped, contextlib.redirect_stdout(io.StringIO()):
            trainer.train()
        self.assertEqual(stopped.exception.code, EXIT_STOPPED)
        self.assertEqual(complete_checkpoints(self.folder / "stopped-checkpoints"), [1])

    def test_two_ranks_equal_one_with_twice_the_batch(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        arguments = self.train_arguments("two", "--max_steps", "4", "--save_steps", "2")
        ranks = [subprocess.Popen(command("pretrain.py", *arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True, env=environment(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                                                             MASTER_PORT=port, GLOO_SOCKET_IFNAME="lo"))
                 for rank in range(2)]
        printed = [rank.communicate(timeout=60)[0] for rank in ranks]
        self.assertEqual([rank.returncode for rank in ranks], [0, 0], printed)
        self.assertIn("2 rank(s)", printed[0])
        self.assertEqual(printed[1], "", "only rank 0 speaks")
        run(pretrain.main, *self.train_arguments("one", "--max_steps", "4", "--per_device_train_batch_size", "4"))
        self.assert_same_weights("two", "one", tolerance=1e-4)
        losses = [[entry["loss"] for entry in read_json(self.folder / name / "trainer_state.json")["log_history"]
                   if "loss" in entry] for name in ("two", "one")]
        for two, one in zip(*losses, strict=True):
            self.assertAlmostEqual(two, one, places=3)

    def test_log_lines(self):
        printed = run(pretrain.main, *self.train_arguments("logged", "--max_steps", "2"))
        self.assertRegex(printed, r"\Adevice: (cpu|cuda:0 .+)\n")
        self.assertRegex(printed, r"(?m)^\{'loss': \d+\.\d+, 'learning_rate': \d\S*, 'epoch': \d\S*\}$")
        self.assertRegex(printed, r"(?m)^\{'eval_loss': \d+\.\d+, 'eval_perplexity': \d+\.\d+, 'epoch': \d\S*\}$")
        state = read_json(self.folder / "logged-checkpoints" / "checkpoint-2" / "trainer_state.json")
        self.assertEqual((state["global_step"], state["max_steps"]), (2, 2))

    def test_unknown_argument_is_an_error(self):
        errors = io.StringIO()
        with self.assertRaises(SystemExit), contextlib.redirect_stderr(errors):
            pretrain.main(["--input_dir", "x", "--output_dir", "y", "--learning_rat", "1"])
        self.assertIn("unrecognized arguments: --learning_rat", errors.getvalue())

    def test_config_files_name_real_arguments(self):
        paths = ["--input_dir", "i", "--output_dir", "o", "--model_dir", "m"]
        for name, parse in (("pretrain.json", pretrain.parse_arguments), ("LoRA/config.json", finetune.parse_arguments),
                            ("FineTune/config.json", finetune.parse_arguments)):
            config = read_json(HERE / "configs" / name)
            given = {entry["name"]: entry["value"]
                     for entry in config["commonHyperParameters"] + config["fineTuneHyperParameters"]}
            arguments = parse([*paths, *(word for key, value in given.items() for word in (f"--{key}", value))])
            for key, value in given.items():
                self.assertEqual(type(getattr(arguments, key))(value), getattr(arguments, key))


class EvaluationTest(Case):
    def test_same_text_same_metrics(self):
        small_model().save(self.folder / "model")
        arguments = ["--model_dir", self.folder / "model", "--input_dir", HERE / "data" / "tune", "--output_dir"]
        printed = [json.loads(run(evaluate.main, *arguments, self.folder / name)) for name in "ab"]
        self.assertEqual(printed[0], printed[1])
        self.assertEqual(printed[0], read_json(self.folder / "a" / "metrics.json"))
        text = HERE / "data" / "tune" / "test" / "devils-dictionary.txt"
        self.assertEqual(printed[0]["bytes"], text.stat().st_size - 1, "every byte but the first is predicted")

    def test_folder_without_text(self):
        small_model().save(self.folder / "model")
        with self.assertRaisesRegex(SystemExit, "no text"):
            run(evaluate.main, "--model_dir", self.folder / "model", "--input_dir", self.folder, "--output_dir",
                self.folder)


class ServingTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.temporary.cleanup)
        small_model().save(cls.temporary.name)
        cls.process = subprocess.Popen(command("serve.py", "--model_dir", cls.temporary.name), text=True,
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                       env=environment(MODEL_NAME="small", PORT="0"))
        cls.addClassCleanup(cls.process.communicate)
        cls.addClassCleanup(cls.process.kill)
        cls.port = int(cls.process.stdout.readline().rsplit(":", 1)[1])

    def setUp(self):
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        self.addCleanup(self.connection.close)

    def ask(self, method, path, body=None):
        self.connection.request(method, path, None if body is None else json.dumps(body))
        response = self.connection.getresponse()
        return response.status, response.read().decode()

    def complete(self, path="/v1/completions", **body):
        status, answer = self.ask("POST", path, {"prompt": "And", "max_tokens": 8, **body})
        self.assertEqual(status, 200, answer)
        return json.loads(answer)

    def events(self, path, body):
        status, answer = self.ask("POST", path, {**body, "stream": True})
        self.assertEqual(status, 200, answer)
        events = answer.split("\n\n")
        self.assertEqual(events[-2:], ["data: [DONE]", ""])
        return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]

    def test_health_and_metadata(self):
        for path in ("/health", "/v2/health/ready", "/v2/health/live", "/v2/models/small/ready"):
            self.assertEqual(self.ask("GET", path)[0], 200, path)
        self.assertEqual(json.loads(self.ask("GET", "/v1/models")[1])["data"][0]["id"], "small")
        self.assertEqual(json.loads(self.ask("GET", "/v2/models/small")[1])["name"], "small")
        self.assertEqual(self.ask("GET", "/v2/models/other")[0], 404)

    def test_completion(self):
        answer = self.complete()
        self.assertEqual(answer["usage"], {"prompt_tokens": 3, "completion_tokens": 8, "total_tokens": 11})
        self.assertEqual(answer["choices"][0]["finish_reason"], "length")
        self.assertEqual(self.complete(prompt=list(b"And"), seed=3)["choices"], self.complete(seed=3)["choices"])

    def test_longer_than_the_context(self):
        self.assertEqual(self.complete(prompt="x" * 100, max_tokens=100)["usage"]["completion_tokens"], 100)

    def test_stop(self):
        whole = self.complete(temperature=0, max_tokens=20)["choices"][0]["text"]
        stopped = self.complete(temperature=0, max_tokens=20, stop=[whole[3:6]])["choices"][0]
        self.assertEqual((stopped["text"], stopped["finish_reason"]), (whole[:whole.find(whole[3:6])], "stop"))

    def test_stream_equals_whole(self):
        body = {"prompt": "And", "max_tokens": 20, "seed": 5, "stream_options": {"include_usage": True}}
        chunks = self.events("/v1/completions", body)
        text = "".join(chunk["choices"][0]["text"] for chunk in chunks[:-1])
        whole = self.complete(max_tokens=20, seed=5)
        self.assertEqual(text, whole["choices"][0]["text"])
        self.assertEqual(chunks[-1]["usage"], whole["usage"])
        self.assertEqual(chunks[-2]["choices"][0]["finish_reason"], "length")

    def test_chat_stream(self):
        chunks = self.events("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hello"}],
                                                      "max_completion_tokens": 5})
        self.assertEqual(chunks[0]["choices"][0]["delta"]["role"], "assistant")
        self.assertEqual(chunks[-1]["choices"][0]["finish_reason"], "length")

    def test_bad_requests(self):
        chat = "/v1/chat/completions"
        for path, body, param in (("/v1/completions", {}, "prompt"), ("/v1/completions", [], None),
                                  ("/v1/completions", {"prompt": "a", "max_tokens": 0}, "max_tokens"),
                                  ("/v1/completions", {"prompt": "a", "temperature": "hot"}, "temperature"),
                                  ("/v1/completions", {"prompt": "a", "stop": [1]}, "stop"),
                                  ("/v1/completions", {"prompt": "a", "stream": 1}, "stream"),
                                  (chat, {"messages": []}, "messages"), (chat, {"messages": ["hi"]}, "messages")):
            with self.subTest(body=body):
                status, answer = self.ask("POST", path, body)
                self.assertEqual(status, 400)
                self.assertEqual(json.loads(answer)["error"]["param"], param)
        self.connection.request("POST", "/v1/completions", "{")
        self.assertEqual(self.connection.getresponse().status, 400)

    def test_leaving_ends_the_work(self):
        for stream in (True, False):
            with socket.create_connection(("127.0.0.1", self.port)) as client:
                body = json.dumps({"prompt": "a", "max_tokens": 4096, "stream": stream}).encode()
                client.sendall(b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                if stream:
                    client.recv(1)
        left = 0
        while left < 2:
            line = self.process.stderr.readline()
            self.assertTrue(line, "the server ended")
            self.assertNotIn("4096 tokens", line)
            left += "the client left" in line

    def test_term_ends_the_server(self):
        with subprocess.Popen(command("serve.py", "--model_dir", self.temporary.name, "--port", 0), text=True,
                              stdout=subprocess.PIPE, env=environment()) as server:
            server.stdout.readline()
            server.terminate()
            self.assertEqual(server.wait(10), 0)


if __name__ == "__main__":
    unittest.main()
