"""Architectures with tiny configurations and random weights: what their anatomy must be.

Each entry names a class, its sizes, how many blocks it has, how many attentions its blocks hold, and its head.
"""

import timm
import torch
import torchvision
import transformers as hf

TEXT = dict(vocab_size=60, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48)
ROTARY = dict(**TEXT, num_key_value_heads=2, head_dim=8, pad_token_id=0, max_position_embeddings=64)
EXPERTS = dict(num_experts=4, num_local_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
IMAGE = dict(
    hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48, image_size=32, patch_size=8
)
SPEECH = dict(
    vocab_size=60,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=48,
    conv_dim=(16, 16),
    conv_stride=(5, 2),
    conv_kernel=(10, 3),
    num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=2,
    classifier_proj_size=16,
)
PAIR = dict(
    vocab_size=60,
    d_model=32,
    encoder_layers=2,
    decoder_layers=3,
    encoder_attention_heads=4,
    decoder_attention_heads=4,
    encoder_ffn_dim=48,
    decoder_ffn_dim=48,
    max_position_embeddings=64,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    decoder_start_token_id=2,
)
T5 = dict(
    vocab_size=60,
    d_model=32,
    d_kv=8,
    d_ff=48,
    num_layers=2,
    num_decoder_layers=3,
    num_heads=4,
    decoder_start_token_id=0,
    pad_token_id=0,
)


def both(**inner):
    "The two towers of a dual encoder."
    return dict(
        text_config=dict(**TEXT, max_position_embeddings=40), vision_config=dict(IMAGE), projection_dim=16, **inner
    )


# name -> (class, configuration's options, blocks, attentions in blocks, head)
TRANSFORMERS = {
    "bert": ("BertForSequenceClassification", TEXT, 3, 3, ["classifier"]),
    "bert for tokens": ("BertForTokenClassification", TEXT, 3, 3, ["classifier"]),
    "bert for masked words": ("BertForMaskedLM", TEXT, 3, 3, ["cls"]),
    "roberta": ("RobertaForSequenceClassification", TEXT, 3, 3, ["classifier"]),
    "xlm-roberta": ("XLMRobertaForSequenceClassification", TEXT, 3, 3, ["classifier"]),
    "camembert": ("CamembertForSequenceClassification", TEXT, 3, 3, ["classifier"]),
    "electra": ("ElectraForSequenceClassification", dict(**TEXT, embedding_size=16), 3, 3, ["classifier"]),
    "distilbert": (
        "DistilBertForSequenceClassification",
        dict(vocab_size=60, dim=32, n_layers=3, n_heads=4, hidden_dim=48),
        3,
        3,
        ["pre_classifier", "classifier"],
    ),
    "deberta-v2": ("DebertaV2ForSequenceClassification", TEXT, 3, 3, ["classifier"]),
    "mpnet": ("MPNetForSequenceClassification", TEXT, 3, 3, ["classifier"]),
    "modernbert": ("ModernBertForSequenceClassification", dict(**TEXT, pad_token_id=0), 3, 3, ["head", "classifier"]),
    "convbert": ("ConvBertForSequenceClassification", dict(**TEXT, embedding_size=32), 3, 3, ["classifier"]),
    "roformer": ("RoFormerForSequenceClassification", TEXT, 3, 3, ["classifier"]),
    "megatron-bert": ("MegatronBertForSequenceClassification", TEXT, 3, 3, ["classifier"]),
    "fnet": (
        "FNetForSequenceClassification",
        {k: v for k, v in TEXT.items() if k != "num_attention_heads"},
        3,
        0,
        ["classifier"],
    ),
    "longformer": ("LongformerForSequenceClassification", dict(**TEXT, attention_window=4), 3, 3, ["classifier"]),
    "xlnet": (
        "XLNetForSequenceClassification",
        dict(vocab_size=60, d_model=32, n_layer=3, n_head=4, d_inner=48),
        3,
        0,
        ["logits_proj"],
    ),  # its attention holds bare parameters, no modules
    "gpt2": ("GPT2LMHeadModel", dict(vocab_size=60, n_embd=32, n_layer=3, n_head=4, n_positions=40), 3, 3, ["lm_head"]),
    "gpt2 for classes": (
        "GPT2ForSequenceClassification",
        dict(vocab_size=60, n_embd=32, n_layer=3, n_head=4, n_positions=40, pad_token_id=0),
        3,
        3,
        ["score"],
    ),
    "gpt-neo": (
        "GPTNeoForCausalLM",
        dict(
            vocab_size=60,
            hidden_size=32,
            num_layers=2,
            num_heads=4,
            intermediate_size=48,
            attention_types=[[["global", "local"], 1]],
        ),
        2,
        2,
        ["lm_head"],
    ),
    "gpt-neox": ("GPTNeoXForCausalLM", TEXT, 3, 3, ["lm_head"]),
    "gptj": ("GPTJForCausalLM", dict(vocab_size=60, n_embd=32, n_layer=3, n_head=4, rotary_dim=4), 3, 3, ["lm_head"]),
    "opt": (
        "OPTForCausalLM",
        dict(
            vocab_size=60,
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            ffn_dim=48,
            word_embed_proj_dim=32,
        ),
        3,
        3,
        ["lm_head"],
    ),
    "bloom": ("BloomForCausalLM", dict(vocab_size=60, hidden_size=32, n_layer=3, n_head=4), 3, 3, ["lm_head"]),
    "falcon": (
        "FalconForCausalLM",
        dict(vocab_size=60, hidden_size=32, num_hidden_layers=3, num_attention_heads=4),
        3,
        3,
        ["lm_head"],
    ),
    "mpt": ("MptForCausalLM", dict(vocab_size=60, d_model=32, n_layers=3, n_heads=4), 3, 3, ["lm_head"]),
    "codegen": (
        "CodeGenForCausalLM",
        dict(vocab_size=60, n_embd=32, n_layer=3, n_head=4, rotary_dim=4),
        3,
        3,
        ["lm_head"],
    ),
    "llama": ("LlamaForCausalLM", ROTARY, 3, 3, ["lm_head"]),
    "llama for classes": ("LlamaForSequenceClassification", ROTARY, 3, 3, ["score"]),
    "mistral": ("MistralForCausalLM", ROTARY, 3, 3, ["lm_head"]),
    "qwen2": ("Qwen2ForCausalLM", ROTARY, 3, 3, ["lm_head"]),
    "qwen3": ("Qwen3ForCausalLM", ROTARY, 3, 3, ["lm_head"]),
    "gemma": ("GemmaForCausalLM", ROTARY, 3, 3, ["lm_head"]),
    "gemma2": ("Gemma2ForCausalLM", ROTARY, 3, 3, ["lm_head"]),
    "phi": ("PhiForCausalLM", {k: v for k, v in ROTARY.items() if k != "head_dim"}, 3, 3, ["lm_head"]),
    "phi3": ("Phi3ForCausalLM", ROTARY, 3, 3, ["lm_head"]),
    "stablelm": ("StableLmForCausalLM", ROTARY, 3, 3, ["lm_head"]),
    "olmo2": ("Olmo2ForCausalLM", ROTARY, 3, 3, ["lm_head"]),
    "cohere": ("CohereForCausalLM", ROTARY, 3, 3, ["lm_head"]),
    "granite": ("GraniteForCausalLM", ROTARY, 3, 3, ["lm_head"]),
    "smollm3": ("SmolLM3ForCausalLM", ROTARY, 3, 3, ["lm_head"]),
    "mixtral": ("MixtralForCausalLM", dict(**ROTARY, num_local_experts=4), 3, 3, ["lm_head"]),
    "qwen3 with experts": (
        "Qwen3MoeForCausalLM",
        dict(**ROTARY, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16),
        3,
        3,
        ["lm_head"],
    ),
    "t5": ("T5ForConditionalGeneration", T5, 5, 8, ["lm_head"]),
    "t5 encoder": ("T5EncoderModel", T5, 2, 2, []),
    "mt5": ("MT5ForConditionalGeneration", T5, 5, 8, ["lm_head"]),
    "bart": ("BartForConditionalGeneration", PAIR, 5, 8, ["lm_head"]),
    "bart for classes": ("BartForSequenceClassification", PAIR, 5, 8, ["classification_head"]),
    "pegasus": ("PegasusForConditionalGeneration", PAIR, 5, 8, ["lm_head"]),
    "marian": ("MarianMTModel", PAIR, 5, 8, ["lm_head"]),
    "mbart": ("MBartForConditionalGeneration", PAIR, 5, 8, ["lm_head"]),
    "whisper": (
        "WhisperForConditionalGeneration",
        {
            **PAIR,
            "max_position_embeddings": 40,
            "max_source_positions": 20,
            "max_target_positions": 40,
            "num_mel_bins": 8,
        },
        5,
        8,
        ["proj_out"],
    ),
    "whisper for classes": (
        "WhisperForAudioClassification",
        {**PAIR, "max_source_positions": 20, "num_mel_bins": 8, "classifier_proj_size": 16},
        2,
        2,
        ["projector", "classifier"],
    ),
    "wav2vec2 for classes": ("Wav2Vec2ForSequenceClassification", SPEECH, 3, 3, ["projector", "classifier"]),
    "wav2vec2 with ctc": ("Wav2Vec2ForCTC", SPEECH, 3, 3, ["lm_head"]),
    "hubert": ("HubertForSequenceClassification", SPEECH, 3, 3, ["projector", "classifier"]),
    "ast": (
        "ASTForAudioClassification",
        dict(
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=48,
            max_length=40,
            num_mel_bins=32,
        ),
        3,
        3,
        ["classifier"],
    ),
    "vit": ("ViTForImageClassification", IMAGE, 3, 3, ["classifier"]),
    "deit": ("DeiTForImageClassification", IMAGE, 3, 3, ["classifier"]),
    "beit": ("BeitForImageClassification", IMAGE, 3, 3, ["classifier"]),
    "dinov2": ("Dinov2ForImageClassification", IMAGE, 3, 3, ["classifier"]),
    "swin": (
        "SwinForImageClassification",
        dict(image_size=32, patch_size=4, embed_dim=16, depths=[1, 2], num_heads=[2, 4], window_size=4),
        3,
        3,
        ["classifier"],
    ),
    "convnext": (
        "ConvNextForImageClassification",
        dict(hidden_sizes=[8, 16], depths=[1, 2], num_stages=2),
        3,
        0,
        ["classifier"],
    ),
    "resnet": (
        "ResNetForImageClassification",
        dict(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type="basic"),
        3,
        0,
        ["classifier"],
    ),
    "regnet": (
        "RegNetForImageClassification",
        dict(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], groups_width=8),
        3,
        0,
        ["classifier"],
    ),
    "clip": ("CLIPModel", both(), 6, 6, ["visual_projection", "text_projection"]),
    "siglip": (
        "SiglipModel",
        {k: v for k, v in both().items() if k != "projection_dim"},
        6,
        7,
        ["text_model.head"],
    ),  # the seventh pools the picture
    "blip": ("BlipModel", both(), 6, 9, ["visual_projection", "text_projection"]),
}

