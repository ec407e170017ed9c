"""Functions and losses of PyTorch: python nn_functional.py [--check] [names].

Each case names what the TypeScript test has to call; a string that starts with `$` stands for a tensor.
"""

import torch
import torch.nn.functional as F
from common import coarse, main, rand, randint, randn
from nn_cases import Cases


def functions():
    c = Cases()

    def case(name, function, inputs, args, run, still=(), seed=None):
        c.run(name, f'functional.{function}', inputs, args, run, still=still, seed=seed)

    x34, y34 = randn('x34', 3, 4), randn('y34', 3, 4)
    x = {'x': x34}
    for function in ('relu', 'gelu', 'silu'):
        case(function, function, x, ['$x'], lambda x, f=getattr(F, function): f(x))
    case('gelu tanh', 'gelu', x, ['$x', {'approximate': 'tanh'}], lambda x: F.gelu(x, approximate='tanh'))
    case('softmax', 'softmax', x, ['$x', 0], lambda x: F.softmax(x, 0))
    case('logSoftmax', 'logSoftmax', x, ['$x', -1], lambda x: F.log_softmax(x, -1))
    case('glu', 'glu', x, ['$x'], lambda x: F.glu(x))
    case('glu 0', 'glu', {'x': randn('glu 0', 4, 3)}, ['$x', 0], lambda x: F.glu(x, 0))
    case('dropout', 'dropout', x, ['$x', 0.3], lambda x: F.dropout(x, 0.3), seed=3)
    case('dropout off', 'dropout', x, ['$x', 0.3, {'training': False}], lambda x: F.dropout(x, 0.3, False))
    w, b = randn('linear w', 5, 4), randn('linear b', 5)
    case('linear', 'linear', {'x': x34, 'w': w, 'b': b}, ['$x', '$w', '$b'], lambda x, w, b: F.linear(x, w, b))
    case('linear no bias', 'linear', {'x': x34, 'w': w}, ['$x', '$w'], lambda x, w: F.linear(x, w))
    conv = {'x': randn('conv x', 2, 4, 8), 'w': randn('conv w', 6, 2, 3), 'b': randn('conv b', 6)}
    case('conv1d', 'conv1d', conv,
         ['$x', '$w', {'bias': '$b', 'stride': 2, 'padding': 1, 'dilation': 2, 'groups': 2}],
         lambda x, w, b: F.conv1d(x, w, b, 2, 1, 2, 2))  # fmt: skip
    del conv['b']
    case('conv1d same', 'conv1d', conv, ['$x', '$w', {'padding': 'same', 'groups': 2}],
         lambda x, w: F.conv1d(x, w, padding='same', groups=2))  # fmt: skip
    conv = {'x': randn('conv2 x', 2, 3, 6, 5), 'w': randn('conv2 w', 4, 3, 3, 2)}
    case('conv2d', 'conv2d', conv, ['$x', '$w', {'stride': [2, 1], 'padding': [1, 0]}],
         lambda x, w: F.conv2d(x, w, None, (2, 1), (1, 0)))  # fmt: skip
    table = {'i': randint('table i', 0, 4, 2, 3), 'w': randn('table w', 4, 3)}
    case('embedding', 'embedding', table, ['$i', '$w'], lambda i, w: F.embedding(i, w))
    case('embedding padding', 'embedding', table, ['$i', '$w', {'paddingIdx': 1}], lambda i, w: F.embedding(i, w, 1))
    norm = {'x': x34, 'w': randn('norm w', 4), 'b': randn('norm b', 4)}
    case('layerNorm', 'layerNorm', norm, ['$x', [4], {'weight': '$w', 'bias': '$b', 'eps': 1e-3}],
         lambda x, w, b: F.layer_norm(x, (4,), w, b, 1e-3))  # fmt: skip
    case('layerNorm plain', 'layerNorm', x, ['$x', [3, 4]], lambda x: F.layer_norm(x, (3, 4)))
    norm = {'x': x34, 'w': randn('rms w', 4)}
    case('rmsNorm', 'rmsNorm', norm, ['$x', [4], {'weight': '$w', 'eps': 1e-2}], lambda x, w: F.rms_norm(x, (4,), w, 1e-2))
    case('rmsNorm plain', 'rmsNorm', x, ['$x', [4]], lambda x: F.rms_norm(x, (4,)))
    case('normalize', 'normalize', x, ['$x'], lambda x: F.normalize(x))
    case('normalize 1 0', 'normalize', x, ['$x', {'p': 1, 'dim': 0}], lambda x: F.normalize(x, 1, 0))
    case('cosineSimilarity', 'cosineSimilarity', {'x': x34, 'y': y34}, ['$x', '$y'], lambda x, y: F.cosine_similarity(x, y))
    case('cosineSimilarity 0', 'cosineSimilarity', {'x': x34, 'y': y34}, ['$x', '$y', {'dim': 0, 'eps': 1.5}],
         lambda x, y: F.cosine_similarity(x, y, 0, 1.5))  # fmt: skip
    qkv = {key: randn(f'sdpa {key}', 2, 2, 3 if key == 'q' else 5, 4) for key in 'qkv'}
    case('attention', 'scaledDotProductAttention', qkv, ['$q', '$k', '$v'],
         lambda q, k, v: F.scaled_dot_product_attention(q, k, v))  # fmt: skip
    case('attention causal scale', 'scaledDotProductAttention', qkv, ['$q', '$k', '$v', {'isCausal': True, 'scale': 0.3}],
         lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3))  # fmt: skip
    allowed = torch.tensor([[True, False, True, True, False]] * 3)
    case('attention mask', 'scaledDotProductAttention', qkv | {'m': allowed}, ['$q', '$k', '$v', {'attnMask': '$m'}],
         lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m))  # fmt: skip
    grouped = qkv | {'q': randn('sdpa grouped', 2, 4, 3, 4)}
    case('attention grouped', 'scaledDotProductAttention', grouped, ['$q', '$k', '$v', {'enableGqa': True}],
         lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True))  # fmt: skip
    classes = {'i': randint('one hot', 0, 4, 2, 3)}
    case('oneHot', 'oneHot', classes, ['$i', 6], lambda i: F.one_hot(i, 6))
    case('oneHot auto', 'oneHot', classes, ['$i'], lambda i: F.one_hot(i))
    case('pad', 'pad', x, ['$x', [1, 2, -1, 1], {'value': 0.5}], lambda x: F.pad(x, (1, 2, -1, 1), value=0.5))
    for mode in ('reflect', 'replicate', 'circular'):
        case(f'pad {mode}', 'pad', {'x': randn('pad', 2, 3, 4)}, ['$x', [2, 1], {'mode': mode}],
             lambda x, mode=mode: F.pad(x, (2, 1), mode))  # fmt: skip
    for mode, shape in (('nearest', (2, 3, 5)), ('linear', (2, 3, 5)), ('nearest', (2, 3, 4, 5)),
                        ('bilinear', (2, 3, 4, 5)), ('nearest', (1, 2, 2, 3, 2)), ('trilinear', (1, 2, 2, 3, 2))):  # fmt: skip
        key = f'interpolate {mode} {len(shape)}d'
        image = {'x': randn(key, *shape)}
        case(f'{key} size', 'interpolate', image, ['$x', {'size': 7, 'mode': mode}],
             lambda x, mode=mode: F.interpolate(x, 7, mode=mode))  # fmt: skip
        case(f'{key} scale', 'interpolate', image, ['$x', {'scaleFactor': 1.7, 'mode': mode}],
             lambda x, mode=mode: F.interpolate(x, scale_factor=1.7, mode=mode))  # fmt: skip
        if mode != 'nearest':
            case(f'{key} corners', 'interpolate', image, ['$x', {'size': 7, 'mode': mode, 'alignCorners': True}],
                 lambda x, mode=mode: F.interpolate(x, 7, mode=mode, align_corners=True))  # fmt: skip
    return c


