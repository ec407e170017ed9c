"""Every key of transformers' configuration classes, and what changes where a key has another value: test/fixtures/models/config-keys.json.

For each class of networks a tiny configuration is built twice, with a key as it is and with another value. Weights and inputs
are sines of their places, so that voxtorch computes the same without a file of them. What changes is one of

  shapes    names and shapes of the state dictionary
  initial   first values from one seed
  output    logits or last hidden states, in evaluation mode
  loss      the loss in evaluation mode, its gradients included
  training  the same in training mode, from one seed
  refused   transformers refuses the value

or nothing. `values` holds the first outputs with the other value.

    python test/reference/config_keys.py             # every class
    python test/reference/config_keys.py Whisper     # one class, the others as they are in the file
"""

import copy
import functools
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
import transformers
from peft import LoraConfig
from transformers.loss import loss_rnnt

import mimi
from parakeet import rnnt_loss

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error()
torch.set_num_threads(1)
# transformers needs torchaudio for it.
loss_rnnt.rnnt_loss = rnnt_loss
FILE = Path(__file__).parent.parent / "fixtures" / "models" / "config-keys.json"

SPEECH = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "conv_dim": [8, 8],
    "conv_kernel": [10, 3], "conv_stride": [5, 2], "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
    "vocab_size": 12, "tdnn_dim": [8, 12], "tdnn_kernel": [3, 1], "tdnn_dilation": [2, 1], "xvector_output_dim": 6,
    "classifier_proj_size": 6, "layerdrop": 0.0, "mask_time_length": 4, "mask_feature_length": 4,
}
CONFORMER = {"conv_depthwise_kernel_size": 5, "max_source_positions": 8}
MEL = {key: value for key, value in SPEECH.items() if "conv" not in key} | {
    **CONFORMER, "feature_projection_input_dim": 6, "left_max_position_embeddings": 3, "right_max_position_embeddings": 2,
}
TEXT = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 20,
}
LM = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 32, "pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2,
}
EXPERTS = {"num_experts_per_tok": 2, "output_router_logits": True, "router_aux_loss_coef": 0.5}
WHISPER = {
    "vocab_size": 60, "num_mel_bins": 8, "encoder_layers": 2, "encoder_attention_heads": 2, "decoder_layers": 2,
    "decoder_attention_heads": 2, "decoder_ffn_dim": 24, "encoder_ffn_dim": 24, "d_model": 16, "max_source_positions": 20,
    "max_target_positions": 12, "pad_token_id": 57, "bos_token_id": 57, "eos_token_id": 57, "decoder_start_token_id": 58,
    "mask_time_length": 4, "mask_feature_length": 2, "begin_suppress_tokens": None,
}
CLIP_TEXT = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "projection_dim": 8, "num_hidden_layers": 2,
    "num_attention_heads": 2, "max_position_embeddings": 12, "eos_token_id": 39, "bos_token_id": 38, "pad_token_id": 1,
}
CLIP_VISION = {
    "hidden_size": 16, "intermediate_size": 24, "projection_dim": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 8, "patch_size": 4,
}

PARAKEET = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "conv_kernel_size": 3,
    "subsampling_factor": 4, "subsampling_conv_channels": 4, "num_mel_bins": 8, "layerdrop": 0.0,
}
TRANSDUCER = {"vocab_size": 12, "blank_token_id": 11, "pad_token_id": 2, "decoder_hidden_size": 8, "num_decoder_layers": 1}
MOONSHINE = {
    "vocab_size": 20, "hidden_size": 16, "intermediate_size": 24, "encoder_num_hidden_layers": 2, "decoder_num_hidden_layers": 2,
    "encoder_num_attention_heads": 2, "decoder_num_attention_heads": 2, "max_position_embeddings": 16, "pad_token_id": 2,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
}
MIMI = {
    "sampling_rate": 4000, "hidden_size": 16, "num_filters": 4, "upsampling_ratios": [3, 2], "kernel_size": 5, "codebook_size": 8,
    "codebook_dim": 8, "vector_quantization_hidden_dimension": 8, "num_quantizers": 3, "upsample_groups": 8, "num_hidden_layers": 2,
    "intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 4, "sliding_window": 4,
    "num_residual_layers": 2,
}
PATCHES = {key: value for key, value in CLIP_VISION.items() if key != "projection_dim"}
SMOLVLM = {"text_config": {"model_type": "llama", **LM}, "vision_config": {**PATCHES, "image_size": 16}, "image_token_id": 9}

