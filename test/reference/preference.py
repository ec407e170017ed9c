"""Losses of preference training and their gradients that test/tuning/preference-losses.test.ts compares, computed by TRL's
own trainers on given logits: PYTHONPATH=<folder of trl 1.16.0> python preference.py [--check].
"""

from collections import defaultdict
from functools import partial
from types import SimpleNamespace as Some

import torch
from common import Fixture, main, randint, randn
from trl.experimental.cpo.cpo_trainer import CPOTrainer
from trl.experimental.orpo.orpo_trainer import ORPOTrainer
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.kto_trainer import KTOTrainer
from trl.trainer.utils import selective_log_softmax

PAIRS, TIME, VOCABULARY = 3, 8, 11
# Tokens of each row: the prompt, and where the answer ends. Chosen answers first.
ROWS = [(2, 6), (3, 8), (4, 5), (2, 8), (3, 5), (4, 7)]


def masks():
    places = torch.arange(TIME)
    attention = torch.stack([places < end for _, end in ROWS]).long()
    completion = torch.stack([(places >= start) & (places < end) for start, end in ROWS]).long()
    return attention, completion


IDS = randint('preference ids', 0, VOCABULARY, 2 * PAIRS, TIME)
KL_IDS = randint('preference kl ids', 0, VOCABULARY, 2 * PAIRS, TIME)
ATTENTION, COMPLETION = masks()
LOGITS = randn('preference logits', 2 * PAIRS, TIME, VOCABULARY)
REFERENCE = randn('preference reference', 2 * PAIRS, TIME, VOCABULARY)
KL_LOGITS = randn('preference kl', 2 * PAIRS, TIME, VOCABULARY)
# Lower where the tokens are, so that the estimate is positive; exchanged, it is negative, and counts as 0.
KL_REFERENCE = KL_LOGITS - torch.nn.functional.one_hot(KL_IDS.roll(-1, 1), VOCABULARY) * 0.5


def log_probs(logits, labels):
    known = labels[:, 1:].clamp(min=0)
    return selective_log_softmax(logits[:, :-1], known) * (labels[:, 1:] != -100)


def answers(logits, ids=IDS):
    return log_probs(logits, ids.masked_fill(COMPLETION == 0, -100)).sum(1)


def unchanged(tensor):
    return tensor


ACCELERATOR = Some(device=torch.device('cpu'), gather=unchanged, gather_for_metrics=unchanged)


def trainer(**fields):
    return Some(
        accelerator=ACCELERATOR,
        model=Some(training=True),
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
        aux_loss_enabled=False,
        **fields,
    )


class Fused:
    """A model with given logits that returns what TRL's fused head returns."""

    def __init__(self, logits, kl_logits=KL_LOGITS):
        self.logits = logits
        self.kl_logits = kl_logits

    def __call__(self, input_ids, labels, **_):
        logits = self.kl_logits if input_ids.equal(KL_IDS) else self.logits
        none = torch.zeros(labels.shape[0], labels.shape[1] - 1)
        return Some(log_probs=log_probs(logits, labels), entropy=none, mean_logits=none, is_top1=none.bool())


class Whole:
    """A model that returns given logits."""

    def __init__(self, logits):
        self.logits = logits

    def __call__(self, *_, **__):
        return Some(logits=self.logits)


def dpo(logits, loss_type, beta):
    me = trainer(ld_alpha=None, precompute_ref_logps=True, f_divergence_type='reverse_kl', loss_types=[loss_type],
                 loss_weights=[1.0], beta=beta, use_weighting=False)  # fmt: skip
    chosen, rejected = answers(REFERENCE).chunk(2)
    inputs = {'input_ids': IDS, 'attention_mask': ATTENTION, 'completion_mask': COMPLETION,
              'ref_chosen_logps': chosen, 'ref_rejected_logps': rejected}  # fmt: skip
    return DPOTrainer._compute_loss(me, Fused(logits), inputs, False)


def smoothed(logits, beta, label_smoothing):
    """TRL 1 smooths DPO's sigmoid loss only in its CPO trainer, here on the ratios to the reference."""
    me = trainer(alpha=0.0, beta=beta, label_smoothing=label_smoothing, loss_type='sigmoid')
    chosen, rejected = (answers(logits) - answers(REFERENCE)).chunk(2)
    return CPOTrainer.cpo_loss(me, chosen, rejected)[0].mean()


def kto(logits, beta, desirable_weight, undesirable_weight, kl_logits=KL_LOGITS, kl_reference=KL_REFERENCE, chosen=PAIRS):
    me = trainer(calculate_KL=True, precompute_ref_logps=True, loss_type='kto', beta=beta,
                 desirable_weight=desirable_weight, undesirable_weight=undesirable_weight)  # fmt: skip
    me._compute_kl_logps = partial(KTOTrainer._compute_kl_logps, me)
    batch = {'input_ids': IDS, 'attention_mask': ATTENTION, 'completion_mask': COMPLETION,
             'KL_input_ids': KL_IDS, 'KL_attention_mask': ATTENTION, 'KL_completion_mask': COMPLETION,
             'label': torch.tensor([True] * chosen + [False] * (2 * PAIRS - chosen)), 'ref_logps': answers(REFERENCE),
             'ref_KL_logps': answers(kl_reference, KL_IDS)}  # fmt: skip
    loss = KTOTrainer._compute_loss(me, Fused(logits, kl_logits), batch, False)
    return loss, me._metrics['train']['kl'][0]


