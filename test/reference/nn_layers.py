"""Layers and initialisation laws of PyTorch: python nn_layers.py [--check] [names].

Each case names what the TypeScript test has to build and call; a string that starts with `$` stands for a tensor.
"""

import math

import torch
from common import Fixture, main, randint, randn
from nn_cases import Cases
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


def unary(cases, kind, name, module, construct, shape, train=False, seed=None):
    cases.run(
        name, f'nn.{kind}', {'x': randn(f'{name}/x', *shape)}, ['$x'], lambda m, x: m(x),
        module=module, construct=construct, train=train, seed=seed,
    )  # fmt: skip


def basic():
    c = Cases()
    unary(c, 'Linear', 'linear', nn.Linear(5, 3), [5, 3], (4, 5))
    unary(c, 'Linear', 'linear 3d', nn.Linear(5, 3), [5, 3], (2, 4, 5))
    unary(c, 'Linear', 'linear 1d', nn.Linear(5, 3), [5, 3], (5,))
    unary(c, 'Linear', 'linear no bias', nn.Linear(5, 3, bias=False), [5, 3, {'bias': False}], (4, 5))
    unary(c, 'Identity', 'identity', nn.Identity(), [], (4, 5))
    unary(c, 'Flatten', 'flatten', nn.Flatten(), [], (2, 3, 4))
    unary(c, 'Flatten', 'flatten 0 to 1', nn.Flatten(0, 1), [0, 1], (2, 3, 4))
    for kind, options in (('ReLU', {}), ('SiLU', {}), ('Tanh', {}), ('Sigmoid', {}), ('GELU', {})):
        unary(c, kind, kind.lower(), getattr(nn, kind)(), [], (4, 5))
    unary(c, 'GELU', 'gelu tanh', nn.GELU('tanh'), [{'approximate': 'tanh'}], (4, 5))
    unary(c, 'Softmax', 'softmax', nn.Softmax(1), [1], (2, 5, 3))
    unary(c, 'Dropout', 'dropout eval', nn.Dropout(0.4), [0.4], (4, 5))
    unary(c, 'Dropout', 'dropout train', nn.Dropout(0.4), [0.4], (6, 7), train=True, seed=5)

    unary(c, 'LayerNorm', 'layer norm', nn.LayerNorm(6), [6], (3, 4, 6))
    unary(c, 'LayerNorm', 'layer norm 2 dims', nn.LayerNorm([4, 6], eps=1e-3), [[4, 6], {'eps': 1e-3}], (3, 4, 6))
    unary(c, 'LayerNorm', 'layer norm no bias', nn.LayerNorm(6, bias=False), [6, {'bias': False}], (3, 6))
    plain = {'elementwiseAffine': False}
    unary(c, 'LayerNorm', 'layer norm plain', nn.LayerNorm(6, elementwise_affine=False), [6, plain], (3, 6))
    unary(c, 'RMSNorm', 'rms norm', nn.RMSNorm(6), [6], (3, 4, 6))
    unary(c, 'RMSNorm', 'rms norm eps', nn.RMSNorm([4, 6], eps=1e-2), [[4, 6], {'eps': 1e-2}], (3, 4, 6))
    unary(c, 'RMSNorm', 'rms norm plain', nn.RMSNorm(6, elementwise_affine=False), [6, plain], (3, 6))
    unary(c, 'GroupNorm', 'group norm', nn.GroupNorm(2, 6), [2, 6], (3, 6, 4))
    unary(c, 'GroupNorm', 'group norm 4d', nn.GroupNorm(3, 6, eps=1e-3), [3, 6, {'eps': 1e-3}], (2, 6, 3, 2))
    plain = {'affine': False}
    unary(c, 'GroupNorm', 'group norm plain', nn.GroupNorm(6, 6, affine=False), [6, 6, plain], (2, 6, 5))
    for train in (True, False):
        mode = 'train' if train else 'eval'
        unary(c, 'BatchNorm1d', f'batch norm {mode}', nn.BatchNorm1d(5), [5], (4, 5), train)
        unary(c, 'BatchNorm1d', f'batch norm 3d {mode}', nn.BatchNorm1d(5), [5], (3, 5, 4), train)
        unary(c, 'BatchNorm1d', f'batch norm mean {mode}', nn.BatchNorm1d(5, momentum=None),
              [5, {'momentum': None}], (4, 5), train)  # fmt: skip
        unary(c, 'BatchNorm1d', f'batch norm untracked {mode}', nn.BatchNorm1d(5, track_running_stats=False),
              [5, {'trackRunningStats': False}], (4, 5), train)  # fmt: skip
    unary(c, 'BatchNorm1d', 'batch norm plain', nn.BatchNorm1d(5, affine=False), [5, plain], (4, 5), True)

    for name, shape, options in (
        ('embedding', (4,), {}),
        ('embedding 2d', (2, 3), {}),
        ('embedding padding', (3, 4), {'paddingIdx': 2}),
        ('embedding padding from end', (3, 4), {'paddingIdx': -1}),
    ):
        module = nn.Embedding(5, 3, padding_idx=options.get('paddingIdx'))
        c.run(name, 'nn.Embedding', {'x': randint(name, 0, 5, *shape)}, ['$x'], lambda m, x: m(x),
              module=module, construct=[5, 3, options])  # fmt: skip

    conv = (
        ('plain', {}, 1),
        ('strided', {'stride': 2, 'padding': 1, 'dilation': 2, 'bias': False}, 1),
        ('groups', {'groups': 2, 'padding': 'valid'}, 1),
        ('same', {'padding': 'same', 'dilation': 1}, 1),
        ('reflect', {'padding': 2, 'paddingMode': 'reflect'}, 1),
        ('replicate', {'padding': 'same', 'paddingMode': 'replicate', 'dilation': 2}, 1),
        ('circular', {'padding': 1, 'paddingMode': 'circular'}, 1),
        ('unbatched', {}, 0),
    )
    for label, options, batched in conv:
        python = {('padding_mode' if key == 'paddingMode' else key): value for key, value in options.items()}
        shape = (2, 4, 9) if batched else (4, 9)
        kernel = 4 if label == 'same' else 3
        unary(c, 'Conv1d', f'conv1d {label}', nn.Conv1d(4, 6, kernel, **python), [4, 6, kernel, options], shape)
        shape = (2, 4, 6, 7) if batched else (4, 6, 7)
        unary(c, 'Conv2d', f'conv2d {label}', nn.Conv2d(4, 2, (3, 2), **python), [4, 2, [3, 2], options], shape)
    return c


