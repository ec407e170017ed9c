"""GRPO's losses, gradients and advantages that test/tuning/grpo-loss.test.ts compares, computed by TRL's own trainer on given logits:
PYTHONPATH=<folder of trl 1.16.0> python grpo.py [--check].
"""

import ast
import inspect
import textwrap
from collections import defaultdict
from functools import partial
from types import SimpleNamespace as Some

import torch
from common import Fixture, main, randint, randn
from transformers.models.whisper.english_normalizer import BasicTextNormalizer
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import nanstd, selective_log_softmax

ANSWERS, PROMPT, TIME, VOCABULARY = 4, 3, 6, 11
LENGTHS = [6, 2, 4, 1]
IDS = randint('grpo ids', 0, VOCABULARY, ANSWERS, PROMPT + TIME)
MASK = torch.stack([(torch.arange(TIME) < length) for length in LENGTHS]).long()
LOGITS = randn('grpo logits', ANSWERS, PROMPT + TIME, VOCABULARY)
OLD = LOGITS + randn('grpo old', ANSWERS, PROMPT + TIME, VOCABULARY, scale=0.3)
REFERENCE = LOGITS + randn('grpo reference', ANSWERS, PROMPT + TIME, VOCABULARY, scale=0.5)
ADVANTAGES = torch.tensor([1.2, -0.7, 0.4, -0.9])
# Answers with the rewards of two functions; NaN where a function does not score one.
NONE = float('nan')
REWARDS = torch.tensor([[1, 0.5], [0, -0.25], [0.5, 1], [0.5, NONE], [2, 1], [2, 1], [NONE, NONE], [NONE, 0.75],
                        [NONE, NONE], [NONE, NONE], [0.125, 3], [NONE, NONE]])  # fmt: skip


def unchanged(tensor, **_):
    return tensor


def logps(logits):
    return selective_log_softmax(logits[:, :-1], IDS[:, 1:])[:, -TIME:]


class Fused:
    """A model with given logits that returns what TRL's fused head returns."""

    def __init__(self, logits):
        self.logits = logits

    def __call__(self, input_ids, labels, **_):
        values = selective_log_softmax(self.logits[:, :-1], labels[:, 1:].clamp(min=0)) * (labels[:, 1:] != -100)
        return Some(log_probs=values, entropy=torch.zeros_like(values), aux_loss=None)


class Accelerator:
    num_processes = 1
    sync_gradients = True
    gather = gather_for_metrics = reduce = staticmethod(unchanged)

    def autocast(self):
        return torch.enable_grad()


def loss_of(logits, loss_type, beta=0.0, epsilon=0.2, high=None, old=True, corrected=True, items=None, length=16):
    me = Some(
        accelerator=Accelerator(), model=Some(training=True), aux_loss_enabled=False, top_entropy_quantile=1.0,
        off_policy_mask_threshold=None, importance_sampling_level='token', beta=beta, loss_type=loss_type,
        epsilon_low=epsilon, epsilon_high=epsilon if high is None else high, use_vllm=False,
        current_gradient_accumulation_steps=1, max_completion_length=length, _entropy_bonus_enabled=False,
        _metrics=defaultdict(lambda: defaultdict(list)),
        args=Some(use_bias_correction_kl=corrected, delta=None, steps_per_generation=1),
    )  # fmt: skip
    # Without its decorator, which measures time.
    me._get_per_token_logps_and_entropies = partial(GRPOTrainer._get_per_token_logps_and_entropies.__wrapped__, me)
    inputs = {
        'prompt_ids': IDS[:, :PROMPT], 'prompt_mask': torch.ones(ANSWERS, PROMPT).long(), 'completion_ids': IDS[:, PROMPT:],
        'completion_mask': MASK, 'advantages': ADVANTAGES,
        'num_items_in_batch': torch.tensor(float(MASK.sum() if items is None else items)),
    }  # fmt: skip
    if old:
        inputs['old_per_token_logps'] = logps(OLD)
    if beta:
        inputs['ref_per_token_logps'] = logps(REFERENCE)
    loss = GRPOTrainer._compute_loss(me, Fused(logits), inputs)
    metrics = me._metrics['train']
    return loss, metrics['kl'][0] if beta else None, metrics['clip_ratio/region_mean'][0]


