"""Tiny decoders that generate from 50 prompts, by transformers: test/fixtures/models/generation.safetensors.

Each case is one configuration. Sampling draws by inverting the cumulative distribution at given uniform numbers: this
replaces torch.multinomial, everything else is transformers' own. Prompts run one by one and in left-padded batches of 8;
the file has the second answers only where they are others.
"""

import warnings

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from common import Fixture, main, rand, randint
from decoder_lm import CLASSES, fill

warnings.filterwarnings('ignore')

VOCABULARY, PROMPTS, LONGEST, NEW, BATCH = 40, 50, 9, 10, 8
PAD = 1
SIZE = dict(
    vocab_size=VOCABULARY,
    hidden_size=12,
    intermediate_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=6,
    max_position_embeddings=64,
    rms_norm_eps=1e-5,
)
MODELS = dict(
    llama=('llama', {}),
    mistral=('mistral', dict(sliding_window=4)),
    qwen2=('qwen2', dict(tie_word_embeddings=True)),
)
ENDS = [5, 17, 29]
SAMPLE = dict(do_sample=True, top_k=0)
BEAM = dict(num_beams=4)
SEQUENCES = [[7, 8, 9], [7, 8, 10, 11], [12], [13, 14, 15, 16, 17 + 1, 19], [30, 31]]
STOPS = [[20], [3, 4], [22, 23]]

# What is said of a case: the models it runs on, and the configuration. `allowed` stands for a function of the text.
CASES = [
    dict(name='greedy', models='llama mistral qwen2', config={}),
    dict(name='sampled', models='llama mistral qwen2', config=dict(**SAMPLE)),
    dict(name='beam-4', models='llama mistral qwen2', config=dict(**BEAM)),
    dict(name='temperature', models='llama', config=dict(**SAMPLE, temperature=0.6)),
    dict(name='top-k', models='mistral', config=dict(do_sample=True, top_k=5)),
    dict(name='top-p', models='qwen2', config=dict(**SAMPLE, top_p=0.7)),
    dict(name='min-p', models='llama', config=dict(**SAMPLE, min_p=0.2)),
    dict(name='top-h', models='mistral', config=dict(**SAMPLE, top_h=0.5)),
    dict(name='typical-p', models='qwen2', config=dict(**SAMPLE, typical_p=0.6)),
    dict(name='epsilon', models='llama', config=dict(**SAMPLE, epsilon_cutoff=0.04)),
    dict(name='eta', models='mistral', config=dict(**SAMPLE, eta_cutoff=0.05)),
    dict(name='warpers', models='llama qwen2', config=dict(do_sample=True, temperature=1.4, top_k=20, top_p=0.9, min_p=0.03)),
    dict(name='repetition', models='llama', config=dict(repetition_penalty=1.7)),
    dict(name='repetition-sampled', models='mistral', config=dict(**SAMPLE, repetition_penalty=1.3, temperature=0.8)),
    dict(name='ngrams-1', models='qwen2', config=dict(no_repeat_ngram_size=1)),
    dict(name='ngrams-2', models='llama', config=dict(no_repeat_ngram_size=2)),
    dict(name='bad-words', models='mistral', config=dict(bad_words_ids=[[2], [3, 4], [5], [10, 11, 12], [21], [33]])),
    dict(name='bias', models='qwen2', config=dict(sequence_bias=[[[6], 1.5], [[9], -3.0], [[6, 7], 4.0], [[2, 3, 4], -2.0]])),
    dict(name='min-new', models='llama', config=dict(min_new_tokens=6)),
    dict(name='suppressed', models='mistral', config=dict(suppress_tokens=[3, 12, 20, 25], begin_suppress_tokens=[5, 8, 30, 33])),
    dict(name='forced-end', models='qwen2', config=dict(forced_eos_token_id=[29])),
    dict(name='decay', models='llama', config=dict(exponential_decay_length_penalty=[3, 1.6])),
    dict(name='lengths', models='mistral', config=dict(min_length=11, max_length=14, max_new_tokens=None)),
    dict(name='forced-begin', models='llama', config=dict(forced_bos_token_id=22, begin_suppress_tokens=[4, 9, 13])),
    dict(name='allowed-fn', models='qwen2', allowed=True, config={}),
    dict(name='allowed-fn-beams', models='llama', allowed=True, config=dict(**BEAM)),
    dict(name='sequences', models='mistral', sequences=SEQUENCES, config={}),
    dict(name='sequences-beams', models='qwen2', sequences=SEQUENCES, config=dict(**BEAM)),
    dict(name='stops', models='llama', stops=STOPS, config={}),
    dict(name='renormalized', models='mistral', config=dict(do_sample=True, top_k=8, repetition_penalty=1.2, renormalize_logits=True)),
    dict(name='all', models='llama mistral qwen2', config=dict(do_sample=True, temperature=1.2, top_k=25, top_p=0.95, typical_p=0.95, repetition_penalty=1.2, no_repeat_ngram_size=3, min_new_tokens=4, bad_words_ids=[[2, 3], [14]], suppress_tokens=[0], sequence_bias=[[[6], 1.0]])),
    dict(name='beam-early', models='llama', config=dict(**BEAM, early_stopping=True)),
    dict(name='beam-never', models='mistral', config=dict(**BEAM, early_stopping='never', length_penalty=1.4)),
    dict(name='beam-short', models='qwen2', config=dict(**BEAM, length_penalty=-0.5)),
    dict(name='beam-canonical', models='llama', config=dict(num_beams=3, early_stopping='never', length_penalty=0.0)),
    dict(name='beam-one-end', models='llama', config=dict(**BEAM, eos_token_id=[5])),
    dict(name='beam-no-end', models='mistral', config=dict(**BEAM, eos_token_id=None)),
    dict(name='beam-processors', models='mistral', config=dict(**BEAM, repetition_penalty=1.3, no_repeat_ngram_size=2, min_new_tokens=4, bad_words_ids=[[2], [3, 4]])),
    dict(name='beam-returned', models='qwen2', config=dict(**BEAM, num_return_sequences=3)),
    dict(name='beam-sampled', models='llama', brief=True, config=dict(num_beams=3, do_sample=True, top_k=12, temperature=0.9, eos_token_id=[5])),
    dict(name='returned', models='mistral', brief=True, config=dict(**SAMPLE, num_return_sequences=3)),
]


