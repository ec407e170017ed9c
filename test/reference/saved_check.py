"""Has voxtorch save every network in every way that it has, opens what it saved with transformers or PEFT, and compares what both do:
outputs, tokens of `generate` with the settings of the folder, ids and chat texts of a saved tokenizer.

    python test/reference/saved_check.py [MODULE]     MODULE is the built library; default dist/index.js

The numbers are max|a-b| / max|b| of the outputs. "=" says that the generated tokens are equal. What transformers has no class for
stands in NOT_APPLICABLE with the reason. Prints (transformers 5.24.0, peft 0.21.2, torch 2.13.0):
    Bert                                   save             3e-07
    Bert                                   save, in shards  3e-07
    Roberta                                save             4e-07
    RobertaForMaskedLM                     save             3e-07
    RobertaForSequenceClassification       save             3e-07
    RobertaForTokenClassification          save             3e-07
    Wav2Vec2                               save             6e-07
    Wav2Vec2ForCTC                         save             7e-07
    Wav2Vec2ForSequenceClassification      save             2e-07
    Wav2Vec2ForAudioFrameClassification    save             8e-07
    Wav2Vec2ForXVector                     save             3e-07
    WavLM                                  save             4e-07
    WavLMForCTC                            save             4e-07
    WavLMForSequenceClassification         save             1e-07
    WavLMForAudioFrameClassification       save             4e-07
    WavLMForXVector                        save             3e-07
    Hubert                                 save             1e-06
    HubertForCTC                           save             6e-07
    HubertForSequenceClassification        save             1e-07
    Data2VecAudio                          save             8e-07
    Data2VecAudioForCTC                    save             1e-06
    Data2VecAudioForSequenceClassification save             3e-07
    Wav2Vec2Conformer                      save             6e-07
    Wav2Vec2ConformerForCTC                save             7e-07
    Wav2Vec2ConformerForSequenceClassification save         3e-07
    Wav2Vec2Bert                           save             5e-07
    Wav2Vec2BertForCTC                     save             4e-07
    Wav2Vec2BertForSequenceClassification  save             2e-07
    Wav2Vec2Bert, rotary                   save             6e-07
    Whisper                                save             3e-07 =
    Whisper                                save, in shards  3e-07 =
    ClipTextModel                          save             4e-07
    ClipVisionModel                        save             2e-07
    SiglipVisionModel                      save             4e-07
    Clip                                   save             1e-06
    Clip                                   save, in shards  1e-06
    llama                                  save             7e-07 =
    llama                                  save, in shards  7e-07 =
    llama, tied, biases                    save             1e-06 =
    llama, tied                            save             1e-06 =
    llama, tied                            saveGguf         1e-06 =
    llama, ids of specials                 save             8e-07 =
    llama, ids of specials                 saveGguf         8e-07 =
    llama3                                 save             4e-07 =
    mistral                                save             8e-07 =
    mistral, no window                     save             7e-07 =
    qwen2                                  save             7e-07 =
    qwen2                                  saveGguf         7e-07 =
    qwen2, window                          save             9e-07 =
    phi3                                   save             1e-06 =
    qwen3                                  save             7e-07 =
    ministral                              save             8e-07 =
    ministral3                             save             1e-06 =
    mixtral                                save             2e-06 =
    qwen3_moe                              save             9e-07 =
    olmo2                                  save             5e-07 =
    smollm3                                save             9e-07 =
    granite                                save             7e-07 =
    gemma2                                 save             2e-07 =
    gemma3_text                            save             2e-07 =
    Moonshine                              save             3e-07
    Mimi                                   save             0e+00
    FastConformerEncoder                   save             3e-07
    ParakeetForCTC                         save             6e-07
    ParakeetForRNNT                        save             3e-07
    ParakeetForTDT                         save             2e-07
    SmolVLM                                save             1e-06
    Idefics3                               save             1e-06
    llama, classifier                      save             9e-07
    mistral, classifier                    save             9e-07
    qwen2, classifier                      save             9e-07
    phi3, classifier                       save             6e-07
    InternVL of llama                      save             2e-06
    InternVL of qwen2                      save             2e-06
    InternVL of internlm2                  save             8e-07
    llama with lora                        savePretrained   2e-06 =
    llama with rslora                      savePretrained   7e-07 =
    llama with dora                        savePretrained   1e-06 =
    llama with patterns                    savePretrained   1e-06 =
    llama with layers                      savePretrained   7e-07 =
    llama with modules                     savePretrained   2e-06 =
    llama with tokens                      savePretrained   2e-06 =
    Tokenizer                              saveTo           ids =, chat text =
"""