CLASSES = {
    "Bert": ("BertModel", TEXT), "Roberta": ("RobertaModel", TEXT), "RobertaForMaskedLM": ("RobertaForMaskedLM", TEXT),
    "RobertaForSequenceClassification": ("RobertaForSequenceClassification", TEXT),
    "Wav2Vec2ForCTC": ("Wav2Vec2ForCTC", SPEECH), "WavLMForCTC": ("WavLMForCTC", SPEECH),
    "Wav2Vec2ForSequenceClassification": ("Wav2Vec2ForSequenceClassification", SPEECH),
    "WavLMForXVector": ("WavLMForXVector", SPEECH),
    "HubertForCTC": ("HubertForCTC", {key: value for key, value in SPEECH.items() if not key.startswith(("tdnn", "xvector"))}),
    "Data2VecAudioForCTC": ("Data2VecAudioForCTC", {**SPEECH, "conv_pos_kernel_size": 3}),
    "Wav2Vec2ConformerForCTC": ("Wav2Vec2ConformerForCTC", {**SPEECH, **CONFORMER}),
    "Wav2Vec2BertForCTC": ("Wav2Vec2BertForCTC", MEL),
    "Wav2Vec2BertForSequenceClassification": ("Wav2Vec2BertForSequenceClassification", MEL),
    "Whisper": ("WhisperForConditionalGeneration", WHISPER),
    "Clip": ("CLIPModel", {"text_config": CLIP_TEXT, "vision_config": CLIP_VISION, "projection_dim": 8}),
    "SiglipVisionModel": ("SiglipVisionModel", PATCHES),
    "SmolVLM": ("SmolVLMForConditionalGeneration", SMOLVLM),
    "Idefics3": ("Idefics3ForConditionalGeneration", SMOLVLM),
    "Moonshine": ("MoonshineForConditionalGeneration", MOONSHINE),
    "Mimi": ("MimiModel", MIMI),
    "FastConformerEncoder": ("ParakeetEncoder", PARAKEET),
    "ParakeetForCTC": ("ParakeetForCTC", {"encoder_config": PARAKEET, "vocab_size": 12, "pad_token_id": 11}),
    "ParakeetForRNNT": ("ParakeetForRNNT", {"encoder_config": PARAKEET, **TRANSDUCER}),
    "ParakeetForTDT": ("ParakeetForTDT", {"encoder_config": PARAKEET, **TRANSDUCER}),
    "llama": ("LlamaForCausalLM", LM), "mistral": ("MistralForCausalLM", {**LM, "sliding_window": 4}),
    "qwen2": ("Qwen2ForCausalLM", LM), "phi3": ("Phi3ForCausalLM", {**LM, "sliding_window": None}),
    "qwen3": ("Qwen3ForCausalLM", {**LM, "head_dim": 4}),
    "ministral": ("MinistralForCausalLM", {**LM, "head_dim": 4, "sliding_window": 4}),
    "ministral3": ("Ministral3ForCausalLM", {**LM, "head_dim": 4}),
    "mixtral": ("MixtralForCausalLM", {**LM, **EXPERTS, "num_local_experts": 4}),
    "qwen3_moe": ("Qwen3MoeForCausalLM", {**LM, **EXPERTS, "num_experts": 4, "moe_intermediate_size": 8, "head_dim": 4}),
    "olmo2": ("Olmo2ForCausalLM", LM),
    "smollm3": ("SmolLM3ForCausalLM", {**LM, "no_rope_layer_interval": 2}),
    "granite": ("GraniteForCausalLM", LM),
    "gemma2": ("Gemma2ForCausalLM", {**LM, "head_dim": 4, "sliding_window": 4, "query_pre_attn_scalar": 4}),
    "gemma3_text": ("Gemma3ForCausalLM", {**LM, "head_dim": 4, "sliding_window": 4, "query_pre_attn_scalar": 4, "sliding_window_pattern": 2}),
}