def recurrent():
    c = Cases()

    def case(name, kind, options=None, *, lengths=None, state=False, unbatched=False, seed=None):
        options = options or {}
        names = {'numLayers': 'num_layers', 'batchFirst': 'batch_first'}
        module = getattr(nn, kind)(4, 3, **{names.get(key, key): value for key, value in options.items()})
        module._flat_weights_names  # noqa: B018  (fails early if torch renames what the order of names relies on)
        depth = options.get('numLayers', 1) * (2 if options.get('bidirectional') else 1)
        batch_first = options.get('batchFirst', False)
        inputs = {'x': randn(f'{name}/x', *((5, 4) if unbatched else (3, 5, 4) if batch_first else (5, 3, 4)))}
        states = ['hidden'] if kind == 'GRU' else ['hidden', 'cell']
        if state:
            shape = (depth, 3) if unbatched else (depth, 3, 3)
            inputs |= {f'{key}0': randn(f'{name}/{key}0', *shape) for key in states}
        initial = None
        if state:
            initial = '$hidden0' if kind == 'GRU' else {'hidden': '$hidden0', 'cell': '$cell0'}

        def run(m, x, hidden0=None, cell0=None):
            hx = hidden0 if kind == 'GRU' or hidden0 is None else (hidden0, cell0)
            if lengths:
                x = pack_padded_sequence(x, torch.tensor(lengths), batch_first=batch_first, enforce_sorted=False)
            output, last = m(x, hx)
            if lengths:
                output, _ = pad_packed_sequence(output, batch_first=batch_first, total_length=5)
            last = (last,) if kind == 'GRU' else last
            return {'output': output, **dict(zip(states, last, strict=True))}

        args = ['$x', initial] + ([{'lengths': lengths}] if lengths else [])
        c.run(name, f'nn.{kind}', inputs, args, run, module=module, construct=[4, 3, options],
              train=seed is not None, seed=seed)  # fmt: skip

    for kind in ('GRU', 'LSTM'):
        k = kind.lower()
        deep = {'numLayers': 2, 'bidirectional': True}
        case(f'{k}', kind)
        case(f'{k} state', kind, state=True)
        case(f'{k} no bias', kind, {'bias': False, 'batchFirst': True})
        case(f'{k} unbatched', kind, deep, unbatched=True, state=True)
        case(f'{k} deep', kind, deep)
        case(f'{k} deep batch first state', kind, deep | {'batchFirst': True}, state=True)
        case(f'{k} lengths', kind, lengths=[5, 4, 2])
        case(f'{k} lengths unsorted', kind, {'batchFirst': True}, lengths=[2, 4, 3], state=True)
        case(f'{k} lengths deep', kind, deep | {'batchFirst': True}, lengths=[1, 5, 3])
        case(f'{k} dropout', kind, deep | {'dropout': 0.5}, seed=7)
    return c