import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 1e-5

SPEECH = dict(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, conv_dim=[8, 8], conv_kernel=[10, 3],
    conv_stride=[5, 2], num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, vocab_size=12, initializer_range=0.3,
    tdnn_dim=[8, 12], tdnn_kernel=[3, 1], tdnn_dilation=[2, 1],
)
HUBERT = {key: value for key, value in SPEECH.items() if "tdnn" not in key}
SPECTRA = {key: value for key, value in SPEECH.items() if "conv" not in key} | dict(
    conv_depthwise_kernel_size=5, feature_projection_input_dim=8, add_adapter=False, left_max_position_embeddings=4,
)
TEXT = dict(
    vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, max_position_embeddings=20,
    initializer_range=0.3,
)
LM = dict(
    vocab_size=40, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=96,
    max_position_embeddings=64, initializer_range=0.3,
)
WHISPER = dict(
    vocab_size=51864, num_mel_bins=8, encoder_layers=2, encoder_attention_heads=2, decoder_layers=2, decoder_attention_heads=2,
    decoder_ffn_dim=24, encoder_ffn_dim=24, d_model=16, max_source_positions=20, max_target_positions=40, pad_token_id=50256,
    bos_token_id=50256, eos_token_id=50256, decoder_start_token_id=50257, init_std=0.3,
)
CLIP_TEXT = dict(
    vocab_size=40, hidden_size=16, intermediate_size=24, projection_dim=8, num_hidden_layers=2, num_attention_heads=2,
    max_position_embeddings=12, eos_token_id=39, bos_token_id=38,
)
CLIP_VISION = dict(
    hidden_size=16, intermediate_size=24, projection_dim=8, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4,
)
PARAKEET = dict(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, conv_kernel_size=3, subsampling_factor=4,
    subsampling_conv_channels=4, num_mel_bins=8, initializer_range=0.3,
)
TRANSDUCER = dict(vocab_size=12, blank_token_id=11, pad_token_id=2, decoder_hidden_size=8, num_decoder_layers=1, encoder_config=PARAKEET)
MOONSHINE = dict(
    vocab_size=60, hidden_size=16, intermediate_size=24, encoder_num_hidden_layers=2, decoder_num_hidden_layers=2,
    encoder_num_attention_heads=2, partial_rotary_factor=0.5, rope_theta=500.0, max_position_embeddings=64, initializer_range=0.3,
    tie_word_embeddings=False,
)
MIMI = dict(
    sampling_rate=4000, hidden_size=16, num_filters=4, upsampling_ratios=[3, 2], kernel_size=5, codebook_size=8, codebook_dim=8,
    vector_quantization_hidden_dimension=8, num_quantizers=3, upsample_groups=8, num_hidden_layers=2, intermediate_size=24,
    num_attention_heads=2, num_key_value_heads=2, head_dim=8, sliding_window=4, initializer_range=0.3,
)
DECODERS = {
    "qwen3": ("Qwen3", dict(head_dim=16, use_sliding_window=True, sliding_window=4, max_window_layers=1)),
    "ministral": ("Ministral", dict(head_dim=16, sliding_window=4, layer_types=["sliding_attention", "full_attention"])),
    "ministral3": ("Ministral3", dict(head_dim=16)),
    "mixtral": ("Mixtral", dict(num_local_experts=4, num_experts_per_tok=2)),
    "qwen3_moe": ("Qwen3Moe", dict(head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, norm_topk_prob=True)),
    "olmo2": ("Olmo2", {}), "smollm3": ("SmolLM3", dict(no_rope_layer_interval=2, tie_word_embeddings=False)),
    "granite": ("Granite", dict(embedding_multiplier=2.0, residual_multiplier=0.5, attention_multiplier=0.1, logits_scaling=2.0)),
    "gemma2": ("Gemma2", dict(head_dim=16, query_pre_attn_scalar=9, sliding_window=4)),
    "gemma3_text": ("Gemma3", dict(head_dim=16, query_pre_attn_scalar=9, sliding_window=4, sliding_window_pattern=2)),
}
VIT = dict(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, patch_size=4, image_size=16, qkv_bias=True,
    qk_normalization=False, norm_type="layer_norm",
)

