"Tiny models with random weights, and batches for them."

import timm
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    T5Config,
    T5ForConditionalGeneration,
)

from ftkit.data.batching import DataLoader
from ftkit.data.encoded import DenseColumn, EncodedDataset

QUIET = dict(bos_token_id=1, eos_token_id=2, pad_token_id=0)


def bert(num_labels=2):
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=60,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=48,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            num_labels=num_labels,
        )
    )


def gpt():
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=60,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=32,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **QUIET,
        )
    )


def t5():
    torch.manual_seed(0)
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=60,
            d_model=32,
            d_kv=8,
            d_ff=48,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            decoder_start_token_id=0,
            eos_token_id=2,
            pad_token_id=0,
        )
    )


def resnet(num_classes=2):
    torch.manual_seed(0)
    return timm.models.resnet.ResNet(
        timm.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=num_classes, channels=(8, 8, 16, 16)
    )


def texts(n=32, length=8, vocabulary=60, seed=0):
    "Token rows whose label says whether token 5 or token 6 stands first."
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(7, vocabulary, (n, length), generator=g)
    labels = torch.randint(0, 2, (n,), generator=g)
    ids[:, 0] = 5 + labels
    return ids, labels


def loader(*tensors, names, batch_size=8, **kw):
    "Batches over tensors with one entry per row."
    rows = EncodedDataset({"row": DenseColumn(range(len(tensors[0])))})
    return DataLoader(
        rows, lambda rows, index: {n: t[torch.as_tensor(index)] for n, t in zip(names, tensors)}, batch_size, **kw
    )


def flat(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])
