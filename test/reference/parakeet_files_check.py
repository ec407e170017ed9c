"""Has Parakeet models save folders that transformers reads, and read what transformers' save_pretrained writes; counts the
parameters of the published sizes.

    python test/reference/parakeet_files_check.py [MODULE]     MODULE is the built library; default dist/index.js

Prints (transformers 5.24.0, torch 2.13.0):
    parakeet-ctc-0.6b: 608,799,745 parameters
    parakeet-ctc-1.1b: 1,062,540,289 parameters
    parakeet-rnnt-0.6b: 616,692,225 parameters
    parakeet-tdt-0.6b-v2: 617,825,926 parameters
    parakeet-tdt-0.6b-v3: 627,008,134 parameters
    ParakeetForCTC: read, features 2.2e-06, output 2.0e-07; saved, features 2.2e-06, output 2.0e-07: ok
    ParakeetForRNNT: read, features 2.0e-06, output 5.6e-07; saved, features 2.0e-06, output 5.6e-07: ok
    ParakeetForTDT: read, features 3.7e-06, output 9.4e-07; saved, features 3.7e-06, output 9.4e-07: ok
The numbers are max|a-b| / max|b| of the logits (of the encoder's projected states for transducers).
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, ParakeetEncoderConfig, ParakeetFeatureExtractor, ParakeetProcessor, logging

from parakeet import BARE, KINDS, SIZE, fill, tokenizer_of

ROOT = Path(__file__).resolve().parents[2]
# Loads a folder, writes its features of a clip and its output there, and saves it to another folder.
RUN = """
const models = await import(process.argv[1])
const { loadSafetensors, saveSafetensors } = models
const [name, from, to] = process.argv.slice(2)
const { tensors } = await loadSafetensors(`${from}/clip.safetensors`)
const model = await models[name].fromPretrained(from)
const { inputFeatures, attentionMask } = await model.extractFeatures([tensors.clip])
const { logits, lastHiddenState } = await model.forward({ inputFeatures, attentionMask })
const output = logits ?? model.encoder_projector.forward(lastHiddenState)
await saveSafetensors(`${from}/output.safetensors`, { features: inputFeatures, output })
const [{ tokens }] = await model.generate({ inputFeatures, attentionMask })
console.log(JSON.stringify({ text: model.tokenizer.decode(tokens, { skipSpecialTokens: true }) }))
await model.save(to)
"""


def error(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


def check(module, kind):
    network, config_class, own = KINDS[kind]
    config = config_class(encoder_config=ParakeetEncoderConfig(**SIZE, **BARE), **own)
    model = network(config)
    fill(model, f'files/{kind}')
    model.eval()
    with tempfile.TemporaryDirectory() as root:
        theirs, ours = Path(root) / 'theirs', Path(root) / 'ours'
        model.save_pretrained(theirs)
        processor = ParakeetProcessor(ParakeetFeatureExtractor(feature_size=16), tokenizer_of(kind), decoder_type=kind)
        processor.save_pretrained(theirs)
        clip = torch.randn(16000) * 0.1
        save_file({'clip': clip}, theirs / 'clip.safetensors')
        command = ['node', '--input-type=module', '-e', RUN, '--', module.as_uri()]
        out = subprocess.run([*command, network.__name__, theirs, ours], check=True, stdout=subprocess.PIPE, text=True)
        json.loads(out.stdout)
        found = load_file(theirs / 'output.safetensors')
        back, info = network.from_pretrained(ours, output_loading_info=True)
        assert not any(info.values()), info
        saved = AutoProcessor.from_pretrained(ours)
        assert isinstance(saved, ParakeetProcessor), saved
        errors = []
        for reference, reader in ((model, processor), (back.eval(), saved)):
            inputs = reader.feature_extractor([clip.numpy()], sampling_rate=16000, return_tensors='pt')
            with torch.no_grad():
                if kind == 'ctc':
                    output = reference(**inputs).logits
                else:
                    output = reference.get_audio_features(**inputs).pooler_output
            valid = reference._get_output_attention_mask(inputs.attention_mask, output.shape[1])[0]
            errors += [error(found['features'], inputs.input_features), error(found['output'][:, valid], output[:, valid])]
        ids = [2, 3, 4, 4, 5, 6, 7]
        assert saved.tokenizer.decode(ids, group_tokens=False) == processor.tokenizer.decode(ids, group_tokens=False)
    assert max(errors) < 1e-4, errors
    print('    {}: read, features {:.1e}, output {:.1e}; saved, features {:.1e}, output {:.1e}: ok'.format(network.__name__, *errors))


def sizes():
    bare = dict(num_mel_bins=128, **BARE)
    small = dict(vocab_size=1025, blank_token_id=1024, pad_token_id=1024)
    for name, kind, encoder, own in [
        ('parakeet-ctc-0.6b', 'ctc', {}, {}),
        ('parakeet-ctc-1.1b', 'ctc', dict(num_hidden_layers=42), {}),
        ('parakeet-rnnt-0.6b', 'rnnt', {}, small),
        ('parakeet-tdt-0.6b-v2', 'tdt', bare, small),
        ('parakeet-tdt-0.6b-v3', 'tdt', bare, {}),
    ]:
        network, config_class, _ = KINDS[kind]
        with torch.device('meta'):
            model = network(config_class(encoder_config=ParakeetEncoderConfig(**encoder), **own))
        print(f'    {name}: {sum(p.numel() for p in model.parameters()):,} parameters')


if __name__ == '__main__':
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    built = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / 'dist/index.js'
    torch.manual_seed(0)
    sizes()
    for kind in KINDS:
        check(built, kind)