NOT_APPLICABLE = {
    "Beats": "no class in transformers",
    "BigVGAN": "no class in transformers; NVIDIA's own code reads the published generator file alone",
    "UnitVoicebox": "no class in transformers",
    "QFormer": "SALMONN's form; transformers' Q-Formers have other names",
    "LanguageBind": "no class in transformers",
    "InternViT": "remote code of its repository",
    "InternVL, published layout": "remote code of its repository",
    "DecoderLM of internlm2": "remote code of its repository",
    "saveGguf without special tokens": "a GGUF file cannot say that there is no end: transformers then takes its class's, 2",
    "DecoderLM of phi3, saveGguf": "refused: llama.cpp has another layout for its projections",
    "SileroVad": "no class in transformers",
    "AudioLM of ultravox": "remote code of its repository, which audio_lm_ultravox.py --saved runs",
    "Emotion2Vec": "no class in transformers; FunASR's folders are read, and compared by emotion2vec.py",
    "packed (nf4, int8, q8_0, q4_0)": "voxtorch's own quantization_config; transformers refuses it by name",
}

EAR = dict(d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=24, num_mel_bins=8)
TOWER = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, num_mel_bins=8)
CONFORMER = dict(input_dim=16, num_layers=2, hidden_dim=16, num_heads=2, output_dim=8, context_size=5, max_pos_emb=8, conv_kernel_size=5)
FORMER = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, encoder_hidden_size=16)
# model type, class there, language model, the other keys; texts alone are read, and audio in audio_lm_files_check.py and audio_lm_encoders.py --saved
AUDIO = [
    ("qwen2_audio", "Qwen2Audio", "qwen2", dict(audio_config=dict(max_source_positions=12, **EAR), audio_token_index=30)),
    ("voxtral", "Voxtral", "llama", dict(audio_config={**TOWER, "intermediate_size": 64, "max_source_positions": 12}, audio_token_id=30)),
    ("audioflamingo3", "AudioFlamingo3", "qwen2", dict(audio_config=dict(max_source_positions=12, **TOWER), audio_token_id=30)),
    ("qwen3_asr", "Qwen3ASR", "qwen3", dict(audio_config=dict(output_dim=64, downsample_hidden_size=4, **EAR), audio_token_id=30)),
    ("glmasr", "GlmAsr", "llama", dict(audio_config={**TOWER, "intermediate_size": 64}, audio_token_id=30)),
    ("granite_speech", "GraniteSpeech", "granite", dict(
        encoder_config=CONFORMER, projector_config=FORMER, audio_token_index=30, window_size=6, downsample_rate=2, has_lora_adapter=False,
    )),
]

