"""Has each head over Wav2Vec2 and WavLM save a directory that transformers reads, and read what transformers'
save_pretrained writes, with new and old names of weight normalisation.

    python test/reference/speech_heads_files_check.py [MODULE]     MODULE is the built library; default dist/index.js

Prints (transformers 5.23.0, torch 2.13.0):
    Wav2Vec2ForCTC plain: saved 3.3e-07, read 4.6e-07, old names 4.6e-07: ok
    Wav2Vec2ForCTC add_adapter num_adapter_layers output_hidden_size: saved 4.6e-07, read 2.9e-07, old names 2.9e-07: ok
    Wav2Vec2ForCTC feat_extract_norm do_stable_layer_norm: saved 5.1e-07, read 5.4e-07, old names 5.4e-07: ok
    Wav2Vec2ForCTC adapter_attn_dim feat_extract_norm do_stable_layer_norm: saved 3.5e-07, read 7.0e-07, old names 7.0e-07: ok
    Wav2Vec2ForSequenceClassification plain: saved 1.7e-07, read 2.6e-06, old names 2.6e-06: ok
    Wav2Vec2ForSequenceClassification use_weighted_layer_sum: saved 1.6e-07, read 4.2e-08, old names 4.2e-08: ok
    Wav2Vec2ForAudioFrameClassification plain: saved 4.6e-07, read 5.0e-07, old names 5.0e-07: ok
    Wav2Vec2ForAudioFrameClassification use_weighted_layer_sum: saved 2.4e-06, read 3.4e-07, old names 3.4e-07: ok
    Wav2Vec2ForXVector plain: saved 5.2e-08, read 2.7e-07, old names 2.7e-07: ok
    Wav2Vec2ForXVector use_weighted_layer_sum: saved 5.9e-07, read 1.8e-07, old names 1.8e-07: ok
    WavLMForCTC plain: saved 4.4e-07, read 5.6e-07, old names 5.6e-07: ok
    WavLMForCTC add_adapter num_adapter_layers output_hidden_size: saved 1.2e-06, read 2.7e-07, old names 2.7e-07: ok
    WavLMForCTC feat_extract_norm do_stable_layer_norm: saved 5.2e-07, read 4.3e-07, old names 4.3e-07: ok
    WavLMForSequenceClassification plain: saved 2.9e-07, read 2.3e-07, old names 2.3e-07: ok
    WavLMForSequenceClassification use_weighted_layer_sum: saved 2.7e-07, read 2.2e-07, old names 2.2e-07: ok
    WavLMForAudioFrameClassification plain: saved 7.5e-07, read 5.8e-07, old names 5.8e-07: ok
    WavLMForAudioFrameClassification use_weighted_layer_sum: saved 5.4e-07, read 7.1e-07, old names 7.1e-07: ok
    WavLMForXVector plain: saved 2.9e-07, read 2.3e-07, old names 2.3e-07: ok
    WavLMForXVector use_weighted_layer_sum: saved 1.2e-07, read 2.2e-07, old names 2.2e-07: ok
    adapters of languages: read 5.2e-07, saved 5.2e-07: ok
The numbers are max|a-b| / max|b| of the logits.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, WavLMConfig, logging

from speech_heads import ADAPTER, SIZE
from wav2vec2 import STABLE
from wav2vec2_files_check import old_names

ROOT = Path(__file__).resolve().parents[2]
TASKS = ['ForCTC', 'ForSequenceClassification', 'ForAudioFrameClassification', 'ForXVector']
OPTIONS = {
    'ForCTC': [dict(), ADAPTER, STABLE],
    'Wav2Vec2ForCTC': [dict(adapter_attn_dim=3, **STABLE)],
}
# Loads each directory after the first and writes its output there; makes and saves the first.
RUN = """
const { [process.argv[2]]: Network, loadSafetensors, saveSafetensors } = await import(process.argv[1])
const [config, made, ...read] = process.argv.slice(3)
const { tensors } = await loadSafetensors(`${made}/input.safetensors`)
const run = async (model, to) => {
  const { logits } = await model.eval().forward({ inputValues: tensors.input })
  await saveSafetensors(`${to}/output.safetensors`, { output: logits })
}
const model = Network.fromConfig(JSON.parse(config))
await model.save(made)
await run(model, made)
for (const directory of read) await run(await Network.fromPretrained(directory), directory)
"""
LANGUAGES = """
const { Wav2Vec2ForCTC, loadSafetensors, saveSafetensors } = await import(process.argv[1])
const [from, to] = process.argv.slice(2)
const { tensors } = await loadSafetensors(`${from}/input.safetensors`)
const model = await Wav2Vec2ForCTC.fromPretrained(from, { targetLang: 'deu' })
const { logits } = await model.forward({ inputValues: tensors.input })
await saveSafetensors(`${from}/output.safetensors`, { output: logits })
await model.saveAdapter(from, 'fra')
console.log(model.tokenizer.decode([5, 5, 0, 7, 4, 6]))
"""


def error(directory, expected):
    output = load_file(directory / 'output.safetensors')['output']
    return ((output - expected).abs().max() / expected.abs().max()).item()


def node(script, module, *arguments):
    command = ['node', '--input-type=module', '-e', script, '--', module.as_uri(), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def camel(options):
    return {''.join(w if i == 0 else w.title() for i, w in enumerate(k.split('_'))): v for k, v in options.items()}


def check(module, network, config_class, options):
    model_class = getattr(transformers, network)
    with tempfile.TemporaryDirectory() as root:
        made, plain, old = folders = [Path(root) / key for key in ('made', 'plain', 'old')]
        made.mkdir()
        values = torch.randn(2, 320)
        save_file({'input': values}, made / 'input.safetensors')
        model = model_class(config_class(**{**SIZE, **options})).eval()
        model.save_pretrained(plain)
        old_names(model, old)
        node(RUN, module, network, json.dumps(camel({**SIZE, **options})), *folders)
        back, info = model_class.from_pretrained(made, output_loading_info=True)
        assert not any(info.values()), info
        assert back.config.num_labels == SIZE['num_labels']
        with torch.no_grad():
            errors = [error(directory, reference.eval()(values).logits) for directory, reference in zip(folders, [back, model, model])]
    assert max(errors) < 1e-5, errors
    print('    {} {}: saved {:.1e}, read {:.1e}, old names {:.1e}: ok'.format(network, ' '.join(options) or 'plain', *errors))


def languages(module):
    """The layout of MMS: adapter.<language>.safetensors beside a network, and a vocabulary for each language."""
    config = Wav2Vec2Config(**{**SIZE, 'adapter_attn_dim': 3, **STABLE})
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        values = torch.randn(2, 320)
        save_file({'input': values}, folder / 'input.safetensors')
        transformers.Wav2Vec2ForCTC(config).save_pretrained(folder)
        german = transformers.Wav2Vec2ForCTC(Wav2Vec2Config(**{**config.to_dict(), 'vocab_size': 9}))
        save_file({k: v.contiguous() for k, v in german._get_adapters().items()}, folder / 'adapter.deu.safetensors', {'format': 'pt'})
        letters = {'<pad>': 0, '<s>': 1, '</s>': 2, '<unk>': 3, '|': 4}
        vocab = {'eng': {**letters, 'a': 5, 'b': 6}, 'deu': {**letters, 'ä': 5, 'b': 6, 'ö': 7, 'ü': 8}}
        (folder / 'vocab.json').write_text(json.dumps(vocab))
        tokenizer = Wav2Vec2CTCTokenizer(str(folder / 'vocab.json'), target_lang='eng')
        tokenizer.save_pretrained(folder)
        text = node(LANGUAGES, module, folder, folder).strip()
        tokenizer.set_target_lang('deu')
        assert text == tokenizer.decode([5, 5, 0, 7, 4, 6]), text
        errors = []
        for language in ('deu', 'fra'):
            model = transformers.Wav2Vec2ForCTC.from_pretrained(folder, target_lang=language, ignore_mismatched_sizes=True).eval()
            with torch.no_grad():
                errors.append(error(folder, model(values).logits))
    assert max(errors) < 1e-5, errors
    print('    adapters of languages: read {:.1e}, saved {:.1e}: ok'.format(*errors))


if __name__ == '__main__':
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    built = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / 'dist/index.js'
    torch.manual_seed(0)
    for prefix, config_class in (('Wav2Vec2', Wav2Vec2Config), ('WavLM', WavLMConfig)):
        for task in TASKS:
            network = f'{prefix}{task}'
            for options in OPTIONS.get(task, [dict(), dict(use_weighted_layer_sum=True)]) + OPTIONS.get(network, []):
                check(built, network, config_class, options)
    languages(built)