# Another value than the tiny one, where it is not the other boolean or a little more.
OTHER = {
    "hidden_act": "relu", "hidden_activation": "relu", "encoder_hidden_act": "relu", "decoder_hidden_act": "relu", "activation_function": "relu", "feat_extract_activation": "relu", "feat_extract_norm": "layer",
    "hidden_size": 32, "d_model": 32, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 8, "conv_dim": [8, 10],
    "conv_kernel": [10, 5], "conv_stride": [5, 4], "tdnn_dim": [8, 14], "tdnn_kernel": [2, 1], "tdnn_dilation": [1, 1],
    "num_conv_pos_embeddings": 6, "num_conv_pos_embedding_groups": 4, "ctc_loss_reduction": "mean", "durations": [0, 1, 2], "adapter_attn_dim": 4,
    "num_buckets": 64, "max_bucket_distance": 40, "layer_norm_eps": 0.1, "rms_norm_eps": 0.1, "eos_token_id": 2, "image_size": 12,
    "patch_size": 2, "sliding_window": 3, "classifier_dropout": 0.5, "output_hidden_size": 20, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "pad_token_id": 3, "rope_parameters": {"rope_theta": 500.0, "rope_type": "default"},
    "chunk_size_feed_forward": 4, "suppress_tokens": [3], "begin_suppress_tokens": [3], "mask_time_prob": 0.9,
    "mask_feature_prob": 0.9, "mask_time_min_masks": 5, "mask_feature_min_masks": 3, "median_filter_width": 9,
    "max_window_layers": 0, "original_max_position_embeddings": 16, "problem_type": "regression", "layerdrop": 1.0,
    "encoder_layerdrop": 1.0, "decoder_layerdrop": 1.0, "initializer_range": 0.5, "init_std": 0.5, "attn_pdrop": 0.5,
    "decoder_start_token_id": 50, "max_source_positions": 24, "position_embeddings_type": "rotary", "adapter_act": "gelu",
    "conv_depthwise_kernel_size": 7, "rotary_embedding_base": 500, "conv_pos_kernel_size": 5, "conformer_conv_dropout": 0.5,
}
OTHER_PARAKEET = {
    "hidden_act": "tanh", "conv_kernel_size": 5, "num_mel_bins": 12, "subsampling_factor": 2, "subsampling_conv_kernel_size": 5,
}
# The same for one class.
OTHER_OF = {
    "SmolVLM": {"scale_factor": 4, "image_size": 24}, "Idefics3": {"scale_factor": 4, "image_size": 24},
    "Mimi": {
        "codebook_size": 16, "upsample_groups": 16, "pad_mode": "replicate", "_frame_rate": 125.0, "dilation_growth_rate": 3,
    },
    **{
        name: {**OTHER_PARAKEET, "blank_token_id": 10}
        for name in ("FastConformerEncoder", "ParakeetForRNNT", "ParakeetForTDT")
    },
    "ParakeetForCTC": {**OTHER_PARAKEET, "ctc_loss_reduction": "sum"},
    "Moonshine": {
        "pad_head_dim_to_multiple_of": 16, "decoder_start_token_id": 3,
        "rope_parameters": {"rope_theta": 500.0, "rope_type": "default", "partial_rotary_factor": 0.25},
    },
}
# With what else a key matters.
WITH = {
    "num_adapter_layers": {"add_adapter": True}, "adapter_kernel_size": {"add_adapter": True}, "adapter_stride": {"add_adapter": True},
    "output_hidden_size": {"add_adapter": True}, "adapter_attn_dim": {"do_stable_layer_norm": True},
    "mask_time_length": {"mask_time_prob": 0.5, "apply_spec_augment": True}, "mask_time_min_masks": {"apply_spec_augment": True},
    "mask_time_prob": {"apply_spec_augment": True}, "mask_feature_prob": {"apply_spec_augment": True},
    "mask_feature_length": {"mask_feature_prob": 0.5, "apply_spec_augment": True},
    "mask_feature_min_masks": {"mask_feature_prob": 0.01, "apply_spec_augment": True},
    "apply_spec_augment": {"mask_time_prob": 0.9}, "max_window_layers": {"use_sliding_window": True, "sliding_window": 4},
    "layer_types": {"sliding_window": 4, "use_sliding_window": True},
    "rotary_embedding_base": {"position_embeddings_type": "rotary"}, "adapter_act": {"add_adapter": True},
    "use_intermediate_ffn_before_adapter": {"add_adapter": True},
}
# Of files, and of no network.
DESCRIBES = {
    "transformers_version", "architectures", "dtype", "model_type", "_name_or_path", "id2label", "label2id", "text_config",
    "vision_config", "encoder_config", "return_dict", "is_encoder_decoder",
}