# name, class here, class there, configuration, what it reads
NETWORKS = [
    *[
        (name, "AudioLM", f"{there}ForConditionalGeneration", dict(model_type=name, text_config=dict(model_type=text, **LM), **more), "ids")
        for name, there, text, more in AUDIO
    ],
    ("Bert", "Bert", "BertModel", TEXT, "ids"), ("Roberta", "Roberta", "RobertaModel", TEXT, "ids"),
    ("RobertaForMaskedLM", "RobertaForMaskedLM", "RobertaForMaskedLM", TEXT, "ids"),
    ("RobertaForSequenceClassification", "RobertaForSequenceClassification", "RobertaForSequenceClassification", TEXT, "ids"),
    ("RobertaForTokenClassification", "RobertaForTokenClassification", "RobertaForTokenClassification", TEXT, "ids"),
    *[
        (f"{kind}{task}", f"{kind}{task}", f"{kind}{task or 'Model'}", SPEECH, "wave")
        for kind in ("Wav2Vec2", "WavLM")
        for task in ("", "ForCTC", "ForSequenceClassification", "ForAudioFrameClassification", "ForXVector")
    ],
    *[
        (f"{kind}{task}", f"{kind}{task}", f"{kind}{task or 'Model'}", size, reads)
        for kind, size, reads in (
            ("Hubert", HUBERT, "wave"), ("Data2VecAudio", SPEECH, "wave"),
            ("Wav2Vec2Conformer", {**SPEECH, "conv_depthwise_kernel_size": 5, "position_embeddings_type": "rotary"}, "wave"),
            ("Wav2Vec2Bert", SPECTRA, "features"),
        )
        for task in ("", "ForCTC", "ForSequenceClassification")
    ],
    ("Wav2Vec2Bert, rotary", "Wav2Vec2Bert", "Wav2Vec2BertModel", {**SPECTRA, "position_embeddings_type": "rotary"}, "features"),
    ("Whisper", "Whisper", "WhisperForConditionalGeneration", WHISPER, "mel"),
    ("ClipTextModel", "ClipTextModel", "CLIPTextModel", CLIP_TEXT, "ids"),
    ("ClipVisionModel", "ClipVisionModel", "CLIPVisionModel", CLIP_VISION, "image"),
    ("SiglipVisionModel", "SiglipVisionModel", "SiglipVisionModel", {k: v for k, v in CLIP_VISION.items() if k != "projection_dim"}, "image"),
    ("Clip", "Clip", "CLIPModel", dict(text_config=CLIP_TEXT, vision_config=CLIP_VISION, projection_dim=8), "ids+image"),
    ("llama", "DecoderLM", "LlamaForCausalLM", dict(model_type="llama", **LM), "generate"),
    ("llama, tied, biases", "DecoderLM", "LlamaForCausalLM",
     dict(model_type="llama", attention_bias=True, mlp_bias=True, tie_word_embeddings=True, **LM), "generate"),
    ("llama, tied", "DecoderLM", "LlamaForCausalLM",
     dict(model_type="llama", tie_word_embeddings=True, bos_token_id=1, eos_token_id=7, **LM), "generate"),
    ("llama, ids of specials", "DecoderLM", "LlamaForCausalLM",
     dict(model_type="llama", bos_token_id=1, eos_token_id=7, pad_token_id=3, **LM), "generate"),
    ("llama3", "DecoderLM", "LlamaForCausalLM", dict(model_type="llama", rope_theta=5e5, rope_scaling=dict(
        rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32), **LM), "generate"),
    ("mistral", "DecoderLM", "MistralForCausalLM", dict(model_type="mistral", sliding_window=4, **LM), "generate"),
    ("mistral, no window", "DecoderLM", "MistralForCausalLM", dict(model_type="mistral", sliding_window=None, **LM), "generate"),
    ("qwen2", "DecoderLM", "Qwen2ForCausalLM", dict(model_type="qwen2", **LM), "generate"),
    ("qwen2, window", "DecoderLM", "Qwen2ForCausalLM",
     dict(model_type="qwen2", use_sliding_window=True, sliding_window=4, max_window_layers=1, **LM), "generate"),
    ("phi3", "DecoderLM", "Phi3ForCausalLM", dict(model_type="phi3", **LM), "generate"),
    *[
        (kind, "DecoderLM", f"{name}ForCausalLM", {**dict(model_type=kind, bos_token_id=1, eos_token_id=2, pad_token_id=0), **LM, **more}, "generate")
        for kind, (name, more) in DECODERS.items()
    ],
    ("Moonshine", "Moonshine", "MoonshineForConditionalGeneration", MOONSHINE, "speech"),
    ("Mimi", "Mimi", "MimiModel", MIMI, "codec"),
    ("FastConformerEncoder", "FastConformerEncoder", "ParakeetEncoder", PARAKEET, "features"),
    ("ParakeetForCTC", "ParakeetForCTC", "ParakeetForCTC", dict(vocab_size=12, pad_token_id=11, encoder_config=PARAKEET), "masked"),
    ("ParakeetForRNNT", "ParakeetForRNNT", "ParakeetForRNNT", TRANSDUCER, "transducer"),
    ("ParakeetForTDT", "ParakeetForTDT", "ParakeetForTDT", TRANSDUCER, "transducer"),
    *[
        (name, "SmolVLM", f"{name}ForConditionalGeneration", dict(
            model_type=name.lower(), image_token_id=9, vision_config={**{k: v for k, v in CLIP_VISION.items() if k != "projection_dim"}, "image_size": 16},
            text_config=dict(model_type="llama", **LM)), "smolvlm")
        for name in ("SmolVLM", "Idefics3")
    ],
    *[
        (f"{kind}, classifier", "DecoderLMForSequenceClassification", f"{name}ForSequenceClassification",
         dict(model_type=kind, pad_token_id=0, **LM), "ids")
        for kind, name in (("llama", "Llama"), ("mistral", "Mistral"), ("qwen2", "Qwen2"), ("phi3", "Phi3"))
    ],
    *[
        (f"InternVL of {kind}", "InternVL", "InternVLForConditionalGeneration",
         dict(vision_config=VIT, llm_config=dict(model_type=kind, **LM, **more), img_context_token_id=9), "internvl")
        for kind, more in (("llama", {}), ("qwen2", {}), ("internlm2", dict(bias=False)))
    ],
]
ADAPTERS = [
    ("lora", dict(r=4, lora_alpha=8)), ("rslora", dict(r=4, use_rslora=True)), ("dora", dict(r=4, use_dora=True)),
    ("patterns", dict(r=4, rank_pattern={"v_proj": 2}, alpha_pattern={"v_proj": 3})),
    ("layers", dict(r=4, layers_to_transform=[1])), ("modules", dict(r=4, modules_to_save=["lm_head"])),
    ("tokens", dict(r=4, trainable_token_indices=[3, 5])),
]

