"""Activations, pooling, padding, transposed convolutions, norms, decoders and losses of PyTorch: python nn_more.py [--check] [names].

As nn_layers.py; options are given in voxtorch's spelling and turned into PyTorch's.
"""

import re

import torch
from common import Fixture, main, rand, randint, randn
from nn_cases import Cases
from torch import nn

SPECIAL = {'lambd': 'lambd', 'normType': 'norm_type', 'pos_weight': 'pos_weight'}
torch.set_num_threads(1)


def snake(key):
    return SPECIAL.get(key) or re.sub(r'([A-Z])', lambda found: '_' + found[1].lower(), key)


def python(value):
    """The value that PyTorch's constructor takes."""
    if isinstance(value, dict):
        return torch.tensor(value['values'])
    return tuple(value) if isinstance(value, list) else value


class Layers(Cases):
    def layer(self, name, kind, args, options, inputs, *, call=(), order=None, **how):
        """`order` names options that PyTorch takes by position, `call` what the forward pass takes beside its inputs."""
        keywords = {snake(key): python(value) for key, value in options.items()}
        module = getattr(nn, kind)(*[python(value) for value in args], **keywords)
        construct = [*args, *([options] if options else [])]
        if not isinstance(inputs, dict):
            inputs = {'x': inputs}

        def run(m, **tensors):
            result = m(*tensors.values(), **{snake(key): value for key, value in dict(call).items()})
            return {'output': result[0], 'indices': result[1]} if isinstance(result, tuple) else result

        arguments = [f'${key}' for key in inputs] + ([dict(call)] if call else [])
        self.run(name, f'nn.{kind}', inputs, arguments, run, module=module, construct=construct, **how)


def activations():
    c = Layers()
    for kind in ('LogSigmoid', 'Mish', 'Hardsigmoid', 'Hardswish', 'ReLU6', 'SELU', 'Softsign', 'Tanhshrink', 'LeakyReLU', 'ELU',
                 'CELU', 'Hardshrink', 'Softshrink', 'Hardtanh', 'Softplus', 'RReLU', 'PReLU', 'GLU'):  # fmt: skip
        c.layer(kind, kind, [], {}, randn(f'{kind}/x', 5, 6, scale=3.0))
    for kind, argument in (('LeakyReLU', 0.3), ('ELU', 0.4), ('CELU', 1.7), ('Hardshrink', 1.2), ('Softshrink', 0.8), ('GLU', 0)):
        c.layer(f'{kind} {argument}', kind, [argument], {}, randn(f'{kind} argument/x', 4, 6, scale=2.0))
    c.layer('Hardtanh bounds', 'Hardtanh', [], {'minVal': -0.3, 'maxVal': 2.0}, randn('Hardtanh bounds/x', 4, 6, scale=2.0))
    c.layer('Softplus options', 'Softplus', [], {'beta': 2.5, 'threshold': 1.5}, randn('Softplus options/x', 4, 6, scale=2.0))
    c.layer('Threshold', 'Threshold', [0.2, -3.0], {}, randn('Threshold/x', 4, 6))
    c.layer('RReLU train', 'RReLU', [], {'lower': 0.1, 'upper': 0.6}, randn('RReLU train/x', 4, 6), train=True, seed=3)
    c.layer('PReLU channels', 'PReLU', [], {'numParameters': 3, 'init': 0.1}, randn('PReLU channels/x', 2, 3, 4))
    c.layer('LogSoftmax', 'LogSoftmax', [1], {}, randn('LogSoftmax/x', 2, 5, 3))
    c.layer('Softmin', 'Softmin', [1], {}, randn('Softmin/x', 2, 5, 3))
    c.layer('Softmax2d', 'Softmax2d', [], {}, randn('Softmax2d/x', 2, 4, 3, 2))
    c.layer('Softmax2d unbatched', 'Softmax2d', [], {}, randn('Softmax2d unbatched/x', 4, 3, 2))
    for kind, shape in (('Dropout1d', (3, 8, 5)), ('Dropout2d', (2, 8, 3, 2)), ('Dropout3d', (2, 8, 2, 3, 2)), ('AlphaDropout', (6, 7)), ('FeatureAlphaDropout', (3, 8, 4))):
        c.layer(f'{kind} train', kind, [0.4], {}, randn(f'{kind}/x', *shape), train=True, seed=9)
        c.layer(f'{kind} eval', kind, [0.4], {}, randn(f'{kind}/x', *shape))
    c.layer('Dropout2d of three', 'Dropout2d', [0.4], {}, randn('Dropout2d of three/x', 3, 8, 2), train=True, seed=2)
    c.layer('Dropout3d unbatched', 'Dropout3d', [0.4], {}, randn('Dropout3d unbatched/x', 8, 3, 2, 2), train=True, seed=2)
    return c