def sines(count, step, start=0.0):
    return np.sin(np.arange(count, dtype=np.float64) * step + start).astype(np.float32)


# Names of published checkpoints for those of transformers 5, which stacks experts and nests Mimi's parts.
EXPERT_NAMES = {
    "mixtral": ("block_sparse_moe", ["w1", "w3"], "w2"),
    "qwen3_moe": ("mlp", ["gate_proj", "up_proj"], "down_proj"),
}


def published(kind, name, value):
    if kind == "mimi":
        return [(mimi.published(name), value)]
    if kind not in EXPERT_NAMES or ".mlp." not in name:
        return [(name, value)]
    mlp, halves, down = EXPERT_NAMES[kind]
    stack, _, last = name.replace(".mlp.", f".{mlp}.").rpartition(".")
    if not stack.endswith(".experts"):
        return [(f"{stack}.{last}", value)]
    parts = [(expert, *part) for expert, one in enumerate(value) for part in (zip(halves, one.chunk(2)) if last == "gate_up_proj" else [(down, one)])]
    return [(f"{stack}.{expert}.{part}.weight", one) for expert, part, one in parts]


def fill(model):
    with torch.no_grad():
        for stacked, whole in model.state_dict().items():
            for name, value in published(model.config.model_type, stacked, whole):
                # The encoder's positions are sines already; codebooks are sums over counts.
                if value.is_floating_point() and not name.endswith(("encoder.embed_positions.weight", "cluster_usage", "initialized")):
                    start = sum(name.encode()) % 97
                    value.copy_(torch.from_numpy(sines(value.numel(), 0.37, start)).reshape(value.shape) * 0.2)
                    if name.endswith("running_var"):
                        value.abs_().add_(0.1)
        for module in model.modules():
            if hasattr(module, "_embed"):
                module._embed = None  # Mimi's codebook of the initial values


