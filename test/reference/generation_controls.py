"""Own logits processors and stopping criteria, and classifier-free guidance, by transformers, on the networks and prompts
of generation.py: test/fixtures/models/generation-controls.safetensors.

Guidance in a batch runs without padding in the negative prompts, and beams without it at all: transformers does not
reorder the memory of what it leads away from.
"""

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from common import Fixture, main, rand, randint
from generation import BEAM, MODELS, NEW, PAD, PROMPTS, SAMPLE, VOCABULARY, build, coarse, prompts, run

COUNT, BATCH = 16, 4


class Favour(LogitsProcessor):
    """The same function as in the test."""

    def __call__(self, ids, scores):
        favoured = (torch.arange(VOCABULARY) * 5 + ids[:, -1:]) % 4 == 0
        return scores + 0.7 * favoured


class Enough(StoppingCriteria):
    """The same function as in the test."""

    def __call__(self, ids, scores, **_):
        return ids[:, -3:].sum(-1) % 7 == 0


# name, model, configuration, own processor, own criterion, negative prompts
CASES = [
    ('processor', 'llama', {}, True, False, False),
    ('processor-sampled', 'mistral', dict(**SAMPLE, temperature=0.8, repetition_penalty=1.2), True, False, False),
    ('processor-beams', 'qwen2', dict(**BEAM), True, False, False),
    ('criterion', 'llama', {}, False, True, False),
    ('criterion-beams', 'mistral', dict(**BEAM), False, True, False),
    ('both', 'qwen2', dict(repetition_penalty=1.3, min_new_tokens=3), True, True, False),
    ('guidance', 'llama', dict(guidance_scale=1.7), False, False, False),
    ('guidance-negative', 'mistral', dict(guidance_scale=2.5), False, False, True),
    ('guidance-below', 'qwen2', dict(guidance_scale=0.4), False, False, True),
    ('guidance-sampled', 'llama', dict(**SAMPLE, guidance_scale=1.5, temperature=0.7, repetition_penalty=1.3), True, False, True),
]


def controls():
    fixture = Fixture()
    models = {name: build(name) for name in MODELS}
    ids, mask = prompts()
    uniforms = coarse(rand('generation/uniforms', NEW, PROMPTS, 3))
    negative = randint('generation/negative', 2, VOCABULARY, COUNT, 4)
    fixture.case(dict(name='prompts'), **{'in': dict(negative=negative)})
    for name, model, config, processor, criterion, negatives in CASES:
        def generate(rows, start):
            options = dict(config)
            if processor:
                options['logits_processor'] = LogitsProcessorList([Favour()])
            if criterion:
                options['stopping_criteria'] = StoppingCriteriaList([Enough()])
            if negatives:
                options['negative_prompt_ids'] = negative[rows]
            return run(models[model], dict(config=options), ids[rows][:, start:], mask[rows][:, start:], uniforms[:, rows, 0])

        alone = torch.cat([generate([row], int(mask[row].argmax())) for row in range(COUNT)])
        batched = torch.cat([generate(list(range(first, first + BATCH)), 0) for first in range(0, COUNT, BATCH)])
        longest = int(((alone != PAD) | (batched != PAD)).any(0).nonzero().max()) + 1
        out = dict(alone=alone[:, :longest])
        if not alone.equal(batched):
            print(name, 'is another in batches')
        fixture.case(
            dict(name=name, model=model, case=dict(config=config), processor=processor, criterion=criterion, negatives=negatives),
            out=out,
        )
    return fixture


if __name__ == '__main__':
    main({'models/generation-controls': controls})
