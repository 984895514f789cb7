"""Tunes a model on new text: a LoRA adapter on frozen weights, or all the weights (FineTune).

The output folder holds the tuned model, ready to be evaluated and served as it is; LoRA's adapter is kept by
itself in adapter/ below it.
"""
from threads import set_threads  # before torch

import torch

from model import LoRAModel, load_model
from trainer import Ranks, Trainer, argument_parser, positive


def parse_arguments(argv=None):
    parser = argument_parser(__doc__, learning_rate=1e-4, lr_scheduler_type="linear", per_device_train_batch_size=1,
                             num_train_epochs=1.0)
    parser.add_argument("--model_dir", required=True, help="the model to start from")
    parser.add_argument("--fine_tune_strategy", choices=("LoRA", "FineTune"), default="LoRA")
    parser.add_argument("--lora_r", type=positive(int), default=8, help="rank of the adapter")
    parser.add_argument("--lora_alpha", type=positive(float), default=16.0, help="scale of the adapter, over r")
    parser.add_argument("--lora_dropout", type=float, default=0.05)
    return parser.parse_args(argv)


def main(argv=None):
    arguments = parse_arguments(argv)
    set_threads()
    model = load_model(arguments.model_dir)
    if arguments.fine_tune_strategy == "LoRA":
        torch.manual_seed(arguments.seed)  # the adapter starts from random weights, alike in every rank
        model = LoRAModel(model, arguments.lora_r, arguments.lora_alpha, arguments.lora_dropout, arguments.model_dir)
    trainer = Trainer(model, arguments, Ranks())
    trainer.train()

    def save(folder):
        if arguments.fine_tune_strategy == "LoRA":
            model.save(folder / "adapter")
            model.merge().save(folder)
        else:
            model.save(folder)

    trainer.finish(save)


if __name__ == "__main__":
    main()
