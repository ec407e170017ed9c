"""What torch.func computes, which test/func/transforms.test.ts compares: python func_transforms.py [--check].

The functions are written twice, here and in the test, under the same names.
"""

import torch
import torch.nn.functional as F
from common import Fixture, main, randint, randn
from torch import nn
from torch.func import functional_call, grad, grad_and_value, hessian, jacfwd, jacrev, jvp, linearize, vjp, vmap
from torch.func import stack_module_state

X, Y, W = randn('func x', 3), randn('func y', 3), randn('func w', 3, 4)


def network(seed):
    model = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 3))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(randn(f'func model {seed} {name}', *parameter.shape, scale=0.5))
    return model


def transforms():
    fixture = Fixture()

    def case(name, **outputs):
        fixture.case({'name': name}, out=outputs)

    fixture.case({'name': 'inputs'}, **{'in': {'x': X, 'y': Y, 'w': W}})

    f = lambda x: (x.sin() * x).sum()
    case('grad', gradient=grad(f)(X))
    case('grad of grad', gradient=grad(lambda x: grad(f)(x).pow(2).sum())(X))
    case('third', gradient=vmap(grad(grad(grad(lambda x: x.sin() * x.exp()))))(X))
    two = lambda x, y: (x.exp() * y.cos()).sum()
    gx, gy = grad(two, argnums=(0, 1))(X, Y)
    value_grad, value = grad_and_value(two, argnums=1)(X, Y)
    case('argnums', x=gx, y=gy, value=value, grad=value_grad)
    tree = grad(lambda p: (p['a'][0].sin() * p['b']).sum())({'a': [X], 'b': Y})
    case('tree', a=tree['a'][0], b=tree['b'])

    g = lambda x, w: torch.tanh(x @ w)
    out, pull = vjp(g, X, W)
    back = pull(torch.ones(4))
    case('vjp', out=out, x=back[0], w=back[1])
    out, tangent = jvp(g, (X, W), (Y, W.cos()))
    case('jvp', out=out, tangent=tangent)
    out, tangent = jvp(lambda x: jvp(lambda x: x.sin() * x.exp(), (x,), (Y,))[1], (X,), (X.cos(),))
    case('jvp of jvp', out=out, tangent=tangent)
    out, push = linearize(g, X, W)
    case('linearize', out=out, tangent=push(Y, W.cos()))

    case('jacrev', x=jacrev(g)(X, W), w=jacrev(g, argnums=1)(X, W))
    case('jacfwd', x=jacfwd(g)(X, W), w=jacfwd(g, argnums=1)(X, W))
    nested = jacrev(lambda x, y: {'p': x * y.sum(), 'q': (y.sin()).sum()}, argnums=(0, 1))(X, Y)
    case('jacrev tree', px=nested['p'][0], py=nested['p'][1], qx=nested['q'][0], qy=nested['q'][1])
    h = lambda x: (x.sin() * x.outer(x).sum(0)).sum()
    case('hessian', x=hessian(h)(X))
    both = hessian(two, argnums=(0, 1))(X, Y)
    case('hessian argnums', xx=both[0][0], xy=both[0][1], yx=both[1][0], yy=both[1][1])

    rows = randn('func rows', 5, 3)
    fixture.case({'name': 'rows'}, **{'in': {'rows': rows, 'columns': randn('func columns', 3, 5)}})
    columns = randn('func columns', 3, 5)
    case('vmap', dot=vmap(torch.dot)(rows, rows.cos()), mixed=vmap(lambda a, b: a * b, in_dims=(0, 1), out_dims=1)(rows, columns),
         shared=vmap(lambda a, w: a @ w, in_dims=(0, None))(rows, W), nested=vmap(vmap(lambda a, b: a * b, (None, 0)), (0, None))(rows, rows))  # fmt: skip
    case('vmap of jvp', tangents=vmap(lambda t: jvp(lambda x: x.sin() @ W, (X,), (t,))[1])(rows))

    # Per-sample gradients of a network, and an ensemble.
    model = network(0)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    inputs, labels = randn('func inputs', 6, 4), randint('func labels', 0, 3, 6)
    fixture.case({'name': 'network'}, **{'in': {'inputs': inputs, 'labels': labels}},
                 param={f'{seed}.{name}': p for seed in (0, 1) for name, p in network(seed).named_parameters()})  # fmt: skip

    def loss(p, sample, label):
        return F.cross_entropy(functional_call(model, p, (sample.unsqueeze(0),)), label.unsqueeze(0))

    per_sample = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, inputs, labels)
    case('per-sample gradients', **per_sample)
    case('network jacobian', jacobian=vmap(jacrev(lambda x: functional_call(model, parameters, (x,))))(inputs))
    models = [network(0), network(1)]
    stacked, buffers = stack_module_state(models)
    case('ensemble', out=vmap(lambda p, x: functional_call(models[0], p, (x,)), in_dims=(0, None))(stacked, inputs))
    case('network hvp', hvp=jvp(grad(lambda p: functional_call(model, parameters | {'0.weight': p}, (inputs,)).pow(2).mean()),
                                (parameters['0.weight'],), (parameters['0.weight'].cos(),))[1])  # fmt: skip
    return fixture


main({'func/transforms': transforms})
