"""What PyTorch's module and tensor hooks see, in order: python nn_hooks.py [--check].

Each case logs what its hooks are called with; test/nn/hooks.test.ts runs the same module and compares the log. A tensor in a log
is the name of an output of the case.
"""

import torch
from common import Fixture, main, randn
from torch import nn

X, Y = randn('hooks x', 3, 4), randn('hooks y', 3, 4)


class Pair(nn.Module):
    """Two inputs and a number, two outputs."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(randn('hooks pair', 4))

    def forward(self, x, y, factor):
        return x * self.weight * factor, y.sin()


class Log:
    def __init__(self):
        self.lines, self.tensors = [], {}

    def value(self, value):
        if isinstance(value, (tuple, list)):
            return [self.value(one) for one in value]
        if not isinstance(value, torch.Tensor):
            return value
        name = f't{len(self.tensors)}'
        self.tensors[name] = value
        return name

    def __call__(self, hook, *values):
        self.lines.append([hook, *(self.value(value) for value in values)])


def linear():
    layer = nn.Linear(4, 2)
    with torch.no_grad():
        layer.weight.copy_(randn('hooks weight', 2, 4))
        layer.bias.copy_(randn('hooks bias', 2))
    return layer


def hooks():
    fixture = Fixture()
    fixture.case({'name': 'given'}, **{'in': {'x': X, 'y': Y}},
                 param={'weight': randn('hooks weight', 2, 4), 'bias': randn('hooks bias', 2), 'pair': randn('hooks pair', 4)})

    def case(name, log, **gradients):
        fixture.case({'name': name, 'log': log.lines}, out=log.tensors | {k: v for k, v in gradients.items() if v is not None})

    # All kinds on one layer, in the order of their calls; `prepend` puts one before the others.
    log, layer, x = Log(), linear(), X.clone().requires_grad_()
    layer.register_forward_pre_hook(lambda m, args: log('pre 1', args))
    layer.register_forward_pre_hook(lambda m, args: (log('pre 2', args), args[0] * 2)[1])
    layer.register_forward_pre_hook(lambda m, args: log('pre 0', args), prepend=True)
    layer.register_forward_hook(lambda m, args, out: (log('forward 1', args, out), out + 1)[1])
    layer.register_forward_hook(lambda m, args, out: log('forward 0', args, out), prepend=True)
    layer.register_full_backward_pre_hook(lambda m, grads: (log('backward pre 1', grads), (grads[0] * 3,))[1])
    layer.register_full_backward_pre_hook(lambda m, grads: log('backward pre 2', grads))
    layer.register_full_backward_hook(lambda m, gi, go: (log('backward 1', gi, go), (gi[0] * 5,))[1])
    layer.register_full_backward_hook(lambda m, gi, go: log('backward 2', gi, go))
    layer.register_full_backward_hook(lambda m, gi, go: log('backward 0', gi, go), prepend=True)
    layer(x).sin().sum().backward()
    case('linear', log, x=x.grad, weight=layer.weight.grad, bias=layer.bias.grad)

    # Several arguments and results; one output is not used, one argument has no gradient.
    for name, needs, used in (('pair', (True, True), (0, 1)), ('pair unused', (True, True), (0,)), ('pair half', (False, True), (0, 1)), ('pair none', (False, False), (0,))):
        log, module = Log(), Pair()
        x, y = X.clone().requires_grad_(needs[0]), Y.clone().requires_grad_(needs[1])
        module.register_full_backward_pre_hook(lambda m, grads: log('pre', grads))
        module.register_full_backward_hook(lambda m, gi, go: log('full', gi, go))
        outputs = module(x, y, 3)
        sum(outputs[i].cos().sum() for i in used).backward()
        case(name, log, x=x.grad, y=y.grad, weight=module.weight.grad)

    # Children before and after their parent.
    log = Log()
    model = nn.Sequential(linear(), nn.Tanh())
    x = X.clone().requires_grad_()
    for name, module in (('model', model), ('linear', model[0]), ('tanh', model[1])):
        module.register_forward_pre_hook(lambda m, args, name=name: log(f'{name} pre'))
        module.register_forward_hook(lambda m, args, out, name=name: log(f'{name} forward'))
        module.register_full_backward_pre_hook(lambda m, grads, name=name: log(f'{name} backward pre', grads))
        module.register_full_backward_hook(lambda m, gi, go, name=name: log(f'{name} backward', gi, go))
    model(x).pow(2).sum().backward()
    case('tree', log, x=x.grad)

    # State dictionaries.
    log, model = Log(), nn.Sequential(linear(), nn.Sequential(linear()))
    for name, module in (('model', model), ('inner', model[1]), ('linear', model[1][0])):
        module.register_state_dict_pre_hook(lambda m, prefix, keep, name=name: log(f'{name} save pre', prefix))
        module.register_state_dict_post_hook(lambda m, state, prefix, meta, name=name: log(f'{name} save post', prefix, sorted(state)))
        module.register_load_state_dict_pre_hook(lambda m, state, prefix, *rest, name=name: log(f'{name} load pre', prefix, sorted(state)))
        module.register_load_state_dict_post_hook(lambda m, keys, name=name: log(f'{name} load post', sorted(keys.missing_keys), sorted(keys.unexpected_keys)))
    state = model.state_dict()
    del state['1.0.bias']
    state['extra'] = torch.zeros(1)
    model.load_state_dict(state, strict=False)
    case('state', log)

    # Tensors.
    log = Log()
    p, q = X.clone().requires_grad_(), Y.clone().requires_grad_()
    p.register_hook(lambda g: (log('p hook', g), g * 2)[1])
    p.register_post_accumulate_grad_hook(lambda t: log('p accumulated', t.grad.clone()))
    q.register_post_accumulate_grad_hook(lambda t: (log('q accumulated 1', t.grad.clone()), t.grad.mul_(10))[0])
    q.register_post_accumulate_grad_hook(lambda t: log('q accumulated 2', t.grad.clone()))
    inner = p * q
    inner.register_hook(lambda g: log('inner', g))
    inner.sin().sum().backward()
    case('tensors', log, p=p.grad, q=q.grad)

    # An update inside the backward pass, which leaves no gradient.
    log, layer = Log(), linear()

    def update(parameter):
        with torch.no_grad():
            parameter.add_(parameter.grad, alpha=-0.1)
        parameter.grad = None

    for parameter in layer.parameters():
        parameter.register_post_accumulate_grad_hook(update)
    for _ in range(3):
        layer(X).pow(2).mean().backward()
    case('update', log, weight=layer.weight.detach(), bias=layer.bias.detach())
    return fixture


main({'nn/hooks': hooks})