def resizing():
    c = Cases()

    def case(name, function, inputs, args, run, still=(), seed=None):
        c.run(name, f'functional.{function}', inputs, args, run, still=still, seed=seed)

    def options(values):
        names = {'scaleFactor': 'scale_factor', 'alignCorners': 'align_corners',
                 'recomputeScaleFactor': 'recompute_scale_factor', 'paddingMode': 'padding_mode'}  # fmt: skip
        return {names.get(key, key): value for key, value in values.items()}

    shapes = {3: (2, 3, 5), 4: (1, 2, 4, 5), 5: (1, 2, 2, 3, 2)}
    images = {rank: {'x': randn(f'resize {rank}', *shape)} for rank, shape in shapes.items()}
    variants = []
    for rank in shapes:
        for mode in ('nearest-exact', 'area'):
            variants += [(rank, {'mode': mode, 'size': 7}), (rank, {'mode': mode, 'scaleFactor': 1.7})]
        variants.append((rank, {'mode': 'nearest', 'scaleFactor': 1.7, 'recomputeScaleFactor': True}))
    for corners in (False, True):
        variants.append((4, {'mode': 'bicubic', 'size': [7, 3], 'alignCorners': corners}))
        variants.append((4, {'mode': 'bicubic', 'scaleFactor': [1.7, 0.6], 'alignCorners': corners}))
        for mode in ('bilinear', 'bicubic'):
            variants.append((4, {'mode': mode, 'size': [2, 7], 'antialias': True, 'alignCorners': corners}))
        variants.append((3, {'mode': 'linear', 'scaleFactor': 1.7, 'recomputeScaleFactor': True, 'alignCorners': corners}))
    variants.append((4, {'mode': 'bilinear', 'scaleFactor': 0.5, 'antialias': True}))
    variants.append((4, {'mode': 'lanczos', 'size': [3, 4], 'antialias': True}))
    for rank, given in variants:
        case(f'interpolate {rank}d {given}', 'interpolate', images[rank], ['$x', given],
             lambda x, given=given: F.interpolate(x, **options(given)))  # fmt: skip

    places = {'x': randn('grid x', 2, 3, 4, 5), 'g': randn('grid', 2, 3, 2, 2) * 0.8}
    for mode in ('bilinear', 'nearest', 'bicubic'):
        for padding in ('zeros', 'border', 'reflection'):
            given = {'mode': mode, 'paddingMode': padding, 'alignCorners': padding == 'border'}
            case(f'gridSample {mode} {padding}', 'gridSample', places, ['$x', '$g', given],
                 lambda x, g, given=given: F.grid_sample(x, g, **options(given)))  # fmt: skip
    volume = {'x': randn('grid volume', 1, 2, 3, 2, 3), 'g': randn('grid 3d', 1, 2, 2, 2, 3) * 0.8}
    case('gridSample volume', 'gridSample', volume, ['$x', '$g'], lambda x, g: F.grid_sample(x, g, align_corners=False))
    theta = {'t': randn('theta', 2, 2, 3)}
    case('affineGrid', 'affineGrid', theta, ['$t', [2, 1, 3, 4]], lambda t: F.affine_grid(t, [2, 1, 3, 4], align_corners=False))

    for dims, shape in ((1, (2, 3, 4)), (2, (2, 3, 2, 2)), (3, (2, 3, 2, 2, 1))):
        for shape in (shape, shape[1:]):
            run = getattr(F, f'dropout{dims}d')
            x = {'x': randn(f'dropout {shape}', *shape)}
            if len(shape) == 2 + dims or dims != 2:
                case(f'dropout{dims}d {len(shape)}', f'dropout{dims}d', x, ['$x', 0.4], lambda x, run=run: run(x, 0.4), seed=5)
    x = {'x': randn('alpha', 3, 4)}
    case('alphaDropout', 'alphaDropout', x, ['$x', 0.4, True], lambda x: F.alpha_dropout(x, 0.4, True), seed=5)
    case('featureAlphaDropout', 'featureAlphaDropout', x, ['$x', 0.4, True], lambda x: F.feature_alpha_dropout(x, 0.4, True), seed=5)

    table = {'i': randint('bag i', 0, 4, 5), 'o': torch.tensor([0, 2]), 'w': randn('bag w', 4, 3)}
    for mode in ('sum', 'mean', 'max'):
        case(f'embeddingBag {mode}', 'embeddingBag', table, ['$i', '$w', {'offsets': '$o', 'mode': mode}],
             lambda i, o, w, mode=mode: F.embedding_bag(i, w, o, mode=mode))  # fmt: skip
    rows = {'i': randint('bag rows', 0, 4, 2, 3), 'w': table['w'], 's': randn('bag scale', 2, 3)}
    case('embeddingBag rows', 'embeddingBag', rows, ['$i', '$w', {'mode': 'sum', 'perSampleWeights': '$s', 'paddingIdx': -2}],
         lambda i, w, s: F.embedding_bag(i, w, mode='sum', per_sample_weights=s, padding_idx=-2))  # fmt: skip
    return c