def batch():
    labels = IDS.masked_fill(COMPLETION == 0, -100)
    made = {}
    for name, at in ('chosen', slice(0, PAIRS)), ('rejected', slice(PAIRS, None)):
        made |= {f'{name}_input_ids': IDS[at], f'{name}_attention_mask': ATTENTION[at], f'{name}_labels': labels[at]}
    return made


def orpo(logits, beta):
    me = trainer(is_encoder_decoder=False, padding_value=0, beta=beta, get_batch_logps=ORPOTrainer.get_batch_logps,
                 concatenated_inputs=ORPOTrainer.concatenated_inputs)  # fmt: skip
    me.concatenated_forward = partial(ORPOTrainer.concatenated_forward, me)
    me.odds_ratio_loss = partial(ORPOTrainer.odds_ratio_loss, me)
    return ORPOTrainer.get_batch_loss_metrics(me, Whole(logits), batch())[0]


def simpo(logits, beta, simpo_gamma, label_smoothing):
    me = trainer(is_encoder_decoder=False, pad_token_id=0, beta=beta, simpo_gamma=simpo_gamma, cpo_alpha=0.0, alpha=0.0,
                 label_smoothing=label_smoothing, loss_type='simpo', get_batch_logps=CPOTrainer.get_batch_logps,
                 concatenated_inputs=CPOTrainer.concatenated_inputs)  # fmt: skip
    me.concatenated_forward = partial(CPOTrainer.concatenated_forward, me)
    me.cpo_loss = partial(CPOTrainer.cpo_loss, me)
    return CPOTrainer.get_batch_loss_metrics(me, Whole(logits), batch())[0]


CASES = [
    ('sigmoid', {'beta': 0.1}, lambda x: dpo(x, 'sigmoid', 0.1)),
    ('sigmoid', {'beta': 0.5, 'labelSmoothing': 0.2}, lambda x: smoothed(x, 0.5, 0.2)),
    ('ipo', {'beta': 0.1}, lambda x: dpo(x, 'ipo', 0.1)),
    ('ipo', {'beta': 0.7}, lambda x: dpo(x, 'ipo', 0.7)),
    ('kto', {'beta': 0.1}, lambda x: kto(x, 0.1, 1.0, 1.0)),
    ('kto', {'beta': 0.3, 'desirableWeight': 1.5, 'undesirableWeight': 0.5}, lambda x: kto(x, 0.3, 1.5, 0.5)),
    ('kto', {'beta': 0.2, 'exchanged': True}, lambda x: kto(x, 0.2, 1.0, 1.0, KL_REFERENCE, KL_LOGITS)),
    ('kto', {'beta': 0.4, 'desirableWeight': 2.0, 'chosen': 2}, lambda x: kto(x, 0.4, 2.0, 1.0, chosen=2)),
    ('kto', {'beta': 0.4, 'chosen': 6}, lambda x: kto(x, 0.4, 1.0, 1.0, chosen=6)),
    ('orpo', {'beta': 0.1}, lambda x: orpo(x, 0.1)),
    ('orpo', {'beta': 0.6}, lambda x: orpo(x, 0.6)),
    ('simpo', {'beta': 2.0, 'simpoGamma': 1.0}, lambda x: simpo(x, 2.0, 1.0, 0.0)),
    ('simpo', {'beta': 0.5, 'simpoGamma': 0.5, 'labelSmoothing': 0.1}, lambda x: simpo(x, 0.5, 0.5, 0.1)),
]


def preference():
    fixture = Fixture()
    given = {'ids': IDS, 'klIds': KL_IDS, 'attention': ATTENTION, 'completion': COMPLETION, 'logits': LOGITS,
             'reference': REFERENCE, 'kl': KL_LOGITS, 'klReference': KL_REFERENCE}  # fmt: skip
    fixture.case({'name': 'given'}, **{'in': given})
    for i, (loss, options, compute) in enumerate(CASES):
        logits = LOGITS.clone().requires_grad_()
        value = compute(logits)
        kl = None
        if isinstance(value, tuple):
            value, kl = value
        (gradient,) = torch.autograd.grad(value, logits)
        described = {'name': f'{i} {loss}', 'loss': loss, 'exchanged': options.get('exchanged', False), 'kl': kl,
                     'chosen': options.get('chosen', PAIRS)}  # fmt: skip
        options = {key: value for key, value in options.items() if key not in ('exchanged', 'chosen')}
        fixture.case({**described, 'options': options},
                     out={'loss': value, 'gradient': gradient})  # fmt: skip
    return fixture


if __name__ == '__main__':
    main({'tuning/preference': preference})