RUN = """
const v = await import(process.argv[1])
const root = process.argv[2]
const { readFileSync, mkdirSync } = await import('node:fs')
const specs = JSON.parse(readFileSync(`${root}/specs.json`, 'utf8'))
const { tensors } = await v.loadSafetensors(`${root}/inputs.safetensors`)
const inputsOf = (reads, model) => {
  if (reads === 'wave') return { inputValues: tensors.wave }
  if (reads === 'features') return { inputFeatures: tensors.features }
  if (reads === 'mel') return { inputFeatures: tensors.mel, decoderInputIds: tensors.labels }
  if (reads === 'image') return { pixelValues: tensors.image }
  if (reads === 'ids+image') return { inputIds: tensors.ids, pixelValues: tensors.image }
  if (reads === 'speech') return { inputValues: tensors.speech, decoderInputIds: tensors.labels }
  if (reads === 'codec') return { inputValues: tensors.codec }
  if (reads === 'masked') return { inputFeatures: tensors.features, attentionMask: tensors.mask }
  if (reads === 'transducer') return { inputFeatures: tensors.features, attentionMask: tensors.mask, labels: tensors.targets, outputLogits: true }
  if (reads === 'smolvlm') return { inputIds: tensors.pictured, pixelValues: tensors.tiles }
  if (reads === 'internvl') return { inputIds: tensors.pictured, pixelValues: tensors.tiles }
  return { inputIds: tensors.ids }
}
const outputOf = (output) => output.logits ?? output.logitsPerImage ?? output.audioValues ?? output.lastHiddenState
for (const spec of specs) {
  v.manualSeed(0)
  const model = v[spec.here].fromConfig(spec.config).eval()
  const results = {}
  const folder = `${root}/${spec.folder}`
  mkdirSync(folder, { recursive: true })
  if (spec.adapter) {
    await model.save(`${folder}/base`)
    const peft = v.getPeftModel(model, { targetModules: ['q_proj', 'v_proj'], ...spec.adapter })
    v.noGrad(() => { for (const [name, p] of model.namedParameters()) if (p.requiresGrad) p.normal_(0, 0.3) })
    model.eval()
    await peft.savePretrained(folder)
  } else await model.save(folder, { ...(spec.shards && { maxShardBytes: 20000 }), ...(spec.here === 'InternVL' && { layout: 'transformers' }) })
  if (spec.gguf) await model.saveGguf(`${folder}/model.gguf`, { type: spec.gguf })
  const inputs = inputsOf(spec.reads, model)
  results.output = outputOf(await model.forward(inputs))
  if (spec.reads === 'generate') {
    // The ids at which answers end are those of the folder.
    const reader = spec.adapter || spec.shards || spec.gguf ? model : (await v.DecoderLM.fromPretrained(folder)).eval()
    const { tokens } = await reader.generate({ inputIds: tensors.ids.narrow(0, 0, 1) }, { maxNewTokens: 24 })
    results.tokens = v.tensor(tokens[0].map(Number), { dtype: 'int64' })
  }
  if (spec.reads === 'mel') {
    // transformers begins with these two by itself.
    const inputIds = v.tensor([[model.tokens.startOfTranscript, model.tokens.noTimestamps]], { dtype: 'int64' })
    const { tokens } = await model.generate({ inputFeatures: tensors.mel, inputIds }, { maxNewTokens: 12 })
    results.tokens = v.tensor(tokens[0].map(Number), { dtype: 'int64' })
  }
  if (spec.merge) {
    await model.mergeAdapters?.()
  }
  await v.saveSafetensors(`${folder}/result.safetensors`, Object.fromEntries(Object.entries(results).map(([k, t]) => [k, t.detach().contiguous()])))
  model.dispose()
}
"""