def attention():
    c = Cases()
    causal = torch.ones(4, 4, dtype=torch.bool).triu(1)
    padding = torch.tensor([[False] * 4, [False, False, True, True]])
    forbidden = torch.tensor(
        [[False, False, True, False], [True, False, False, False], [False, True, False, True], [False] * 4]
    )

    def case(name, *, source=None, kv=None, options=None, call=None, masks=None, torch_mask=None, unbatched=False, seed=None):
        options, call, masks = options or {}, call or {}, masks or {}
        first = options.get('batchFirst', False)
        kdim, vdim = options.get('kdim', 8), options.get('vdim', 8)

        def shape(time, dim):
            return (time, dim) if unbatched else (2, time, dim) if first else (time, 2, dim)

        inputs = {'q': randn(f'{name}/q', *shape(4, 8))}
        refs = ['$q', '$q', '$q']
        if source:
            inputs['k'] = randn(f'{name}/k', *shape(source, kdim))
            refs = ['$q', '$k', '$k']
            if kv:
                inputs['v'] = randn(f'{name}/v', *shape(source, vdim))
                refs = ['$q', '$k', '$v']
        inputs |= masks
        module = nn.MultiheadAttention(
            8, 2, dropout=options.get('dropout', 0), bias=options.get('bias', True), kdim=options.get('kdim'),
            vdim=options.get('vdim'), batch_first=first,
        )  # fmt: skip

        def run(m, q, k=None, v=None, keyPaddingMask=None, attnMask=None):
            k = q if k is None else k
            v = k if v is None else v
            mask = attnMask if torch_mask is None else torch_mask
            output, weights = m(
                q, k, v, key_padding_mask=keyPaddingMask, attn_mask=mask,
                need_weights=call.get('needWeights', True), average_attn_weights=call.get('averageAttnWeights', True),
            )  # fmt: skip
            return {'output': output} if weights is None else {'output': output, 'weights': weights}

        args = [*refs, call | {key: f'${key}' for key in masks}]
        c.run(name, 'nn.MultiheadAttention', inputs, args, run, module=module, construct=[8, 2, options],
              train=seed is not None, seed=seed, still=tuple(masks))  # fmt: skip

    fused = {'needWeights': False}
    first = {'batchFirst': True}
    case('mha self')
    case('mha self fused', call=fused)
    case('mha self heads', call={'averageAttnWeights': False}, options=first)
    case('mha encoder decoder', source=5, call=fused)
    case('mha three inputs', source=5, kv=True, options=first)
    case('mha kdim vdim', source=5, kv=True, options={'kdim': 6, 'vdim': 5})
    case('mha kdim vdim no bias', source=5, kv=True, options={'kdim': 6, 'vdim': 5, 'bias': False}, call=fused)
    case('mha unbatched', unbatched=True)
    case('mha unbatched fused', unbatched=True, source=3, call=fused)
    case('mha padding', masks={'keyPaddingMask': padding}, options=first)
    case('mha padding fused', masks={'keyPaddingMask': padding}, call=fused)
    case('mha unbatched padding', masks={'keyPaddingMask': padding[1]}, unbatched=True, call=fused)
    case('mha bool mask', masks={'attnMask': forbidden})
    case('mha float mask fused', masks={'attnMask': randn('float mask', 4, 4)}, call=fused)
    case('mha mask per head', masks={'attnMask': randn('mask per head', 4, 4, 4)}, options=first)
    case('mha mask per head fused', masks={'attnMask': randn('mask per head fused', 4, 4, 4)}, call=fused)
    case('mha mask and padding', masks={'attnMask': forbidden, 'keyPaddingMask': padding}, options=first, call=fused)
    case('mha causal', call={'isCausal': True}, torch_mask=causal)
    case('mha causal fused', call={'isCausal': True, 'needWeights': False}, torch_mask=causal)
    case('mha causal padding', call={'isCausal': True, 'needWeights': False}, torch_mask=causal,
         masks={'keyPaddingMask': padding}, options=first)  # fmt: skip
    case('mha dropout', options={'dropout': 0.3} | first, seed=11)
    case('mha dropout fused', options={'dropout': 0.3}, call=fused, seed=12)

    def encoder(name, options, *, layers=None, masks=None, call=None, torch_mask=None, seed=None, norm=False):
        masks, call = masks or {}, call or {}
        names = {'dimFeedforward': 'dim_feedforward', 'batchFirst': 'batch_first', 'normFirst': 'norm_first'}
        options = {'dimFeedforward': 12, **options}
        python = {names.get(key, key): value for key, value in options.items()}
        module = nn.TransformerEncoderLayer(8, 2, **python)
        construct = [8, 2, options]
        if layers:
            final = nn.LayerNorm(8) if norm else None
            module = nn.TransformerEncoder(module, layers, norm=final, enable_nested_tensor=False)
            construct = [{'layer': construct, 'numLayers': layers, 'norm': 8 if norm else None}]
        shape = (2, 4, 8) if options.get('batchFirst') else (4, 2, 8)
        inputs = {'x': randn(f'{name}/x', *shape)} | masks

        def run(m, x, mask=None, keyPaddingMask=None):
            mask = mask if torch_mask is None else torch_mask
            key = 'mask' if layers else 'src_mask'
            return m(x, **{key: mask}, src_key_padding_mask=keyPaddingMask, is_causal=False)

        args = ['$x', call | {key: f'${key}' for key in masks}]
        kind = 'nn.TransformerEncoder' if layers else 'nn.TransformerEncoderLayer'
        c.run(name, kind, inputs, args, run, module=module, construct=construct,
              train=seed is not None, seed=seed, still=tuple(masks))  # fmt: skip

    encoder('encoder layer', {})
    encoder('encoder layer gelu first', {'activation': 'gelu', 'normFirst': True, 'batchFirst': True})
    encoder('encoder layer no bias', {'bias': False, 'batchFirst': True})
    encoder('encoder layer masks', {'batchFirst': True}, masks={'mask': forbidden, 'keyPaddingMask': padding})
    encoder('encoder layer causal', {}, call={'isCausal': True}, torch_mask=causal)
    encoder('encoder layer dropout', {'dropout': 0.2, 'batchFirst': True}, seed=13)
    encoder('encoder', {'batchFirst': True}, layers=2, masks={'keyPaddingMask': padding})
    encoder('encoder norm causal', {'normFirst': True}, layers=3, norm=True, call={'isCausal': True}, torch_mask=causal)
    encoder('encoder dropout', {'dropout': 0.2, 'activation': 'gelu'}, layers=2, seed=14)
    return c


