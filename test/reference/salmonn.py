"""A tiny SALMONN with random weights, put together from transformers' Whisper encoder, BLIP-2's Q-Former, LLaMA with PEFT's
LoRA, and the BEATs of beats.py: test/fixtures/models/salmonn.safetensors, with its tokenizer.

In float64, stored as float32, but for Whisper's front end, which is float32 in transformers.
"""

import json
import shutil
import sys

import numpy as np
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import (
    Blip2QFormerConfig,
    Blip2QFormerModel,
    LlamaConfig,
    LlamaForCausalLM,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

import beats as beats_reference
from common import FIXTURES, Fixture, main, randn
from q_former import published_name

SECONDS = 2
WHISPER = dict(
    vocab_size=11,
    num_mel_bins=80,
    d_model=8,
    encoder_layers=2,
    encoder_attention_heads=2,
    encoder_ffn_dim=12,
    decoder_layers=1,
    decoder_attention_heads=2,
    decoder_ffn_dim=12,
    max_source_positions=50 * SECONDS,
    max_target_positions=8,
    pad_token_id=0,
    bos_token_id=0,
    eos_token_id=0,
    decoder_start_token_id=0,
)
BEATS = {**beats_reference.SIZE, 'input_patch_size': 16, 'finetuned_model': True, 'encoder_layerdrop': 0.05}
QFORMER = dict(
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=20,
    encoder_width=16,
    cross_attention_freq=1,
    query_length=1,
    window=17,
    stride=17,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    layer_norm_eps=1e-12,
)
CHARACTERS = [chr(code) for code in range(33, 127)] + ['\n', '▁']
VOCABULARY = ['<unk>', '<s>', '</s>'] + CHARACTERS
LLM = dict(
    vocab_size=len(VOCABULARY),
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    max_position_embeddings=512,
    rms_norm_eps=1e-5,
    bos_token_id=1,
    eos_token_id=2,
)
LORA = dict(r=8, lora_alpha=32, target_modules=['q_proj', 'v_proj'], lora_dropout=0.0)
MARKER = '<SpeechHere>'
BATCHES = {
    'one': dict(
        texts=['USER: <Speech><SpeechHere></Speech> What do you hear?\nASSISTANT:'],
        clips=[[1.3]],
        targets=['two dogs bark'],
    ),
    # Clips of one length: the published BEATs mixes rows of other lengths with their padding, which 'ragged' shows.
    'batch': dict(
        texts=['USER: <Speech><SpeechHere></Speech> Who?\nASSISTANT:', 'USER: <Speech><SpeechHere></Speech> Whe?\nASSISTANT:'],
        clips=[[1.5], [1.5]],
        targets=['a man', 'here and there'],
    ),
    'ragged': dict(
        texts=['USER: <Speech><SpeechHere></Speech> a\nASSISTANT:', 'USER: <Speech><SpeechHere></Speech> b\nASSISTANT:'],
        clips=[[1.0], [1.9]],
        targets=['no', 'yes, it is'],
    ),
    'two-clips': dict(
        texts=['<SpeechHere>then<SpeechHere>?\nASSISTANT:'],
        clips=[[1.2, 1.2]],
        targets=['ok'],
    ),
}


def tokenizer():
    """Single characters, with SentencePiece's blank before each text."""
    made = Tokenizer(models.BPE({token: i for i, token in enumerate(VOCABULARY)}, [], unk_token='<unk>'))
    made.normalizer = normalizers.Sequence([normalizers.Prepend('▁'), normalizers.Replace(' ', '▁')])
    made.decoder = decoders.Sequence([decoders.Replace('▁', ' '), decoders.Fuse(), decoders.Strip(' ', 1, 0)])
    made.add_special_tokens(['<unk>', '<s>', '</s>'])
    return made


def save_tokenizer(folder):
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer().save(str(folder / 'tokenizer.json'))
    settings = dict(bos_token='<s>', eos_token='</s>', unk_token='<unk>', tokenizer_class='PreTrainedTokenizerFast')
    (folder / 'tokenizer_config.json').write_text(json.dumps(settings, indent=2) + '\n')


def clip(seed, seconds):
    """The same whole numbers on every machine; test/systems/salmonn/network/tiny.ts makes the same."""
    i = np.arange(int(seconds * 16000), dtype=np.int64)
    noise = ((i * i * 31 + i * (7 + 2 * seed) + seed * 101) % 65521) / 65521 - 0.5
    return torch.from_numpy((noise * 0.3).astype(np.float32))


def kaldi_fbank(samples):
    """torchaudio.compliance.kaldi.fbank with its defaults and 128 bands, in float64, normalised."""
    x = samples.double() * 32768
    frames = x.unfold(-1, 400, 160)
    frames = frames - frames.mean(-1, keepdim=True)
    before = torch.cat([frames[..., :1], frames[..., :-1]], -1)
    frames = frames - 0.97 * before
    window = torch.hann_window(400, periodic=False, dtype=torch.float64) ** 0.85
    power = torch.fft.rfft(F.pad(frames * window, (0, 112))).abs() ** 2
    mel = lambda f: 1127 * torch.log1p(f / 700)
    points = torch.linspace(0, 1, 130, dtype=torch.float64)
    low, high = mel(torch.tensor(20.0, dtype=torch.float64)), mel(torch.tensor(8000.0, dtype=torch.float64))
    points = low + points * (high - low)
    bins = mel(torch.arange(256, dtype=torch.float64) * 31.25)
    up = (bins[:, None] - points[:-2]) / (points[1:-1] - points[:-2])
    down = (points[2:] - bins[:, None]) / (points[2:] - points[1:-1])
    banks = torch.minimum(up, down).clamp(min=0)
    energy = power[..., :256] @ banks
    return (energy.clamp(min=1.1920929e-07).log() - 15.41663) / (2 * 6.55582)


def named(model, name, scale=0.3):
    given = {}
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            value = randn(f'{name}/{key}', *parameter.shape, scale=scale)
            if 'norm' in key.lower() and key.endswith('weight'):
                value = value + 1
            parameter.copy_(value)
            given[key] = value
    return given


class Salmonn(torch.nn.Module):
    def __init__(self, name):
        super().__init__()
        whisper = WhisperModel(WhisperConfig(**WHISPER, attn_implementation='eager'))
        positions = whisper.encoder.embed_positions.weight.detach().clone()
        self.whisper = whisper.encoder.double().eval()
        self.given = {f'speech_encoder.{key}': value for key, value in named(self.whisper, f'{name}/whisper').items()}
        with torch.no_grad():
            self.whisper.embed_positions.weight.copy_(positions)
        self.given['speech_encoder.embed_positions.weight'] = positions
        weights = beats_reference.weights(BEATS, f'{name}/beats')
        self.beats = beats_reference.Network(BEATS, {key: value.double() for key, value in weights.items()})
        self.given |= {f'beats.{key}': value for key, value in weights.items()}
        shared = 'beats.encoder.layers.{}.self_attn.relative_attention_bias.weight'
        for i in range(1, BEATS['encoder_layers']):
            self.given[shared.format(i)] = self.given[shared.format(0)]
        self.ln_speech = torch.nn.LayerNorm(WHISPER['d_model'])
        self.ln_audio = torch.nn.LayerNorm(BEATS['encoder_embed_dim'])
        self.proj = torch.nn.Linear(QFORMER['hidden_size'], LLM['hidden_size'])
        self.query = torch.nn.Parameter(torch.empty(1, QFORMER['query_length'], QFORMER['hidden_size']))
        self.qformer = Blip2QFormerModel(
            Blip2QFormerConfig(
                hidden_size=QFORMER['hidden_size'],
                num_hidden_layers=QFORMER['num_hidden_layers'],
                num_attention_heads=QFORMER['num_attention_heads'],
                intermediate_size=QFORMER['intermediate_size'],
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
                layer_norm_eps=QFORMER['layer_norm_eps'],
                cross_attention_frequency=1,
                encoder_hidden_size=QFORMER['encoder_width'],
                attn_implementation='eager',
            )
        )
        llm = LlamaForCausalLM(LlamaConfig(**LLM, attn_implementation='eager'))
        self.llm = get_peft_model(llm, LoraConfig(**LORA, task_type='CAUSAL_LM'))
        self.trained = {}
        for prefix, part in [('ln_speech.', self.ln_speech), ('ln_audio.', self.ln_audio), ('speech_llama_proj.', self.proj)]:
            for key, value in named(part, f'{name}/{prefix}').items():
                norm = 1 if prefix.startswith('ln_') and key == 'weight' else 0
                with torch.no_grad():
                    part.get_parameter(key).copy_(value + norm)
                self._trained(prefix + key, part, key)
        with torch.no_grad():
            self.query.copy_(randn(f'{name}/query', *self.query.shape))
        self.given['speech_query_tokens'] = self.query.detach().clone()
        self.trained['speech_query_tokens'] = self.query
        for key in named(self.qformer, f'{name}/qformer'):
            if published_name(key):
                self._trained(f'speech_Qformer.{published_name(key)}', self.qformer, key)
        named(self.llm, f'{name}/llm', 0.2)
        for key, parameter in self.llm.named_parameters():
            short = 'llama_model.' + key.replace('.base_layer.', '.')
            self.given[short] = parameter.detach().clone().float()
            if 'lora_' in key:
                self.trained[short] = parameter
        self.double().eval()

    def _trained(self, name, module, key):
        parameter = module.get_parameter(key)
        self.given[name] = parameter.detach().clone().float()
        self.trained[name] = parameter

    def hear(self, clips):
        """The published way: Whisper over all of its window, BEATs over the batch padded to its longest clip."""
        longest = max(clip.shape[0] for clip in clips)
        extractor = WhisperFeatureExtractor(feature_size=80, chunk_length=SECONDS)
        features = extractor([clip.numpy() for clip in clips], sampling_rate=16000, return_tensors='pt').input_features
        with torch.no_grad():
            speech = self.whisper(features.double()).last_hidden_state
            padded = torch.stack([F.pad(clip, (0, longest - clip.shape[0])) for clip in clips])
            ragged = any(clip.shape[0] < longest for clip in clips)
            lengths = torch.tensor([clip.shape[0] for clip in clips])
            padding = torch.arange(longest)[None] >= lengths[:, None] if ragged else None
            audio, _, _ = self.beats.forward(kaldi_fbank(padded), padding)
        speech, audio = self.ln_speech(speech), self.ln_audio(audio)
        time = max(speech.shape[1], audio.shape[1])
        both = torch.cat([F.pad(part, (0, 0, 0, time - part.shape[1])) for part in (speech, audio)], -1)
        window = QFORMER['window']
        cut = F.unfold(both.transpose(1, 2).unsqueeze(2), (1, window), stride=(1, QFORMER['stride']))
        cut = cut.view(len(clips), QFORMER['encoder_width'], window, -1).permute(0, 3, 2, 1)
        flat = cut.reshape(-1, window, QFORMER['encoder_width'])
        out = self.qformer(query_embeds=self.query.expand(flat.shape[0], -1, -1), encoder_hidden_states=flat)
        return self.proj(out.last_hidden_state).view(len(clips), -1, LLM['hidden_size'])

    def rows(self, texts, clips):
        """[BOS] text, audio, text, ... of each prompt, every text tokenised by itself."""
        heard = list(self.hear([clip for own in clips for clip in own]))
        embed = self.llm.get_input_embeddings()
        made, tokens = [], tokenizer()
        for text, own in zip(texts, clips):
            parts = text.split(MARKER)
            row = [embed(torch.tensor([1]))]
            for i, part in enumerate(parts):
                ids = tokens.encode(part, add_special_tokens=False).ids if part else []
                row.append(embed(torch.tensor(ids, dtype=torch.long)))
                if i < len(own):
                    row.append(heard.pop(0))
            made.append(torch.cat(row))
        return made

    def loss(self, texts, clips, targets):
        rows, total, embed = self.rows(texts, clips), [], self.llm.get_input_embeddings()
        tokens, labels, whole = tokenizer(), [], []
        for row, target in zip(rows, targets):
            ids = torch.tensor(tokens.encode(target + '</s>', add_special_tokens=False).ids)
            whole.append(torch.cat([row, embed(ids)]))
            labels.append(torch.cat([torch.full((row.shape[0],), -100), ids]))
        longest = max(row.shape[0] for row in whole)
        embeds = torch.stack([F.pad(row, (0, 0, 0, longest - row.shape[0])) for row in whole])
        labels = torch.stack([F.pad(row, (0, longest - row.shape[0]), value=-100) for row in labels])
        mask = torch.stack([torch.arange(longest) < row.shape[0] for row in whole]).long()
        logits = self.llm(inputs_embeds=embeds, attention_mask=mask).logits[:, :-1]
        shifted = labels[:, 1:]
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), shifted.reshape(-1), ignore_index=-100)
        hits = ((logits.argmax(-1) == shifted) & (shifted != -100)).sum().item()
        return loss, hits, (shifted != -100).sum().item()

    def answers(self, texts, clips, count, beams):
        """Each prompt by itself, without padding."""
        answers = []
        for row in self.rows(texts, clips):
            ids = self.llm.generate(
                inputs_embeds=row[None], attention_mask=torch.ones(1, row.shape[0], dtype=torch.long),
                max_new_tokens=count, num_beams=beams, do_sample=False, pad_token_id=0,
            )
            answers.append(ids[0].tolist())
        return answers


