# Copyright 2026-present the HuggingFace Inc. team.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

import argparse

import torch
from datasets import load_dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

from peft import CDDConfig, get_peft_model


def train(args: argparse.Namespace) -> None:
    tokenizer = AutoTokenizer.from_pretrained(args.base_model)
    tokenizer.pad_token = tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(args.base_model, dtype=torch.bfloat16, device_map=args.device)
    config = CDDConfig(
        task_type="CAUSAL_LM",
        n_factors=args.n_factors,
        block_size=args.block_size,
        target_modules=args.target_modules.split(","),
    )
    model = get_peft_model(model, config)
    model.print_trainable_parameters()

    def tokenize(examples):
        return tokenizer(examples[args.text_column], truncation=True, max_length=args.cutoff_len)

    dataset = load_dataset(args.data_path, split="train")
    dataset = dataset.map(tokenize, batched=True, remove_columns=dataset.column_names)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=args.output_dir,
            num_train_epochs=args.num_epochs,
            max_steps=args.max_steps,
            per_device_train_batch_size=args.batch_size,
            learning_rate=args.learning_rate,
            max_grad_norm=args.max_grad_norm,
            warmup_steps=args.warmup_steps,
            logging_steps=10,
        ),
        train_dataset=dataset,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    )
    trainer.train()
    model.save_pretrained(args.output_dir)
    tokenizer.save_pretrained(args.output_dir)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Fine-tune a causal language model with CDD")
    parser.add_argument("--base_model", default="meta-llama/Llama-3.2-1B", help="Base model path or name")
    parser.add_argument("--data_path", default="timdettmers/openassistant-guanaco", help="Dataset path or name")
    parser.add_argument("--text_column", default="text", help="Column of the dataset that holds the texts")
    parser.add_argument("--output_dir", default="cdd_adapter", help="Output directory for the adapter")
    parser.add_argument("--device", default="auto", help="Device map of the model")
    parser.add_argument("--target_modules", default="q_proj,v_proj", help="Comma-separated list of target modules")
    parser.add_argument("--n_factors", type=int, default=3, help="Number of diagonals and circulants, odd")
    parser.add_argument("--block_size", default="min", type=lambda text: int(text) if text.isdigit() else text)
    parser.add_argument("--cutoff_len", type=int, default=512, help="Largest number of tokens of a sample")
    parser.add_argument("--batch_size", type=int, default=4, help="Batch size")
    parser.add_argument("--num_epochs", type=float, default=1, help="Number of training epochs")
    parser.add_argument("--max_steps", type=int, default=-1, help="If positive, the number of training steps")
    parser.add_argument("--learning_rate", type=float, default=1e-3, help="Learning rate")
    parser.add_argument("--max_grad_norm", type=float, default=6.0, help="Norm at which the gradient is clipped")
    parser.add_argument("--warmup_steps", type=int, default=50, help="Steps in which the learning rate rises from zero")
    train(parser.parse_args())
