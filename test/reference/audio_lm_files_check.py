"""Has AudioLM save folders that transformers reads, and read what transformers' save_pretrained writes, with the processors.

    python test/reference/audio_lm_files_check.py [MODULE]     MODULE is the built library; default dist/index.js

Prints (transformers 5.24.0, torch 2.13.0):
    qwen2_audio: read, logits 8.3e-07; saved, logits 8.3e-07, the same tokens: ok
    voxtral: read, logits 2.4e-07; saved, logits 2.4e-07, the same tokens: ok
    audioflamingo3: read, logits 2.9e-07; saved, logits 2.9e-07, the same tokens: ok
The numbers are max|a-b| / max|b| of the last logits.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, logging

from audio_lm import FAMILIES, PROCESSORS, processor, samples
from siglip import fill

ROOT = Path(__file__).resolve().parents[2]
CLIP, OTHER = 15900, 7000
# Loads a folder, writes its logits and tokens there, and saves it to another folder.
RUN = """
const models = await import(process.argv[1])
const { loadSafetensors, saveSafetensors } = models
const [from, to] = process.argv.slice(2)
const { tensors } = await loadSafetensors(`${from}/inputs.safetensors`)
const model = await models.AudioLM.fromPretrained(from)
const { clip, other, input_ids, attention_mask } = tensors
const { inputFeatures, featuresMask } = await model.features([clip, other])
const inputs = { inputIds: input_ids, attentionMask: attention_mask, inputFeatures, ...(featuresMask && { featuresMask }) }
const { logits } = await model.forward({ ...inputs, logitsToKeep: 1 })
await saveSafetensors(`${from}/output.safetensors`, { logits: logits.select(1, 0).contiguous() })
const { tokens } = await model.generate(inputs, { maxNewTokens: 5, eosTokenId: [] })
console.log(JSON.stringify({ tokens }))
await model.save(to)
"""


def error(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


def check(module, family):
    kind = FAMILIES[family]
    settings = json.loads(json.dumps(kind['settings']))
    settings['audio_config']['max_source_positions'] = 48 if family == 'voxtral' else 50
    prepare = processor('qwen2_audio' if family == 'voxtral' else family)
    with tempfile.TemporaryDirectory() as root:
        theirs, ours = Path(root) / 'theirs', Path(root) / 'ours'
        settings['text_config']['vocab_size'] = len(prepare.tokenizer)
        model = kind['network'](kind['config'](**settings)).eval()
        fill(model, f'files/{family}')
        model.save_pretrained(theirs)
        clips = [samples(CLIP), samples(OTHER)]
        if family == 'voxtral':
            # transformers' processor needs windows of whole seconds, and mistral-common.
            window = 2 * settings['audio_config']['max_source_positions'] * 160
            given, counts = None, [-(-count // window) * 12 for count in (CLIP, OTHER)]
        else:
            prepare.save_pretrained(theirs)
            extracted = prepare.feature_extractor([one.numpy() for one in clips], sampling_rate=16000, return_attention_mask=True, return_tensors='pt')
            given = {'input_features': extracted['input_features'], kind['mask']: extracted['attention_mask']}
            counts = [((int(one.sum()) + 1) // 2) // 2 for one in extracted['attention_mask']]
        token = model.config.audio_token_id
        rows = [[1, 3, *[token] * count, 4, 5] for count in counts]
        longest = max(map(len, rows))
        ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        save_file(dict(clip=clips[0], other=clips[1], input_ids=ids, attention_mask=mask), theirs / 'inputs.safetensors')
        command = ['node', '--input-type=module', '-e', RUN, '--', module.as_uri()]
        told = json.loads(subprocess.run([*command, theirs, ours], check=True, stdout=subprocess.PIPE, text=True).stdout)
        found = load_file(theirs / 'output.safetensors')['logits']
        back, info = kind['network'].from_pretrained(ours, output_loading_info=True)
        assert not any(info.values()), info
        if given is None:
            given = {'input_features': whole_clips(settings['audio_config'], clips)}
        else:
            again = AutoProcessor.from_pretrained(ours)
            assert type(again) is PROCESSORS[family], again
            assert again.tokenizer.get_vocab() == prepare.tokenizer.get_vocab()
        errors = []
        for reference in (model, back.eval()):
            with torch.no_grad():
                errors.append(error(found, reference(input_ids=ids, attention_mask=mask, **given).logits[:, -1]))
                tokens = reference.generate(input_ids=ids, attention_mask=mask, **given, max_new_tokens=5, do_sample=False, eos_token_id=None)
            assert tokens[:, ids.shape[1] :].tolist() == told['tokens'], (tokens, told)
    assert max(errors) < 1e-5, errors
    print('    {}: read, logits {:.1e}; saved, logits {:.1e}, the same tokens: ok'.format(family, *errors))


def whole_clips(config, clips):
    """As VoxtralProcessor: the features of a clip padded to whole windows, cut into windows."""
    from transformers import WhisperFeatureExtractor

    steps = 2 * config['max_source_positions']
    extractor = WhisperFeatureExtractor(feature_size=config['num_mel_bins'])
    parts = []
    for clip in clips:
        made = extractor(clip.numpy(), sampling_rate=16000, padding=True, truncation=False, pad_to_multiple_of=steps * 160, return_tensors='pt')
        parts.append(made['input_features'].reshape(config['num_mel_bins'], -1, steps).transpose(0, 1))
    return torch.cat(parts)


if __name__ == '__main__':
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    built = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / 'dist/index.js'
    for name in FAMILIES:
        check(built, name)