SPATIAL = {1: (9,), 2: (5, 6), 3: (4, 3, 4)}


def pooling():
    c = Layers()
    for d, size in SPATIAL.items():
        x = randn(f'pool {d}', 1, 2, *size)
        c.layer(f'max {d}d', f'MaxPool{d}d', [2], {}, x)
        c.layer(f'max {d}d options', f'MaxPool{d}d', [[3] * d], {'stride': 2, 'padding': 1, 'ceilMode': True}, x)
        c.layer(f'max {d}d dilated', f'MaxPool{d}d', [2], {'stride': 1, 'dilation': 2, 'returnIndices': True}, x)
        c.layer(f'max {d}d unbatched', f'MaxPool{d}d', [2], {}, x[0])
        c.layer(f'avg {d}d', f'AvgPool{d}d', [2], {}, x)
        c.layer(f'avg {d}d options', f'AvgPool{d}d', [3], {'stride': 2, 'padding': 1, 'ceilMode': True, 'countIncludePad': False}, x)
        if d > 1:
            c.layer(f'avg {d}d divisor', f'AvgPool{d}d', [2], {'divisorOverride': 3}, x)
        c.layer(f'adaptive avg {d}d', f'AdaptiveAvgPool{d}d', [2], {}, x)
        c.layer(f'adaptive max {d}d', f'AdaptiveMaxPool{d}d', [3], {'returnIndices': True}, x)
        c.layer(f'lp {d}d', f'LPPool{d}d', [2, 2], {}, x.abs())
        c.layer(f'lp {d}d options', f'LPPool{d}d', [3.0, 3], {'stride': 1, 'ceilMode': True}, x.abs())
        pooled, indices = getattr(nn, f'MaxPool{d}d')(2, return_indices=True)(x)
        even = randn(f'even {d}', 1, 2, *[length // 2 * 2 for length in size])
        places = getattr(nn, f'MaxPool{d}d')(2, return_indices=True)(even)[1]
        c.layer(f'unpool {d}d', f'MaxUnpool{d}d', [2], {}, {'x': randn(f'unpool {d}', *places.shape), 'i': places})
        c.layer(f'unpool {d}d size', f'MaxUnpool{d}d', [2], {}, {'x': randn(f'unpool {d} size', *pooled.shape), 'i': indices},
                call={'outputSize': list(size)})  # fmt: skip
    c.layer('adaptive avg 2d null', 'AdaptiveAvgPool2d', [[None, 3]], {}, randn('adaptive null', 2, 3, 4, 7))
    c.layer('adaptive max 2d one', 'AdaptiveMaxPool2d', [1], {}, randn('adaptive one', 3, 4, 7))
    # Samples that are given, so that no generator is between the two.
    for d in (2, 3):
        x, samples = randn(f'fractional {d}', 2, 3, *[7] * d), rand(f'fractional samples {d}', 2, 3, d)
        kind = f'FractionalMaxPool{d}d'
        module = getattr(nn, kind)(2, output_size=3, return_indices=True)

        def run(m, x, s, function=getattr(nn.functional, f'fractional_max_pool{d}d')):
            output, indices = function(x, 2, output_size=3, return_indices=True, _random_samples=s)
            return {'output': output, 'indices': indices}

        c.run(f'fractional {d}d', f'nn.{kind}', {'x': x, 's': samples}, ['$x', '$s'], run, module=module,
              construct=[2, {'outputSize': 3, 'returnIndices': True}], still=('s',))  # fmt: skip
    module = nn.FractionalMaxPool2d(2, output_ratio=(0.5, 0.7))
    c.run('fractional 2d ratio', 'nn.FractionalMaxPool2d', {'x': randn('fractional ratio', 2, 3, 8, 9)}, ['$x'], lambda m, x: m(x),
          module=module, construct=[2, {'outputRatio': [0.5, 0.7]}], seed=4)  # fmt: skip
    return c


def layers():
    c = Layers()
    for d, size in SPATIAL.items():
        x = randn(f'layers {d}', 2 if d < 3 else 1, 4, *size)
        c.layer(f'conv transpose {d}d', f'ConvTranspose{d}d', [4, 2, 2], {}, x[:1])
        options = {'stride': 2, 'padding': 1, 'outputPadding': 1, 'groups': 2, 'bias': False, 'dilation': 2}
        c.layer(f'conv transpose {d}d options', f'ConvTranspose{d}d', [4, 2, 2], options, x[0])
        wanted = [2 * length + 1 for length in size]
        c.layer(f'conv transpose {d}d size', f'ConvTranspose{d}d', [4, 1, 3], {'stride': 2}, x[:1], call={'outputSize': wanted})
    return c


def norms():
    c = Layers()
    for d, size in SPATIAL.items():
        x = randn(f'layers {d}', 2 if d < 3 else 1, 4, *size)
        for mode in ('train', 'eval'):
            train = mode == 'train'
            if d > 1:
                c.layer(f'batch norm {d}d {mode}', f'BatchNorm{d}d', [4], {}, x, train=train)
            c.layer(f'instance norm {d}d {mode}', f'InstanceNorm{d}d', [4], {'affine': True, 'trackRunningStats': True}, x, train=train)
        c.layer(f'instance norm {d}d plain', f'InstanceNorm{d}d', [4], {}, x[0], train=True)
        around = [1, 2] * d
        c.layer(f'constant pad {d}d', f'ConstantPad{d}d', [around, 1.5], {}, x[:1, :2])
        c.layer(f'zero pad {d}d', f'ZeroPad{d}d', [[1, -1] * d], {}, x[:1, :2])
        for kind in ('ReflectionPad', 'ReplicationPad', 'CircularPad'):
            c.layer(f'{kind} {d}d', f'{kind}{d}d', [around], {}, x[:1, :2])
            c.layer(f'{kind} {d}d one', f'{kind}{d}d', [1], {}, x[0, :2])
    return c


def more_layers():
    c = Layers()
    x = randn('conv3d', 1, 4, 3, 4, 3)
    c.layer('conv3d', 'Conv3d', [4, 2, [3, 2, 2]], {}, x)
    c.layer('conv3d options', 'Conv3d', [4, 2, 3], {'stride': 2, 'padding': 1, 'dilation': 1, 'groups': 2, 'bias': False}, x[0])
    c.layer('conv3d same', 'Conv3d', [4, 1, 3], {'padding': 'same', 'paddingMode': 'circular'}, x)
    c.layer('local response', 'LocalResponseNorm', [2], {}, randn('local response', 2, 5, 4, scale=3.0))
    c.layer('local response options', 'LocalResponseNorm', [3], {'alpha': 0.5, 'beta': 1.2, 'k': 2.0}, randn('local response options', 2, 5, 3, 2))
    c.layer('unflatten', 'Unflatten', [1, [2, -1]], {}, randn('unflatten', 3, 6, 2))
    c.layer('pixel shuffle', 'PixelShuffle', [2], {}, randn('pixel shuffle', 2, 8, 3, 2))
    c.layer('pixel unshuffle', 'PixelUnshuffle', [2], {}, randn('pixel unshuffle', 2, 2, 4, 6))
    c.layer('channel shuffle', 'ChannelShuffle', [3], {}, randn('channel shuffle', 2, 6, 3))
    c.layer('upsample', 'Upsample', [], {'scaleFactor': 2}, randn('upsample', 1, 2, 3))
    c.layer('upsample size', 'Upsample', [], {'size': [5, 7], 'mode': 'bilinear', 'alignCorners': True}, randn('upsample size', 1, 2, 3, 4))
    c.layer('upsampling nearest', 'UpsamplingNearest2d', [], {'scaleFactor': 2}, randn('upsampling nearest', 1, 2, 3, 4))
    c.layer('upsampling bilinear', 'UpsamplingBilinear2d', [], {'size': [6, 5]}, randn('upsampling bilinear', 1, 2, 3, 4))
    c.layer('unfold', 'Unfold', [[2, 3]], {'stride': 2, 'padding': 1, 'dilation': 1}, randn('unfold', 2, 3, 5, 6))
    c.layer('fold', 'Fold', [[5, 6], [2, 3]], {'stride': 2, 'padding': 1}, randn('fold', 2, 12, 9))
    pair = {'x': randn('pair x', 4, 5), 'y': randn('pair y', 4, 5)}
    c.layer('cosine similarity', 'CosineSimilarity', [], {}, pair)
    c.layer('cosine similarity dim', 'CosineSimilarity', [], {'dim': 0, 'eps': 1e-3}, pair)
    c.layer('pairwise distance', 'PairwiseDistance', [], {}, pair)
    c.layer('pairwise distance options', 'PairwiseDistance', [], {'p': 1.0, 'eps': 1e-3, 'keepdim': True}, pair)
    c.layer('bilinear', 'Bilinear', [3, 4, 2], {}, {'x': randn('bilinear x', 5, 3), 'y': randn('bilinear y', 5, 4)})
    c.layer('bilinear no bias', 'Bilinear', [3, 4, 2], {'bias': False}, {'x': randn('bilinear 3d x', 2, 5, 3), 'y': randn('bilinear 3d y', 2, 5, 4)})
    return c


NAMES = {'targetMask': 'tgt_mask', 'memoryMask': 'memory_mask', 'targetKeyPaddingMask': 'tgt_key_padding_mask',
         'memoryKeyPaddingMask': 'memory_key_padding_mask', 'sourceMask': 'src_mask', 'sourceKeyPaddingMask': 'src_key_padding_mask'}  # fmt: skip


def decoder():
    c = Cases()

    def masked(name, kind, module, construct, inputs, masks, **how):
        def run(m, **tensors):
            extra = {NAMES[key]: tensors.pop(key) for key in masks}
            return m(*tensors.values(), **extra)

        arguments = [f'${key}' for key in inputs] + ([{key: f'${key}' for key in masks}] if masks else [])
        c.run(name, f'nn.{kind}', inputs | masks, arguments, run, module=module, construct=construct, still=tuple(masks), **how)

    def given(name, batch_first=False):
        target, memory = randn(f'{name}/target', 4, 3, 4), randn(f'{name}/memory', 5, 3, 4)
        if batch_first:
            target, memory = target.transpose(0, 1).contiguous(), memory.transpose(0, 1).contiguous()
        return {'target': target, 'memory': memory}

    small = {'dimFeedforward': 6}
    causal = torch.ones(4, 4, dtype=torch.bool).triu(1)
    padding = torch.tensor([[False] * 4, [False, False, True, True], [False, False, False, True]])
    memory_padding = torch.tensor([[False] * 5, [False, False, True, True, True], [False] * 5])
    masks = {'targetMask': causal, 'targetKeyPaddingMask': padding, 'memoryKeyPaddingMask': memory_padding}
    for name, options, batch_first, used, how in (
        ('decoder layer', {}, False, {}, {}),
        ('decoder layer masks', {}, False, masks, {}),
        ('decoder layer first', {'normFirst': True, 'activation': 'gelu', 'batchFirst': True}, True, masks, {}),
        ('decoder layer no bias', {'bias': False, 'layerNormEps': 1e-3}, False, {'memoryMask': randn('memory mask', 4, 5)}, {}),
        ('decoder layer train', {'dropout': 0.3}, False, {'targetMask': causal}, {'train': True, 'seed': 6}),
    ):
        module = nn.TransformerDecoderLayer(4, 2, **{snake(key): value for key, value in (small | options).items()})
        masked(name, 'TransformerDecoderLayer', module, [4, 2, small | options], given(name, batch_first), used, **how)
    layer = nn.TransformerDecoderLayer(4, 2, dim_feedforward=6)
    module = nn.TransformerDecoder(layer, 2, nn.LayerNorm(4))
    masked('decoder', 'TransformerDecoder', module, [{'layer': [4, 2, small], 'numLayers': 2, 'norm': 4}], given('decoder'), masks)
    options = {'dModel': 4, 'nhead': 2, 'numEncoderLayers': 1, 'numDecoderLayers': 2, 'dimFeedforward': 6, 'batchFirst': True}
    module = nn.Transformer(4, 2, 1, 2, 6, batch_first=True)
    inputs = {'source': given('transformer', True)['memory'], 'target': given('transformer', True)['target']}
    # In evaluation PyTorch's encoder cuts padded outputs to zero; attention to them is masked all the same.
    used = {'targetMask': causal, 'sourceKeyPaddingMask': memory_padding, 'memoryKeyPaddingMask': memory_padding}
    masked('transformer', 'Transformer', module, [options], inputs, used)
    return c


def loss_layers():
    c = Layers()
    x, y = randn('loss x', 4, 3), randn('loss y', 4, 3)
    unit, labels = rand('loss unit', 4, 3), randint('loss labels', 0, 3, 4)
    signs = randint('loss signs', 0, 2, 4, 3).float() * 2 - 1
    weight = {'values': [0.5, 2.0, 1.25]}
    for reduction in ('mean', 'sum', 'none'):
        how = {} if reduction == 'mean' else {'reduction': reduction}

        def case(kind, options, inputs, still=('t',), label=''):
            c.layer(f'{kind} {reduction}{label}', kind, [], options | how, inputs, still=still)

        case('L1Loss', {}, {'x': x, 'y': y}, ())
        case('MSELoss', {}, {'x': x, 'y': y}, ())
        case('SmoothL1Loss', {'beta': 0.5}, {'x': x, 'y': y}, ())
        case('HuberLoss', {'delta': 0.7}, {'x': x, 'y': y}, ())
        case('SoftMarginLoss', {}, {'x': x, 't': signs})
        case('MultiLabelMarginLoss', {}, {'x': x, 't': torch.tensor([[0, 2, -1], [1, -1, 0], [2, 1, 0], [-1, 0, 1]])})
        case('CrossEntropyLoss', {}, {'x': x, 't': labels})
        case('CrossEntropyLoss', {'weight': weight, 'ignoreIndex': 1, 'labelSmoothing': 0.1}, {'x': x, 't': labels}, label=' options')
        case('NLLLoss', {'weight': weight}, {'x': x, 't': labels})
        case('BCELoss', {'weight': weight}, {'x': unit, 't': rand('loss targets', 4, 3)})
        case('BCEWithLogitsLoss', {'weight': {'values': [0.3, 1.0, 2.0]}, 'posWeight': weight}, {'x': x, 't': unit})
        case('MultiLabelSoftMarginLoss', {'weight': weight}, {'x': x, 't': (signs + 1) / 2})
        case('MultiMarginLoss', {'p': 2, 'margin': 0.8, 'weight': weight}, {'x': x, 't': labels})
        case('KLDivLoss', {}, {'x': x, 't': unit})
        case('CosineEmbeddingLoss', {'margin': 0.2}, {'x': x, 'y': y, 't': signs[:, 0].contiguous()})
        case('MarginRankingLoss', {'margin': 0.3}, {'x': x, 'y': y, 't': signs})
        case('HingeEmbeddingLoss', {'margin': 0.9}, {'x': x, 't': signs})
        case('TripletMarginLoss', {'margin': 0.5, 'p': 1.0, 'swap': True}, {'x': x, 'y': y, 'z': randn('loss z', 4, 3)}, ())
        case('PoissonNLLLoss', {'full': True}, {'x': x, 't': unit * 5})
        case('PoissonNLLLoss', {'logInput': False, 'eps': 1e-3}, {'x': unit, 't': unit * 5}, label=' rates')
        case('GaussianNLLLoss', {'full': True}, {'x': x, 'y': y, 'v': unit + 0.1}, ())
        case('GaussianNLLLoss', {'eps': 0.5}, {'x': x, 'y': y, 'v': unit[:, 0].contiguous()}, (), label=' per row')
        lengths = {'i': torch.tensor([6, 5]), 'l': torch.tensor([3, 2])}
        targets = {'x': randn('ctc', 6, 2, 4).log_softmax(-1), 't': torch.tensor([[1, 2, 2], [3, 1, 0]])}
        case('CTCLoss', {'zeroInfinity': True}, targets | lengths)
    c.layer('KLDivLoss batchmean', 'KLDivLoss', [], {'reduction': 'batchmean', 'logTarget': True}, {'x': x, 't': y}, still=('t',))
    return c


def tables():
    c = Layers()
    rows = randint('tables', 0, 5, 3, 4)
    c.layer('embedding max norm', 'Embedding', [5, 3], {'maxNorm': 0.5, 'normType': 1.0}, rows)
    c.layer('embedding by frequency', 'Embedding', [5, 3], {'scaleGradByFreq': True, 'paddingIdx': 1}, rows)
    for mode in ('sum', 'mean', 'max'):
        c.layer(f'embedding bag {mode}', 'EmbeddingBag', [5, 3], {'mode': mode}, rows)
        c.layer(f'embedding bag {mode} padding', 'EmbeddingBag', [5, 3], {'mode': mode, 'paddingIdx': -2, 'maxNorm': 0.7}, rows)

    def bags(name, options, weights=False):
        module = nn.EmbeddingBag(5, 3, **{snake(key): value for key, value in options.items()})
        offsets = [0, 3, 3, 7] + ([12] if options.get('includeLastOffset') else [])
        inputs = {'x': rows.flatten(), 'o': torch.tensor(offsets)} | ({'w': rand('bag weights', 12)} if weights else {})
        arguments = ['$x', {'offsets': '$o'} | ({'perSampleWeights': '$w'} if weights else {})]
        c.run(name, 'nn.EmbeddingBag', inputs, arguments, lambda m, x, o, w=None: m(x, o, w), module=module, construct=[5, 3, options])

    bags('embedding bag offsets', {'includeLastOffset': True})
    bags('embedding bag weights', {'mode': 'sum'}, weights=True)
    return c


def recurrent():
    c = Cases()
    names = {'numLayers': 'num_layers', 'batchFirst': 'batch_first', 'projSize': 'proj_size'}
    x = randn('recurrent', 5, 2, 4)
    for name, kind, options, state in (
        ('rnn', 'RNN', {}, False),
        ('rnn relu', 'RNN', {'nonlinearity': 'relu', 'numLayers': 2, 'bidirectional': True}, True),
        ('lstm projected', 'LSTM', {'projSize': 2}, False),
        ('lstm projected deep', 'LSTM', {'projSize': 2, 'numLayers': 2, 'bidirectional': True, 'bias': False}, True),
    ):
        module = getattr(nn, kind)(4, 3, **{names.get(key, key): value for key, value in options.items()})
        depth = options.get('numLayers', 1) * (2 if options.get('bidirectional') else 1)
        inputs, initial = {'x': x}, None
        if state:
            inputs['hidden0'] = randn(f'{name}/hidden', depth, 2, options.get('projSize', 3))
            initial = '$hidden0'
            if kind == 'LSTM':
                inputs['cell0'] = randn(f'{name}/cell', depth, 2, 3)
                initial = {'hidden': '$hidden0', 'cell': '$cell0'}

        def run(m, x, hidden0=None, cell0=None):
            output, last = m(x, hidden0 if cell0 is None else (hidden0, cell0))
            return {'output': output, **({'hidden': last[0], 'cell': last[1]} if isinstance(last, tuple) else {'hidden': last})}

        c.run(name, f'nn.{kind}', inputs, ['$x', initial], run, module=module, construct=[4, 3, options])

    def lengths(m, x):
        packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([3, 5]), enforce_sorted=False)
        output, last = m(packed)
        output = nn.utils.rnn.pad_packed_sequence(output, total_length=5)[0]
        return {'output': output, **({'hidden': last[0], 'cell': last[1]} if isinstance(last, tuple) else {'hidden': last})}

    c.run('rnn lengths', 'nn.RNN', {'x': x}, ['$x', None, {'lengths': [3, 5]}], lengths, module=nn.RNN(4, 3), construct=[4, 3])
    c.run('lstm projected lengths', 'nn.LSTM', {'x': x}, ['$x', None, {'lengths': [3, 5]}], lengths,
          module=nn.LSTM(4, 3, proj_size=2), construct=[4, 3, {'projSize': 2}])  # fmt: skip
    for kind, options in (('RNNCell', {}), ('RNNCell', {'nonlinearity': 'relu', 'bias': False}), ('GRUCell', {}), ('LSTMCell', {})):
        for single in (False, True):
            for state in (False, True):
                name = f'{kind} {len(options)} {single} {state}'
                inputs, initial = {'x': x[0, 0] if single else x[0]}, None
                size = (3,) if single else (2, 3)
                if state:
                    inputs['h'] = randn(f'{name}/h', *size)
                    initial = '$h'
                    if kind == 'LSTMCell':
                        inputs['c'] = randn(f'{name}/c', *size)
                        initial = {'hidden': '$h', 'cell': '$c'}

                def step(m, x, h=None, c=None):
                    result = m(x, h if c is None else (h, c))
                    return {'hidden': result[0], 'cell': result[1]} if isinstance(result, tuple) else result

                c.run(name, f'nn.{kind}', inputs, ['$x', initial], step, module=getattr(nn, kind)(4, 3, **options),
                      construct=[4, 3, options])  # fmt: skip
    for name, options, how in (
        ('attention bias kv', {'addBiasKv': True}, {}),
        ('attention zero', {'addZeroAttn': True}, {'needWeights': False}),
        ('attention both', {'addBiasKv': True, 'addZeroAttn': True}, {'averageAttnWeights': False}),
    ):
        inputs = {'q': randn(f'{name}/q', 3, 2, 4), 'k': randn(f'{name}/k', 5, 2, 4), 'v': randn(f'{name}/v', 5, 2, 4),
                  'p': torch.tensor([[False] * 5, [False, False, True, True, True]]), 'm': torch.ones(3, 5, dtype=torch.bool).triu(3)}  # fmt: skip
        module = nn.MultiheadAttention(4, 2, **{snake(key): value for key, value in options.items()})

        def attend(m, q, k, v, p, **tensors):
            keywords = {snake(key): value for key, value in how.items()}
            output, weights = m(q, k, v, key_padding_mask=p, attn_mask=tensors['mask'], **keywords)
            return {'output': output, 'weights': weights} if weights is not None else {'output': output}

        inputs['mask'] = inputs.pop('m')
        c.run(name, 'nn.MultiheadAttention', inputs, ['$q', '$k', '$v', {'keyPaddingMask': '$p', 'attnMask': '$mask'} | how], attend,
              module=module, construct=[4, 2, options])  # fmt: skip
    return c


def initial():
    """What layers start with after `torch.manual_seed(0)`, and the next random numbers."""
    fixture = Fixture()
    small = {'dimFeedforward': 6}
    for kind, args, options in (
        ('Conv3d', [2, 4, 3], {'groups': 2}),
        ('ConvTranspose1d', [4, 2, 3], {}),
        ('ConvTranspose2d', [4, 2, [3, 2]], {'groups': 2}),
        ('ConvTranspose3d', [2, 3, 2], {'bias': False}),
        ('Bilinear', [3, 4, 2], {}),
        ('BatchNorm2d', [3], {}),
        ('InstanceNorm1d', [3], {'affine': True, 'trackRunningStats': True}),
        ('PReLU', [], {'numParameters': 3}),
        ('EmbeddingBag', [5, 3], {'paddingIdx': 1}),
        ('RNN', [3, 4], {'numLayers': 2, 'bidirectional': True}),
        ('LSTM', [3, 4], {'projSize': 2}),
        ('RNNCell', [3, 4], {}),
        ('GRUCell', [3, 4], {'bias': False}),
        ('LSTMCell', [3, 4], {}),
        ('MultiheadAttention', [4, 2], {'addBiasKv': True}),
        ('TransformerDecoderLayer', [4, 2], small),
    ):
        torch.manual_seed(0)
        names = {'numLayers': 'num_layers'}
        module = getattr(nn, kind)(*[python(value) for value in args], **{names.get(key, snake(key)): value for key, value in options.items()})
        described = {'name': kind, 'call': f'nn.{kind}', 'construct': [*args, options], 'state': list(module.state_dict())}
        fixture.case(described, state=module.state_dict(), following={'next': torch.rand(2)})
    for name, function, shape, args, run in (
        ('eye', 'eye_', [3, 4], [], nn.init.eye_),
        ('dirac', 'dirac_', [3, 4, 5], [], nn.init.dirac_),
        ('dirac groups', 'dirac_', [4, 3, 2, 3], [2], lambda t: nn.init.dirac_(t, 2)),
        ('dirac 3d', 'dirac_', [2, 1, 3, 2, 1], [], nn.init.dirac_),
        ('sparse', 'sparse_', [5, 4], [0.3], lambda t: nn.init.sparse_(t, 0.3)),
        ('sparse std', 'sparse_', [3, 4], [0.5, 2], lambda t: nn.init.sparse_(t, 0.5, 2)),
    ):
        torch.manual_seed(0)
        t = run(torch.empty(shape))
        described = {'name': name, 'call': f'init.{function}', 'shape': shape, 'args': args}
        fixture.case(described, state={'t': t}, following={'next': torch.rand(2)})
    torch.manual_seed(0)
    module = nn.Transformer(4, 2, 1, 1, 6)
    options = {'dModel': 4, 'nhead': 2, 'numEncoderLayers': 1, 'numDecoderLayers': 1} | small
    described = {'name': 'Transformer', 'call': 'nn.Transformer', 'construct': [options], 'state': list(module.state_dict())}
    fixture.case(described, state=module.state_dict(), following={'next': torch.rand(2)})
    return fixture


if __name__ == '__main__':
    main({'nn/activations': activations, 'nn/pooling': pooling, 'nn/layers': layers, 'nn/norms': norms, 'nn/more-layers': more_layers, 'nn/decoder': decoder, 'nn/loss-layers': loss_layers, 'nn/tables': tables,
          'nn/recurrent-more': recurrent, 'nn/initial-more': initial})