def losses():
    c = Cases()

    def case(name, function, inputs, args, run, still=()):
        for reduction in ('mean', 'sum', 'none'):
            with_reduction = [*args[:-1], args[-1] | {'reduction': reduction}]
            c.run(f'{name} {reduction}', f'functional.{function}', inputs, with_reduction,
                  lambda reduction=reduction, **inputs: run(**inputs, reduction=reduction), still=still)  # fmt: skip

    logits, target = randn('logits', 4, 5), torch.tensor([1, 4, 2, 0])
    weight = {'w': rand('class weight', 5) + 0.5}
    x = {'x': logits, 't': target}
    case('crossEntropy', 'crossEntropy', x, ['$x', '$t', {}], lambda x, t, reduction: F.cross_entropy(x, t, reduction=reduction))
    case('crossEntropy all', 'crossEntropy', x | weight,
         ['$x', '$t', {'weight': '$w', 'ignoreIndex': 2, 'labelSmoothing': 0.2}],
         lambda x, t, w, reduction: F.cross_entropy(x, t, w, ignore_index=2, label_smoothing=0.2, reduction=reduction),
         still=('w',))  # fmt: skip
    case('crossEntropy probabilities', 'crossEntropy', {'x': logits, 't': coarse(F.softmax(randn('p', 4, 5), 1))} | weight,
         ['$x', '$t', {'weight': '$w', 'labelSmoothing': 0.1}],
         lambda x, t, w, reduction: F.cross_entropy(x, t, w, label_smoothing=0.1, reduction=reduction),
         still=('w',))  # fmt: skip
    case('crossEntropy sequence', 'crossEntropy',
         {'x': randn('sequence', 2, 5, 3), 't': torch.tensor([[0, -100, 3], [4, 1, -100]])},
         ['$x', '$t', {}], lambda x, t, reduction: F.cross_entropy(x, t, reduction=reduction))  # fmt: skip
    case('crossEntropy one item', 'crossEntropy', {'x': logits[0], 't': target[0]}, ['$x', '$t', {}],
         lambda x, t, reduction: F.cross_entropy(x, t, reduction=reduction))  # fmt: skip
    logp = {'x': coarse(F.log_softmax(logits, 1)), 't': target}
    case('nllLoss', 'nllLoss', logp, ['$x', '$t', {}], lambda x, t, reduction: F.nll_loss(x, t, reduction=reduction))
    case('nllLoss all', 'nllLoss', logp | weight, ['$x', '$t', {'weight': '$w', 'ignoreIndex': 0}],
         lambda x, t, w, reduction: F.nll_loss(x, t, w, ignore_index=0, reduction=reduction), still=('w',))  # fmt: skip

    pair = {'x': randn('pair x', 3, 4, scale=1.5), 't': randn('pair t', 3, 4)}
    case('mseLoss', 'mseLoss', pair, ['$x', '$t', {}], lambda x, t, reduction: F.mse_loss(x, t, reduction=reduction))
    case('l1Loss', 'l1Loss', pair, ['$x', '$t', {}], lambda x, t, reduction: F.l1_loss(x, t, reduction=reduction))
    for beta in (1, 0.3, 0):
        case(f'smoothL1Loss {beta}', 'smoothL1Loss', pair, ['$x', '$t', {'beta': beta}],
             lambda x, t, reduction, beta=beta: F.smooth_l1_loss(x, t, reduction=reduction, beta=beta))  # fmt: skip
    case('huberLoss', 'huberLoss', pair, ['$x', '$t', {'delta': 0.7}],
         lambda x, t, reduction: F.huber_loss(x, t, reduction=reduction, delta=0.7))  # fmt: skip
    weight = {'w': rand('element weight', 3, 4)}
    binary = {'x': rand('probability', 3, 4) * 0.8 + 0.1, 't': rand('binary target', 3, 4)}
    case('binaryCrossEntropy', 'binaryCrossEntropy', binary | weight, ['$x', '$t', {'weight': '$w'}],
         lambda x, t, w, reduction: F.binary_cross_entropy(x, t, w, reduction=reduction), still=('t', 'w'))  # fmt: skip
    binary['x'] = randn('binary logits', 3, 4)
    case('binaryCrossEntropyWithLogits', 'binaryCrossEntropyWithLogits', binary, ['$x', '$t', {}],
         lambda x, t, reduction: F.binary_cross_entropy_with_logits(x, t, reduction=reduction))  # fmt: skip
    case('binaryCrossEntropyWithLogits all', 'binaryCrossEntropyWithLogits',
         binary | weight | {'p': rand('positive', 4) + 1}, ['$x', '$t', {'weight': '$w', 'posWeight': '$p'}],
         lambda x, t, w, p, reduction: F.binary_cross_entropy_with_logits(x, t, w, pos_weight=p, reduction=reduction),
         still=('w', 'p'))  # fmt: skip
    logp = {'x': coarse(F.log_softmax(logits, 1)), 't': coarse(F.softmax(randn('kl', 4, 5), 1))}
    case('klDiv', 'klDiv', logp, ['$x', '$t', {}], lambda x, t, reduction: F.kl_div(x, t, reduction=reduction))
    case('klDiv log', 'klDiv', logp | {'t': coarse(logp['t'].log())}, ['$x', '$t', {'logTarget': True}],
         lambda x, t, reduction: F.kl_div(x, t, reduction=reduction, log_target=True))  # fmt: skip
    c.run('klDiv batchmean', 'functional.klDiv', logp, ['$x', '$t', {'reduction': 'batchmean'}],
          lambda x, t: F.kl_div(x, t, reduction='batchmean'))  # fmt: skip
    three = {key: randn(f'three {key}', 3, 4) for key in 'xyz'}
    case('cosineEmbeddingLoss', 'cosineEmbeddingLoss',
         {'x': three['x'], 'y': three['y'], 't': torch.tensor([1, -1, -1])}, ['$x', '$y', '$t', {'margin': -0.5}],
         lambda x, y, t, reduction: F.cosine_embedding_loss(x, y, t, -0.5, reduction=reduction))  # fmt: skip
    case('tripletMarginLoss', 'tripletMarginLoss', three, ['$x', '$y', '$z', {}],
         lambda x, y, z, reduction: F.triplet_margin_loss(x, y, z, reduction=reduction))  # fmt: skip
    case('tripletMarginLoss all', 'tripletMarginLoss', three, ['$x', '$y', '$z', {'margin': 2, 'p': 1, 'swap': True}],
         lambda x, y, z, reduction: F.triplet_margin_loss(x, y, z, 2, 1, swap=True, reduction=reduction))  # fmt: skip
    speech = {'x': coarse(F.log_softmax(randn('ctc', 7, 2, 4), -1)), 't': torch.tensor([[1, 2, 2], [3, 1, 0]])}
    case('ctcLoss', 'ctcLoss', speech, ['$x', '$t', [7, 5], [3, 2], {}],
         lambda x, t, reduction: F.ctc_loss(x, t, [7, 5], [3, 2], reduction=reduction))  # fmt: skip
    case('ctcLoss joined', 'ctcLoss', {'x': speech['x'], 't': torch.tensor([0, 1, 1, 2, 0])},
         ['$x', '$t', [7, 5], [3, 2], {'blank': 3}],
         lambda x, t, reduction: F.ctc_loss(x, t, [7, 5], [3, 2], 3, reduction=reduction))  # fmt: skip
    tensors = {'i': torch.tensor([2, 5]), 'n': torch.tensor([3, 2])}
    case('ctcLoss impossible', 'ctcLoss', speech | tensors, ['$x', '$t', '$i', '$n', {'zeroInfinity': True}],
         lambda x, t, i, n, reduction: F.ctc_loss(x, t, i, n, zero_infinity=True, reduction=reduction))  # fmt: skip
    return c


if __name__ == '__main__':
    main({'nn/functions': functions, 'nn/losses': losses, 'nn/resizing': resizing})