def build(name):
    type, options = MODELS[name]
    config_class, model_class = CLASSES[type]
    config = config_class(**SIZE, **options)
    config._attn_implementation = 'eager'
    model = model_class(config).eval()
    fill(model, f'generation/{name}')
    # Livelier: each token says much about the next.
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if 'norm' not in key:
                parameter.mul_(2)
    model.generation_config.do_sample = False
    return model


def prompts():
    lengths = randint('generation/lengths', 1, LONGEST + 1, PROMPTS)
    ids = randint('generation/prompts', 2, VOCABULARY, PROMPTS, LONGEST)
    mask = (torch.arange(LONGEST)[None, :] >= LONGEST - lengths[:, None]).long()
    return torch.where(mask == 1, ids, PAD), mask


class Draws:
    """torch.multinomial with given numbers: uniforms [steps, rows] or [steps, rows, samples]."""

    def __init__(self, uniforms):
        self.uniforms = uniforms.double().reshape(*uniforms.shape[:2], -1)
        self.step = 0

    def __call__(self, probabilities, num_samples=1, **_):
        uniforms = self.uniforms[self.step]
        self.step += 1
        rows = []
        for row, weights in enumerate(probabilities.double()):
            weights = weights.clone()
            taken = []
            for sample in range(num_samples):
                sums = weights.cumsum(0) / weights.sum()
                u = uniforms[row, sample]
                near = (sums - u).abs().min().item()
                assert near > 1e-6, f'a draw is on the border: {near}'
                taken.append(int(torch.searchsorted(sums, u, right=True)))
                weights[taken[-1]] = 0
            rows.append(taken)
        return torch.tensor(rows)


class Stops(StoppingCriteria):
    def __init__(self, sequences, width):
        self.sequences, self.width = sequences, width

    def __call__(self, ids, scores, **_):
        new = ids[:, self.width :].tolist()
        return torch.tensor([any(row[-len(s) :] == s for s in self.sequences) for row in new])


def allowed_after(text):
    """The same function as in the test."""
    last = int(text[-1])
    return [id for id in range(VOCABULARY) if (id * 7 + last) % 3 == 0 or id == 5]