def camel(value):
    if not isinstance(value, dict):
        return value
    return {"".join(w if i == 0 else w.title() for i, w in enumerate(k.split("_"))): camel(v) for k, v in value.items()}


def opened(there, folder, spec):
    kind = getattr(transformers, there)
    if spec.get("gguf"):
        return kind.from_pretrained(folder, gguf_file="model.gguf", dtype=torch.float32).eval()
    if spec.get("adapter"):
        base, info = kind.from_pretrained(folder / "base", output_loading_info=True)
        return PeftModel.from_pretrained(base, folder).eval()
    model, info = kind.from_pretrained(folder, output_loading_info=True)
    lacking = {key: value for key, value in info.items() if value}
    assert not lacking, lacking
    return model.eval()


def compared(spec, folder, given):
    result = load_file(folder / "result.safetensors")
    model = opened(spec["there"], folder, spec)
    reads = spec["reads"]
    inputs = {
        "wave": lambda: dict(input_values=given["wave"]), "features": lambda: dict(input_features=given["features"]), "image": lambda: dict(pixel_values=given["image"]),
        "mel": lambda: dict(input_features=given["mel"], decoder_input_ids=given["labels"]),
        "ids+image": lambda: dict(input_ids=given["ids"], pixel_values=given["image"]),
        "speech": lambda: dict(input_values=given["speech"], decoder_input_ids=given["labels"]),
        "codec": lambda: dict(input_values=given["codec"]),
        "masked": lambda: dict(input_features=given["features"], attention_mask=given["mask"].bool()),
        "transducer": lambda: dict(
            input_features=given["features"], attention_mask=given["mask"].bool(),
            decoder_input_ids=torch.nn.functional.pad(given["targets"], (1, 0), value=11),
        ),
        "smolvlm": lambda: dict(input_ids=given["pictured"], pixel_values=given["tiles"][None]),
        "internvl": lambda: dict(input_ids=given["pictured"], pixel_values=given["tiles"]),
    }.get(reads, lambda: dict(input_ids=given["ids"]))()
    with torch.no_grad():
        output = model(**inputs)
        expected = next(getattr(output, k) for k in ("logits", "logits_per_image", "audio_values", "last_hidden_state") if hasattr(output, k))
        error = ((result["output"] - expected).abs().max() / expected.abs().max()).item()
        tokens = ""
        if reads == "generate":
            ids = given["ids"][:1]
            made = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=24)[0, ids.shape[1]:].tolist()
            mine = result["tokens"].tolist()
            mine = mine[ids.shape[1]:] if len(mine) > 24 else mine
            tokens = " =" if strip(made, model) == strip(mine, model) else f" tokens differ: {mine} and {made}"
        if reads == "mel":
            made = model.generate(given["mel"], max_new_tokens=12)[0].tolist()
            mine = result["tokens"].tolist()
            tokens = " =" if tail(made, model) == tail(mine, model) else f" tokens differ: {mine} and {made}"
    return error, tokens


def strip(tokens, model):
    """Without the end, which one gives and the other may not."""
    end = model.generation_config.eos_token_id
    ends = end if isinstance(end, list) else [end]
    return tokens[:-1] if tokens and tokens[-1] in ends else tokens


def tail(tokens, model):
    start = model.config.decoder_start_token_id
    tokens = tokens[1:] if tokens and tokens[0] == start else tokens
    return strip(tokens, model)