# name -> (blocks, head)
TIMM = {
    "resnet18": (8, ["fc"]),
    "resnet50": (16, ["fc"]),
    "wide_resnet50_2": (16, ["fc"]),
    "resnext50_32x4d": (16, ["fc"]),
    "seresnet50": (16, ["fc"]),
    "vit_tiny_patch16_224": (12, ["head"]),
    "deit_tiny_patch16_224": (12, ["head"]),
    "beit_base_patch16_224": (12, ["head"]),
    "swin_tiny_patch4_window7_224": (12, ["head"]),
    "convnext_atto": (12, ["head"]),
    "convnextv2_atto": (12, ["head"]),
    "mobilenetv3_small_050": (11, ["classifier"]),
    "efficientnet_b0": (16, ["classifier"]),
    "mobilenetv2_050": (17, ["classifier"]),
    "densenet121": (58, ["classifier"]),
    "vgg11": (10, ["head"]),
    "mixer_s16_224": (8, ["head"]),
    "regnetx_002": (13, ["head"]),
    "eva02_tiny_patch14_224": (12, ["head"]),
    "cait_xxs24_224": (26, ["head"]),
    "xcit_nano_12_p16_224": (14, ["head"]),
    "poolformer_s12": (12, ["head"]),
    "levit_128s": (9, ["head", "head_dist"]),
    "mobilevit_xxs": (16, ["head"]),
}

# name -> (blocks, head)
TORCHVISION = {
    "resnet18": (8, ["fc"]),
    "resnet50": (16, ["fc"]),
    "vit_b_32": (12, ["heads"]),
    "swin_t": (12, ["head"]),
    "convnext_tiny": (18, ["classifier"]),
    "efficientnet_b0": (16, ["classifier"]),
    "mobilenet_v3_small": (11, ["classifier"]),
    "densenet121": (58, ["classifier"]),
    "regnet_y_400mf": (16, ["fc"]),
}


def from_transformers(name):
    "A tiny model of an architecture."
    kind, options, *_ = TRANSFORMERS[name]
    torch.manual_seed(0)
    model = getattr(hf, kind)
    return model(model.config_class(**options))


def from_timm(name):
    return timm.create_model(name, num_classes=3)


def from_torchvision(name):
    return torchvision.models.get_model(name, weights=None)