def published(model):
    """The four files as they are published: Whisper's and LLaMA's directories, BEATs' file, and the runner's checkpoint,
    with what it holds by the way: buffers, and BEATs' shared table under the names of later layers."""
    folder = FIXTURES / 'models/salmonn-published'
    shutil.rmtree(folder, ignore_errors=True)
    whisper = WhisperModel(WhisperConfig(**WHISPER)).float()
    whisper.encoder.load_state_dict(model.whisper.state_dict())
    whisper.save_pretrained(folder / 'whisper')
    part = lambda prefix: {key[len(prefix) :]: value for key, value in model.given.items() if key.startswith(prefix)}
    beats_state = part('beats.')
    shared = 'encoder.layers.{}.self_attn.relative_attention_bias.weight'
    table = beats_state[shared.format(0)]
    for legacy in (False, True):
        name = 'beats-legacy.pt' if legacy else 'beats.pt'
        torch.save({'cfg': BEATS, 'model': beats_state, 'label_dict': {}}, folder / name, _use_new_zipfile_serialization=not legacy)
    llm = {key.replace('llama_model.base_model.model.', ''): value for key, value in model.given.items() if key.startswith('llama_model') and 'lora_' not in key}
    shards = {'pytorch_model-00001-of-00002.bin': {}, 'pytorch_model-00002-of-00002.bin': {}}
    for key, value in llm.items():
        first, second = shards.values()
        (second if 'layers.1.' in key or key.startswith('lm_head') else first)[key] = value
    # As older shards have it.
    first['model.layers.0.self_attn.rotary_emb.inv_freq'] = torch.ones(2)
    (folder / 'vicuna').mkdir(parents=True)
    for name, state in shards.items():
        torch.save(state, folder / 'vicuna' / name)
    index = {'metadata': {}, 'weight_map': {key: name for name, state in shards.items() for key in state}}
    (folder / 'vicuna/pytorch_model.bin.index.json').write_text(json.dumps(index, indent=2) + '\n')
    LlamaConfig(**LLM, architectures=['LlamaForCausalLM']).save_pretrained(folder / 'vicuna')
    save_tokenizer(folder / 'vicuna')
    adapter = {key: model.given[key] for key in model.trained}
    adapter['speech_Qformer.bert.embeddings.position_ids'] = torch.arange(512)[None]
    for i in range(1, BEATS['encoder_layers']):
        adapter[f'beats.{shared.format(i)}'] = table
    for i in range(LLM['num_hidden_layers']):
        adapter[f'llama_model.base_model.model.model.layers.{i}.self_attn.rotary_emb.inv_freq'] = torch.ones(2)
    for legacy in (False, True):
        name = 'salmonn_legacy.pth' if legacy else 'salmonn_v1.pth'
        content = {'model': adapter, 'config': {'run': {}}, 'scaler': None, 'epoch': 1}
        torch.save(content, folder / name, _use_new_zipfile_serialization=not legacy)