def tokenizers(module, root):
    """What saveTo writes: ids and chat texts."""
    from tokenizers import Tokenizer, models, pre_tokenizers, decoders, trainers
    from transformers import PreTrainedTokenizerFast

    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    lines = ["Hello, how are you today?", "  indented  text\n", "naïve café ☕", "<|im_start|>user"]
    plain.train_from_iterator(lines * 5, trainers.BpeTrainer(vocab_size=300, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"]))
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    first = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=template)
    first.save_pretrained(root / "tokenizer")
    script = """
const v = await import(process.argv[1])
const tokenizer = await v.Tokenizer.fromPretrained(process.argv[2])
tokenizer.saveTo(process.argv[3])
const lines = JSON.parse(process.argv[4])
const messages = [{ role: 'user', content: ' Hi ' }, { role: 'assistant', content: 'Hello.' }, { role: 'user', content: 'More' }]
const chat = tokenizer.applyChatTemplate?.(messages, { addGenerationPrompt: true, tokenize: false })
console.log(JSON.stringify({ ids: lines.map((line) => tokenizer.encode(line).inputIds), chat }))
"""
    out = subprocess.run(
        ["node", "--input-type=module", "-e", script, "--", module.as_uri(), str(root / "tokenizer"), str(root / "saved"), json.dumps(lines)],
        capture_output=True, text=True,
    )
    if out.returncode:
        return f"error: {out.stderr.strip().splitlines()[-1][:150]}"
    mine = json.loads(out.stdout)
    back = transformers.AutoTokenizer.from_pretrained(root / "saved")
    messages = [dict(role="user", content=" Hi "), dict(role="assistant", content="Hello."), dict(role="user", content="More")]
    ids = [back(line)["input_ids"] for line in lines] == mine["ids"]
    chat = back.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return f"ids {'=' if ids else 'differ'}, chat text {'=' if chat == mine.get('chat') else f'differs: {chat!r} and {mine.get(chr(99) + chr(104) + chr(97) + chr(116))!r}'}"


def main():
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    module = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / "dist/index.js"
    specs = []

    def add(name, way, here, there, config, reads, **more):
        specs.append(dict(name=name, way=way, here=here, there=there, config=camel(config), reads=reads, folder=f"n{len(specs)}", **more))

    for name, here, there, config, reads in NETWORKS:
        add(name, "save", here, there, config, reads)
        if here in ("Bert", "Whisper", "Clip") or name == "llama":
            add(name, "save, in shards", here, there, config, reads, shards=True)
        if here == "DecoderLM" and name in ("qwen2", "llama, ids of specials", "llama, tied"):
            add(name, "saveGguf", here, there, config, reads, gguf="F32")
    for kind, options in ADAPTERS:
        add(f"llama with {kind}", "savePretrained", "DecoderLM", "LlamaForCausalLM", dict(model_type="llama", **LM), "generate", adapter=camel(options) | {
            key: value for key, value in (("rankPattern", options.get("rank_pattern")), ("alphaPattern", options.get("alpha_pattern"))) if value})
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        torch.manual_seed(0)
        given = dict(
            ids=torch.tensor([[5, 6, 8, 9, 10, 11, 12, 39], [5, 3, 4, 38, 11, 12, 13, 39]]), wave=torch.randn(2, 400), features=torch.randn(2, 15, 8),
            mel=torch.randn(1, 8, 40), labels=torch.tensor([[5, 6, 7, 8]]), image=torch.randn(2, 3, 8, 8),
            speech=torch.randn(1, 2400), codec=torch.randn(1, 1, 150), mask=torch.ones(2, 15, dtype=torch.int64), targets=torch.tensor([[5, 6], [7, 8]]),
            tiles=torch.randn(1, 3, 16, 16), pictured=torch.tensor([[5, 9, 9, 9, 9, 6, 7]]),
        )
        save_file(given, root / "inputs.safetensors")
        (root / "specs.json").write_text(json.dumps(specs))
        subprocess.run(["node", "--input-type=module", "-e", RUN, "--", module.as_uri(), str(root)], check=True)
        failed = 0
        for spec in specs:
            try:
                error, tokens = compared(spec, root / spec["folder"], given)
                good = error < LIMIT and "differ" not in tokens
                text = f"{error:.0e}{tokens}"
            except Exception as problem:  # a network that does not open is a line of the table
                good, text = False, f"{type(problem).__name__}: {str(problem).strip().splitlines()[0][:150] if str(problem) else problem!r}"
            failed += not good
            print(f"    {spec['name']:38} {spec['way']:16} {text}{'' if good else '   <-- NOT EQUAL'}", flush=True)
        text = tokenizers(module, root)
        failed += "differ" in text or "error" in text
        print(f"    {'Tokenizer':38} {'saveTo':16} {text}")
        for name, why in NOT_APPLICABLE.items():
            print(f"    {name:38} not applicable: {why}")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