def advantages_of(rewards, weights, scale):
    """The statements of TRL's trainer from the rewards to the advantages, which are the middle of a long method."""
    source = textwrap.dedent(inspect.getsource(GRPOTrainer._generate_and_score_completions))
    body = ast.parse(source).body[0].body
    texts = [ast.unparse(one) for one in body]
    first = next(i for i, text in enumerate(texts) if text.startswith('unscorable_mask ='))
    last = next(i for i, text in enumerate(texts) if text.startswith('advantages = torch.nan_to_num'))
    me = Some(multi_objective_aggregation='sum_then_normalize', reward_weights=torch.tensor(weights), scale_rewards=scale)
    names = {'self': me, 'rewards_per_func': rewards, 'device': 'cpu', 'num_generations': 4, 'torch': torch, 'nanstd': nanstd}
    exec('\n'.join(texts[first : last + 1]), names)
    return names['advantages']


LOSSES = [
    {'lossType': 'grpo'},
    {'lossType': 'bnpo', 'epsilon': 0.1},
    {'lossType': 'dr_grpo', 'maxCompletionLength': 16},
    {'lossType': 'dapo'},
    {'lossType': 'dapo', 'numItems': 29, 'epsilonHigh': 0.28},
    {'lossType': 'grpo', 'beta': 0.04, 'epsilonHigh': 0.3},
    {'lossType': 'bnpo', 'beta': 0.5, 'useBiasCorrectionKl': False},
    {'lossType': 'dapo', 'beta': 0.1, 'old': False},
    {'lossType': 'dr_grpo', 'beta': 0.2, 'maxCompletionLength': 7},
]
NAMES = {'epsilonHigh': 'high', 'useBiasCorrectionKl': 'corrected', 'numItems': 'items', 'maxCompletionLength': 'length'}
ADVANTAGE_CASES = [([1.0, 1.0], 'group'), ([1.0, 1.0], 'batch'), ([1.0, 1.0], 'none'), ([0.25, 2.0], 'group')]


TEXTS = ['The CAT, sat!', 'a [noise] b<unk>c', '(laughs) no () yes (a)(b', 'it\u2019s \u00e9t\u00e9 \u2014 100 %', 'x [a (b] c) d',
         '  two   spaces\n', '\ufb01ne \u2460 \u0130stanbul', ']a[ > <', '\u3053\u3093\u306b\u3061\u306f\u3001\u4e16\u754c\u3002']


def grpo():
    fixture = Fixture()
    given = {'ids': IDS[:, PROMPT:], 'mask': MASK, 'logits': LOGITS, 'advantages': ADVANTAGES, 'rewards': REWARDS,
             'old': OLD, 'reference': REFERENCE}  # fmt: skip
    fixture.case({'name': 'given'}, **{'in': given})
    for i, options in enumerate(LOSSES):
        logits = LOGITS.clone().requires_grad_()
        arguments = {NAMES.get(key, key): value for key, value in options.items() if key != 'lossType'}
        loss, kl, clipped = loss_of(logits, options['lossType'], **arguments)
        (gradient,) = torch.autograd.grad(loss, logits)
        old = options.get('old', True)
        options = {key: value for key, value in options.items() if key != 'old'}
        fixture.case({'name': f'{i} {options["lossType"]}', 'options': options, 'old': old, 'kl': kl, 'clipRatio': clipped},
                     out={'loss': loss, 'gradient': gradient})  # fmt: skip
    for weights, scale in ADVANTAGE_CASES:
        described = {'name': f'{scale} {weights}', 'rewardWeights': weights, 'scaleRewards': scale}
        fixture.case(described, out={'advantages': advantages_of(REWARDS, weights, scale)})
    normalize = BasicTextNormalizer()
    for i, text in enumerate(TEXTS):
        fixture.case({'name': f'text {i}', 'text': text, 'normalized': normalize(text)})
    return fixture


if __name__ == '__main__':
    main({'tuning/grpo': grpo})