def salmonn():
    model = Salmonn('salmonn')
    if '--check' not in sys.argv:
        published(model)
    save_tokenizer(FIXTURES / 'models/salmonn-tokenizer')
    fixture = Fixture()
    fixture.case(
        dict(name='weights', whisper=WHISPER, beats=BEATS, qformer=QFORMER, llm=LLM, lora=LORA),
        param={key: value.float() for key, value in model.given.items()},
    )
    for name, batch in BATCHES.items():
        clips = [[clip(10 * row + i, seconds) for i, seconds in enumerate(own)] for row, own in enumerate(batch['clips'])]
        loss, correct, total = model.loss(batch['texts'], clips, batch['targets'])
        model.zero_grad()
        loss.backward()
        grads = {key: value.grad.float() for key, value in model.trained.items()} if name in ('one', 'ragged') else {}
        with torch.no_grad():
            greedy, beams = [model.answers(batch['texts'], clips, 12, count) for count in (1, 4)]
        fixture.case(
            dict(name=name, texts=batch['texts'], targets=batch['targets'], clips=batch['clips'],
                 correct=correct, total=total, greedy=greedy, beams=beams),
            out={'loss': loss.float()},
            grad=grads,
        )
    return fixture


if __name__ == '__main__':
    main({'models/salmonn': salmonn})