def initial():
    """What torch.manual_seed(0) gives, and the generator's next number, which shows that as many were drawn."""
    c = Fixture()

    def layer(name, kind, construct, build):
        torch.manual_seed(0)
        module = build()
        following = {'next': torch.rand(2)}
        state = module.state_dict()
        c.case({'name': name, 'call': f'nn.{kind}', 'construct': construct, 'state': list(state)},
               state=state, following=following)  # fmt: skip

    def law(name, function, shape, args, run):
        torch.manual_seed(0)
        t = run(torch.empty(shape))
        c.case({'name': name, 'call': f'init.{function}', 'shape': shape, 'args': args},
               state={'t': t}, following={'next': torch.rand(2)})  # fmt: skip

    layer('linear', 'Linear', [3, 4], lambda: nn.Linear(3, 4))
    layer('linear no bias', 'Linear', [7, 5, {'bias': False}], lambda: nn.Linear(7, 5, bias=False))
    layer('conv1d', 'Conv1d', [4, 6, 3, {'groups': 2}], lambda: nn.Conv1d(4, 6, 3, groups=2))
    layer('conv2d', 'Conv2d', [2, 3, [3, 2]], lambda: nn.Conv2d(2, 3, (3, 2)))
    layer('embedding', 'Embedding', [5, 6, {'paddingIdx': 1}], lambda: nn.Embedding(5, 6, padding_idx=1))
    layer('layer norm', 'LayerNorm', [4], lambda: nn.LayerNorm(4))
    layer('rms norm', 'RMSNorm', [4], lambda: nn.RMSNorm(4))
    layer('group norm', 'GroupNorm', [2, 4], lambda: nn.GroupNorm(2, 4))
    layer('batch norm', 'BatchNorm1d', [4], lambda: nn.BatchNorm1d(4))
    options = {'numLayers': 2, 'bidirectional': True}
    layer('gru', 'GRU', [3, 4, options], lambda: nn.GRU(3, 4, num_layers=2, bidirectional=True))
    layer('gru no bias', 'GRU', [3, 4, {'bias': False}], lambda: nn.GRU(3, 4, bias=False))
    layer('lstm', 'LSTM', [3, 4, options], lambda: nn.LSTM(3, 4, num_layers=2, bidirectional=True))
    layer('mha', 'MultiheadAttention', [4, 2], lambda: nn.MultiheadAttention(4, 2))
    layer('mha kdim', 'MultiheadAttention', [4, 2, {'kdim': 3, 'vdim': 5}],
          lambda: nn.MultiheadAttention(4, 2, kdim=3, vdim=5))  # fmt: skip
    layer('encoder layer', 'TransformerEncoderLayer', [4, 2, {'dimFeedforward': 6}],
          lambda: nn.TransformerEncoderLayer(4, 2, 6))  # fmt: skip
    layer('encoder', 'TransformerEncoder', [{'layer': [4, 2, {'dimFeedforward': 6}], 'numLayers': 2, 'norm': 4}],
          lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 6), 2, nn.LayerNorm(4),
                                        enable_nested_tensor=False))  # fmt: skip

    i = nn.init
    law('uniform', 'uniform_', [4, 5], [-0.3, 0.7], lambda t: i.uniform_(t, -0.3, 0.7))
    law('normal', 'normal_', [4, 5], [0.5, 2], lambda t: i.normal_(t, 0.5, 2))
    law('normal small', 'normal_', [3], [0, 0.02], lambda t: i.normal_(t, 0, 0.02))
    law('constant', 'constant_', [2, 2], [0.3], lambda t: i.constant_(t, 0.3))
    law('zeros', 'zeros_', [2, 2], [], i.zeros_)
    law('ones', 'ones_', [2, 2], [], i.ones_)
    law('xavier uniform', 'xavierUniform_', [4, 5], [5 / 3], lambda t: i.xavier_uniform_(t, 5 / 3))
    law('xavier normal', 'xavierNormal_', [4, 5, 3], [], i.xavier_normal_)
    law('kaiming uniform', 'kaimingUniform_', [4, 5], [{'nonlinearity': 'relu', 'mode': 'fanOut'}],
        lambda t: i.kaiming_uniform_(t, mode='fan_out', nonlinearity='relu'))  # fmt: skip
    law('kaiming normal', 'kaimingNormal_', [4, 5, 2, 2], [{'a': 0.1}], lambda t: i.kaiming_normal_(t, 0.1))
    law('trunc normal', 'truncNormal_', [6, 7], [], i.trunc_normal_)
    law('trunc normal narrow', 'truncNormal_', [6, 7], [0, 0.02, -0.03, 0.01],
        lambda t: i.trunc_normal_(t, 0, 0.02, -0.03, 0.01))  # fmt: skip
    law('trunc normal tail', 'truncNormal_', [6, 7], [0, 1, 1, 3], lambda t: i.trunc_normal_(t, 0, 1, 1, 3))
    law('orthogonal tall', 'orthogonal_', [5, 3], [], i.orthogonal_)
    law('orthogonal wide', 'orthogonal_', [3, 2, 4], [math.sqrt(2)], lambda t: i.orthogonal_(t, math.sqrt(2)))
    return c


if __name__ == '__main__':
    main({'nn/basic': basic, 'nn/recurrent': recurrent, 'nn/attention': attention, 'nn/initial': initial})