def inputs(config):
    kind = config.model_type
    if kind == "wav2vec2-bert":
        width = config.feature_projection_input_dim
        return {"input_features": torch.from_numpy(sines(2 * 24 * width, 0.11)).reshape(2, 24, width)}
    if kind in ("wav2vec2", "wavlm", "hubert", "data2vec-audio", "wav2vec2-conformer"):
        return {"input_values": torch.from_numpy(sines(2 * 400, 0.11)).reshape(2, 400)}
    if kind == "whisper":
        features = torch.from_numpy(sines(config.num_mel_bins * 2 * config.max_source_positions, 0.11))
        return {"input_features": features.reshape(1, config.num_mel_bins, -1)}
    if kind.startswith("parakeet"):
        width = getattr(config, "encoder_config", config).num_mel_bins
        features = {"input_features": torch.from_numpy(sines(2 * 40 * width, 0.11)).reshape(2, 40, width)}
        return features if kind == "parakeet_encoder" else {**features, "attention_mask": torch.ones(2, 40, dtype=torch.bool)}
    if kind == "moonshine":
        return {"input_values": torch.from_numpy(sines(2 * 2400, 0.11)).reshape(2, 2400)}
    if kind == "mimi":
        return {"input_values": torch.from_numpy(sines(2 * config.audio_channels * 150, 0.11)).reshape(2, config.audio_channels, 150)}
    if kind in ("smolvlm", "idefics3"):
        vision = config.vision_config
        size = (1, 1, vision.num_channels, vision.image_size, vision.image_size)
        tokens = (vision.image_size // vision.patch_size // config.scale_factor) ** 2
        ids = torch.tensor([[5, *[config.image_token_id] * tokens, 6, 7, 8]])
        return {"input_ids": ids, "pixel_values": torch.from_numpy(sines(int(np.prod(size)), 0.11)).reshape(size)}
    images = {}
    if kind in ("clip", "clip_vision_model", "siglip_vision_model"):
        vision = getattr(config, "vision_config", config)
        size = (2, vision.num_channels, vision.image_size, vision.image_size)
        images = {"pixel_values": torch.from_numpy(sines(int(np.prod(size)), 0.11)).reshape(size)}
    if kind in ("clip_vision_model", "siglip_vision_model"):
        return images
    ids = torch.tensor([[5, 6, 7, 8, 9, 10, 39, 2, 2, 2], [5, 3, 4, 38, 11, 12, 13, 14, 15, 39]])
    return {"input_ids": ids, **images}


def labels(name, config):
    if "RNNT" in name or "TDT" in name:
        blank = config.blank_token_id
        return {"labels": torch.tensor([[5, 6], [7, 8]]), "decoder_input_ids": torch.tensor([[blank, 5, 6], [blank, 7, 8]])}
    if "CTC" in name:
        return {"labels": torch.tensor([[5, 6], [7, 8]])}
    if "FrameClassification" in name:
        return {}
    if "Token" in name:
        return {"labels": torch.tensor([[0, 1] * 5, [1, 1] * 5])}
    if "SequenceClassification" in name or "XVector" in name:
        return {"labels": torch.tensor([0, 1])}
    if name == "WhisperForConditionalGeneration":
        return {"labels": torch.tensor([[5, 6, 7, 57]])}
    if name == "MoonshineForConditionalGeneration":
        return {"labels": torch.tensor([[5, 6, 7, 2], [8, 9, 10, 2]])}
    if "MaskedLM" in name or "CausalLM" in name or name.startswith(("SmolVLM", "Idefics3")):
        return {"labels": inputs(config)["input_ids"]}
    return {"return_loss": True} if name == "CLIPModel" else {}


def seeded(seed):
    torch.manual_seed(seed)
    np.random.seed(seed)


def numbers(output):
    values = [getattr(output, key, None) for key in ("logits", "logits_per_image", "last_hidden_state", "pooler_output", "audio_values")]
    return [value.detach().flatten().float() for value in values if value is not None]


def looked_at(name, settings):
    """What a network of a configuration is, as bytes."""
    kind = getattr(transformers, name)
    config = kind.config_class(**copy.deepcopy(settings))
    config._attn_implementation = "eager"
    if config.model_type in EXPERT_NAMES:
        config._experts_implementation = "eager"
    seeded(0)
    model = kind(config)
    state = model.state_dict()
    seen = {"shapes": json.dumps({key: list(value.shape) for key, value in state.items()})}
    seen["initial"] = b"".join(value.numpy().tobytes() for value in state.values())
    fill(model)
    given = inputs(config)
    teacher = labels(name, config)
    model.eval()
    output = model(**given, **teacher)
    seen["output"] = b"".join(value.numpy().tobytes() for value in numbers(output))
    values = numbers(output)[0]
    loss = getattr(output, "loss", None)
    if loss is not None and loss.ndim == 0 and loss.requires_grad:
        loss.backward()
    gradients = [value.grad.numpy().tobytes() for value in model.parameters() if value.grad is not None]
    seen["loss"] = (b"" if loss is None else loss.detach().numpy().tobytes()) + b"".join(gradients)
    model.train()
    seeded(1)
    output = model(**given, **teacher)
    seen["training"] = b"".join(value.numpy().tobytes() for value in numbers(output))
    return seen, {"count": sum(value.numel() for value in model.parameters()), "values": [round(v, 6) for v in values[:4].tolist() if v == v]}


@functools.cache
def looked_once(name, settings):
    return looked_at(name, json.loads(settings))


def other_value(name, key, value):
    if isinstance(value, bool):
        return not value
    if key in OTHER_OF.get(name, {}):
        return OTHER_OF[name][key]
    if key in OTHER and OTHER[key] != value:
        return OTHER[key]
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value + 0.5 if value <= 0.5 else value / 2
    return "?"


def changed(name, base, path, other, extra):
    def with_value(value):
        settings = copy.deepcopy(base)
        inner = settings
        for key in path[:-1]:
            inner = inner[key]
        inner.update(copy.deepcopy(extra))
        if value is not None:
            inner[path[-1]] = value[0]
        return settings

    try:
        before, _ = looked_once(name, json.dumps(with_value(None)))
        after, seen = looked_at(name, with_value([other]))
    except Exception as error:  # what transformers says of a value is its own
        return {"effects": ["refused"], "why": str(error).strip().splitlines()[-1][:80]}
    effects = [kind for kind in before if before[kind] != after[kind]]
    return {"effects": ["shapes"] if "shapes" in effects else effects, **seen}


def plain(value):
    return json.loads(json.dumps(value, default=str))


def main():
    only = [argument for argument in sys.argv[1:] if argument in CLASSES]
    result = {"transformers": transformers.__version__, "classes": {}, "defaults": {}, "lora": {}}
    if only:
        result = {**json.loads(FILE.read_text()), "transformers": transformers.__version__}
    for ours, (name, base) in CLASSES.items():
        if only and ours not in only:
            continue
        kind = getattr(transformers, name)
        whole = kind.config_class().to_dict()
        result["defaults"][kind.config_class.model_type] = plain(whole)
        _, seen = looked_at(name, base)
        assert seen["values"], f"{ours}: not a number"
        keys = {}
        parts = [[]] + [[key] for key in ("text_config", "vision_config", "encoder_config") if key in base]
        for part in parts:
            defaults = whole[part[0]] if part else whole
            tiny = base[part[0]] if part else base
            for key, value in defaults.items():
                if key in DESCRIBES:
                    continue
                other = other_value(ours, key, tiny.get(key, value))
                if other == "?":
                    other = None if value is not None else True
                extra = {name: value for name, value in WITH.get(key, {}).items() if name in defaults}
                found = changed(name, base, [*part, key], other, extra)
                keys[".".join([*part, key])] = {"other": plain(other), "with": extra, **found}
        result["classes"][ours] = {"architecture": name, "base": base, **seen, "keys": keys}
        print(ours, {key: found["effects"] for key, found in keys.items()}, flush=True)
    result["lora"] = plain(LoraConfig().to_dict())
    for one in ("Wav2Vec2FeatureExtractor", "WhisperFeatureExtractor", "CLIPImageProcessorPil"):
        if not only and hasattr(transformers, one):
            result["defaults"][one] = plain(getattr(transformers, one)().to_dict())
    text = json.dumps(result, separators=(",", ":")) + "\n"
    if "--check" in sys.argv:
        assert FILE.read_text() == text, f"{FILE} is not what transformers {transformers.__version__} computes"
    else:
        FILE.write_text(text)


main()