def follows(sequences, ends, width):
    def allowed(_, text):
        done = text[width:].tolist()
        heads = [s for s in sequences if s[: len(done)] == done]
        if not heads:
            return ends
        return sorted({s[len(done)] for s in heads if len(s) > len(done)} | (set(ends) if done in sequences else set()))

    return allowed


def run(model, case, ids, mask, uniforms, extra=None):
    width = ids.shape[1]
    options = dict(max_new_tokens=NEW, eos_token_id=ENDS, pad_token_id=PAD) | case['config']
    if case.get('allowed'):
        options['prefix_allowed_tokens_fn'] = lambda _, text: allowed_after(text)
    if 'sequences' in case:
        options['prefix_allowed_tokens_fn'] = follows(case['sequences'], ENDS, width)
    if 'stops' in case:
        options['stopping_criteria'] = StoppingCriteriaList([Stops(case['stops'], width)])
    before, torch.multinomial = torch.multinomial, Draws(uniforms)
    try:
        with torch.no_grad():
            out = model.generate(
                input_ids=ids, attention_mask=mask, **options, return_dict_in_generate=True, output_scores=True
            )
    finally:
        torch.multinomial = before
    if extra is not None:
        extra.append((model, out))
    new = out.sequences[:, width:]
    return torch.nn.functional.pad(new, (0, NEW + LONGEST - new.shape[1]), value=PAD)


def generation():
    fixture = Fixture()
    models = {name: build(name) for name in MODELS}
    for name, model in models.items():
        fixture.case(dict(name=name, config={'model_type': MODELS[name][0], **SIZE, **MODELS[name][1]}),
                     param={k: v for k, v in model.named_parameters()})
    ids, mask = prompts()
    uniforms = coarse(rand('generation/uniforms', NEW, PROMPTS, 3))
    many = coarse(rand('generation/uniforms of beams', NEW, 16, 6))
    fixture.case(dict(name='prompts'), **{'in': dict(ids=ids.to(torch.uint8), mask=mask.to(torch.uint8), uniforms=uniforms.half(), many=many.half())})
    for case in CASES:
        for model_name in case['models'].split():
            one_case(fixture, f'{case["name"]}-{model_name}', models[model_name], model_name, case, ids, mask, uniforms, many)
    return fixture


def coarse(values):
    """Away from 0 and 1, and exact in 16 bits."""
    return (values * 1024).floor().clamp(1, 1022) / 1024 + 2**-11


def one_case(fixture, name, model, model_name, case, ids, mask, uniforms, many):
    config = case['config']
    beams, returned = config.get('num_beams', 1), config.get('num_return_sequences', 1)
    count = 16 if case.get('brief') else PROMPTS

    def draws(rows):
        if beams > 1:
            return many[:, [row % 16 for row in rows]]
        return uniforms[:, rows, :returned].reshape(NEW, -1)

    extra = []
    alone = []
    for row in range(count):
        start = int(mask[row].argmax())
        alone.append(run(model, case, ids[row : row + 1, start:], mask[row : row + 1, start:], draws([row]), extra))
    batched = []
    for first in range(0, count, BATCH):
        rows = list(range(first, min(first + BATCH, count)))
        batched.append(run(model, case, ids[rows], mask[rows], draws(rows)))
    alone, batched = torch.cat(alone), torch.cat(batched)
    longest = int(((alone != PAD) | (batched != PAD)).any(0).nonzero().max()) + 1
    out = dict(alone=alone[:, :longest].to(torch.uint8))
    if not alone.equal(batched):
        out['batched'] = batched[:, :longest].to(torch.uint8)
    if case['name'] in ('greedy', 'all'):
        logprobs = [m.compute_transition_scores(o.sequences, o.scores, normalize_logits=True)[0] for m, o in extra[:4]]
        out |= {f'logprobs.{i}': value for i, value in enumerate(logprobs)}
    if name == 'greedy-llama':
        out['scores'] = torch.stack(extra[0][1].scores)
    if beams > 1:
        out['sequences_scores'] = torch.cat([o.sequences_scores for _, o in extra])
    description = {key: value for key, value in case.items() if key not in ('name', 'models')}
    fixture.case(dict(name=name, model=model_name, count=count, case=description), out=out)


if __name__ == '__main__':
    main({'models/generation': generation})
