import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import {
  AutogradFunction,
  autograd,
  BatchNorm1d,
  ConfigError,
  Dropout,
  func,
  functional,
  getNumThreads,
  LayerNorm,
  Linear,
  manualSeed,
  memoryStats,
  ones,
  ops,
  rand,
  randn,
  Sequential,
  ShapeError,
  scope,
  setNumThreads,
  stack,
  Tanh,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/index.js'
import { expectClose, fixture, tensorsOf } from '../helpers.js'

const file = await fixture<{ name: string }>('func/transforms')
const given = (name: string) => tensorsOf(file, name, 'in')
const { x, y, w } = given('inputs') as { x: Tensor; y: Tensor; w: Tensor }
const { rows, columns } = given('rows') as { rows: Tensor; columns: Tensor }
const { inputs, labels } = given('network') as { inputs: Tensor; labels: Tensor }

/** Compare what a case computes with torch.func. */
function as(name: string, compute: () => Record<string, Tensor>): void {
  test(name, () =>
    scope(() => {
      const found = compute()
      const expected = tensorsOf(file, name, 'out')
      expect(Object.keys(found).sort()).toEqual(Object.keys(expected).sort())
      for (const [key, value] of Object.entries(expected)) expectClose(found[key] as Tensor, value, 1e-5, key)
    }),
  )
}

function network(seed: number): Sequential {
  const model = new Sequential(new Linear(4, 5), new LayerNorm(5), new Tanh(), new Linear(5, 3))
  const all = tensorsOf(file, 'network', 'param')
  const own = Object.entries(all).filter(([name]) => name.startsWith(`${seed}.`))
  model.loadStateDict(Object.fromEntries(own.map(([name, value]) => [name.slice(2), value])))
  return model
}

const detached = (model: Sequential): Record<string, Tensor> =>
  Object.fromEntries(model.namedParameters().map(([name, parameter]) => [name, parameter.detach()]))

const f = (x: Tensor): Tensor => x.sin().mul(x).sum()
const two = (x: Tensor, y: Tensor): Tensor => x.exp().mul(y.cos()).sum()
const g = (x: Tensor, w: Tensor): Tensor => x.matmul(w).tanh()

describe('as in torch.func', () => {
  as('grad', () => ({ gradient: func.grad(f)(x) }))
  as('grad of grad', () => ({ gradient: func.grad((x: Tensor) => func.grad(f)(x).pow(2).sum())(x) }))
  as('third', () => {
    const { grad, vmap } = func
    return { gradient: vmap(grad(grad(grad((x: Tensor) => x.sin().mul(x.exp())))))(x) }
  })
  as('argnums', () => {
    const [gx, gy] = func.grad(two, { argnums: [0, 1] })(x, y)
    const [grad, value] = func.gradAndValue(two, { argnums: 1 })(x, y)
    return { x: gx, y: gy, grad, value }
  })
  as('tree', () => {
    const { a, b } = func.grad((p: { a: Tensor[]; b: Tensor }) => p.a[0]!.sin().mul(p.b).sum())({ a: [x], b: y })
    return { a: a[0], b }
  })
  as('vjp', () => {
    const [out, pull] = func.vjp(g, [x, w])
    const [dx, dw] = pull(ones([4]))
    return { out, x: dx, w: dw }
  })
  as('jvp', () => {
    const [out, tangent] = func.jvp(g, [x, w], [y, w.cos()])
    return { out, tangent }
  })
  as('jvp of jvp', () => {
    const inner = (x: Tensor): Tensor => func.jvp((x: Tensor) => x.sin().mul(x.exp()), [x], [y])[1]
    const [out, tangent] = func.jvp(inner, [x], [x.cos()])
    return { out, tangent }
  })
  as('linearize', () => {
    const [out, push] = func.linearize(g, [x, w])
    return { out, tangent: push(y, w.cos()) }
  })
  as('jacrev', () => ({ x: func.jacrev(g)(x, w), w: func.jacrev(g, { argnums: 1 })(x, w) }))
  as('jacfwd', () => ({ x: func.jacfwd(g)(x, w), w: func.jacfwd(g, { argnums: 1 })(x, w) }))
  as('jacrev tree', () => {
    const fn = (x: Tensor, y: Tensor) => ({ p: x.mul(y.sum()), q: y.sin().sum() })
    const { p, q } = func.jacrev(fn, { argnums: [0, 1], chunkSize: 2 })(x, y)
    return { px: p[0], py: p[1], qx: q[0], qy: q[1] }
  })
  as('hessian', () => ({
    x: func.hessian((x: Tensor) =>
      x
        .sin()
        .mul(x.outer(x).sum([0]))
        .sum(),
    )(x),
  }))
  as('hessian argnums', () => {
    const [[xx, xy], [yx, yy]] = func.hessian(two, { argnums: [0, 1] })(x, y)
    return { xx, xy, yx, yy }
  })
  as('vmap', () => {
    const { vmap } = func
    const product = (a: Tensor, b: Tensor) => a.mul(b)
    return {
      dot: vmap((a: Tensor, b: Tensor) => a.dot(b))(rows, rows.cos()),
      mixed: vmap(product, { inDims: [0, 1], outDims: 1, chunkSize: 2 })(rows, columns),
      shared: vmap((a: Tensor, w: Tensor) => a.matmul(w), { inDims: [0, null] })(rows, w),
      nested: vmap(vmap(product, { inDims: [null, 0] }), { inDims: [0, null] })(rows, rows),
    }
  })
  as('vmap of jvp', () => ({
    tangents: func.vmap((t: Tensor) => func.jvp((x: Tensor) => x.sin().matmul(w), [x], [t])[1])(rows),
  }))
  as('per-sample gradients', () => {
    const model = network(0)
    const loss = (p: Record<string, Tensor>, sample: Tensor, label: Tensor): Tensor =>
      functional.crossEntropy(func.functionalCall(model, p, sample.unsqueeze(0)) as Tensor, label.unsqueeze(0))
    return func.vmap(func.grad(loss), { inDims: [null, 0, 0] })(detached(model), inputs, labels)
  })
  as('network jacobian', () => {
    const model = network(0)
    const parameters = detached(model)
    return { jacobian: func.vmap(func.jacrev((x: Tensor) => func.functionalCall(model, parameters, x)))(inputs) }
  })
  as('ensemble', () => {
    const models = [network(0), network(1)]
    const [stacked] = func.stackModuleState(models)
    const run = (p: Record<string, Tensor>, x: Tensor) => func.functionalCall(models[0]!, p, x)
    return { out: func.vmap(run, { inDims: [0, null] })(stacked, inputs) }
  })
  as('network hvp', () => {
    const model = network(0)
    const parameters = detached(model)
    const weight = parameters['0.weight'] as Tensor
    const loss = (p: Tensor): Tensor =>
      (func.functionalCall(model, { ...parameters, '0.weight': p }, inputs) as Tensor).pow(2).mean()
    return { hvp: func.jvp(func.grad(loss), [weight], [weight.cos()])[1] }
  })
  test('every case has a test here', () => {
    expect(file.cases.map(({ name }) => name)).toHaveLength(23)
  })
})

describe('losses have batched gradients and second derivatives', () => {
  const sign = (y: Tensor): Tensor => y.sub(0.5).sign()
  const losses: Record<string, (x: Tensor, y: Tensor) => Tensor> = {
    mseLoss: (x, y) => functional.mseLoss(x, y, { reduction: 'sum' }),
    smoothL1Loss: (x, y) => functional.smoothL1Loss(x, y, { beta: 0.7 }),
    huberLoss: (x, y) => functional.huberLoss(x, y, { delta: 0.7 }),
    'huberLoss with weights': (x, y) => functional.huberLoss(x, y, { weight: y }),
    klDiv: (x, y) => functional.klDiv(x, y, { reduction: 'batchmean' }),
    'klDiv of logarithms': (x, y) => functional.klDiv(x, y, { logTarget: true }),
    softMarginLoss: (x, y) => functional.softMarginLoss(x, sign(y)),
    hingeEmbeddingLoss: (x, y) => functional.hingeEmbeddingLoss(x, sign(y), { margin: 0.4 }),
    marginRankingLoss: (x, y) => functional.marginRankingLoss(x, y, sign(y), { margin: 0.1 }),
    tripletMarginLoss: (x, y) => functional.tripletMarginLoss(x, y, y.neg(), { swap: true }),
    binaryCrossEntropy: (x, y) => functional.binaryCrossEntropy(x.sigmoid(), y),
    binaryCrossEntropyWithLogits: (x, y) => functional.binaryCrossEntropyWithLogits(x, y),
  }
  const double = { dtype: 'float64' } as const

  // libtorch's own kernels, outside of any transform, are the authority.
  const gradient = async (loss: (x: Tensor, y: Tensor) => Tensor, x: Tensor, y: Tensor): Promise<Tensor> => {
    const leaf = x.detach().requiresGrad_(true)
    return (await autograd.grad([loss(leaf, y)], [leaf]))[0]!
  }

  test.each(Object.entries(losses))('%s', (_, loss) =>
    scope(async () => {
      manualSeed(5)
      const [x, y] = [randn([3, 4], double), rand([3, 4], double)]
      const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
      const found = scope(() => ({
        values: func.vmap(loss)(x, y) as Tensor,
        gradients: func.vmap(func.grad(loss))(x, y) as Tensor,
        hessians: func.vmap(func.hessian(loss))(x, y) as Tensor,
      }))
      const warnings = warn.mock.calls.map(([warning]) => String(warning))
      warn.mockRestore()
      expect(warnings.filter((warning) => /batching rule/.test(warning))).toEqual([])
      const step = 1e-6
      for (let row = 0; row < 3; row += 1) {
        const [xs, ys] = [x.at(row), y.at(row)]
        expectClose(found.values.at(row), loss(xs, ys), 1e-12, 'values')
        expectClose(found.gradients.at(row), await gradient(loss, xs, ys), 1e-12, 'gradients')
        const columns: Tensor[] = []
        for (let i = 0; i < 4; i += 1) {
          const shift = functional.oneHot(tensor(i), 4).mul(step)
          const [up, down] = [await gradient(loss, xs.add(shift), ys), await gradient(loss, xs.sub(shift), ys)]
          columns.push(up.sub(down).div(2 * step))
        }
        const numeric = stack(columns, 1)
        expect(found.hessians.at(row).sub(numeric).abs().max().item()).toBeLessThan(1e-7)
      }
    }),
  )
})

describe('levels', () => {
  let before = 0
  beforeEach(() => {
    before = memoryStats().liveTensors
  })
  afterEach(() => {
    expect(memoryStats().liveTensors).toBe(before)
    expect(memoryStats().liveScopes).toBe(0)
  })

  test('a tensor is made of numbers inside every transform', () =>
    scope(() => {
      const scaled = (x: Tensor) => x.mul(tensor([1, 2, 3])).sum()
      const floats = (values: number[] | number[][]) => tensor(values, { dtype: 'float32' })
      const x = floats([5, 6, 7])
      const expected = floats([1, 2, 3])
      expectClose(func.grad(scaled)(x) as Tensor, expected)
      expectClose(func.jacrev(scaled)(x) as Tensor, expected)
      expectClose(func.jacfwd(scaled)(x) as Tensor, expected)
      expectClose(func.vmap(func.grad(scaled))(stack([x, x])) as Tensor, stack([expected, expected]))
      const second = func.hessian((y: Tensor) => scaled(y.square()))(x) as Tensor
      expectClose(second, expected.mul(2).diag())
    }))

  test('leave no tensors but the result', () =>
    scope(() => {
      const input = randn([3])
      const count = memoryStats().liveTensors
      const results = [
        func.grad(f)(input),
        func.vmap((row: Tensor) => row.sin().sum())(input.unsqueeze(0)),
        func.jvp(f, [input], [input])[1],
        func.hessian(f)(input),
      ]
      expect(results.length).toBe(4)
      // The batch, and the output that jvp also returns.
      expect(memoryStats().liveTensors - count).toBe(6)
      const [, pull] = func.vjp(f, [input])
      pull.dispose()
      expect(memoryStats().liveTensors - count).toBe(7)
      const [, push] = func.linearize(f, [input])
      push(input)
      push.dispose()
      // The two outputs: the function's, and the derivative in the direction.
      expect(memoryStats().liveTensors - count).toBe(9)
    }))

  test('linearize frees what it recorded without a scope around it', () => {
    const input = ones([2])
    const [output, push] = func.linearize((x: Tensor) => x.exp(), [input])
    push.dispose()
    for (const tensor of [input, output]) tensor.dispose()
  })

  test('are closed when the function throws, however deep', () =>
    scope(() => {
      const fail = () => {
        throw new Error('stop')
      }
      const { grad, jvp, vmap } = func
      const input = ones([2, 3])
      expect(() => vmap(grad((row: Tensor) => jvp(fail, [row], [row])[1]))(input)).toThrow('stop')
      expect(() => vmap((row: Tensor) => row.reshape([7]))(input)).toThrow()
      // A plain tensor is plain again, and large operators are.
      expect(input.sum().item()).toBe(6)
      expect(func.grad(f)(ones([3])).shape).toEqual([3])
    }))

  test('refuse jobs, backward passes, promises and functions written in JavaScript, by name', () =>
    scope(() => {
      const inside = (fn: (x: Tensor) => unknown) => () => func.grad((x: Tensor) => fn(x) as Tensor)(ones([3]))
      class Twice extends AutogradFunction {
        static override forward(_: unknown, x: Tensor) {
          return x.mul(2)
        }
        static override backward(_: unknown, gradient: Tensor) {
          return gradient.mul(2)
        }
      }
      expect(inside(async (x) => x.sum())).toThrow(/function of grad to be synchronous, got a promise/)
      expect(inside((x) => Twice.apply(x).sum())).toThrow(/no AutogradFunction inside a transform of func/)
      const jobs: Promise<unknown>[] = []
      func.grad((x: Tensor) => {
        jobs.push(ops.async.matmul(x, x), x.sum().backward(), autograd.grad(x.sum(), x))
        return x.sum()
      })(ones([3]))
      return Promise.allSettled(jobs).then((settled) => {
        for (const [i, name] of ['matmul', 'backward', 'grad'].entries()) {
          const { reason } = settled[i] as PromiseRejectedResult
          expect(String(reason)).toMatch(
            new RegExp(`${name}: expected a synchronous operator inside a transform of func`),
          )
        }
      })
    }))

  test('keep large operators on this thread', () =>
    scope(() => {
      const threads = getNumThreads()
      setNumThreads(4)
      try {
        const large = randn([8, 600, 600])
        const sum = func.vmap((a: Tensor) => a.matmul(a).sin().sum())(large)
        expectClose(sum, large.matmul(large).sin().sum([1, 2]), 1e-4)
        const gradient = func.grad((a: Tensor) => a.matmul(a).sum())(large)
        const total = ones([600, 600])
        expectClose(gradient.at(0), total.matmul(large.at(0).mT).add(large.at(0).mT.matmul(total)), 1e-4)
      } finally {
        setNumThreads(threads)
      }
    }))

  test('hold for gradients that are read, printed and hooked inside', () =>
    scope(() => {
      const seen: unknown[] = []
      const gradient = func.grad((x: Tensor) => {
        seen.push(x.toArray(), x.sum().item(), x.shape)
        const inner = x.mul(3)
        inner.registerHook((gradient) => {
          seen.push('hook')
          return gradient.mul(2)
        })
        return inner.sum()
      })(tensor([1.5, 2]))
      expect(gradient.toArray()).toEqual([6, 6])
      expect(seen).toEqual([[1.5, 2], 3.5, [2], 'hook'])
      expect(() => func.vmap((x: Tensor) => tensor(x.toArray() as number[]))(ones([2, 3]))).toThrow(
        /got one of a vmap, which stands for all samples at once/,
      )
    }))

  test('noGrad counts inside a transform and not around it', () =>
    scope(() => {
      const { noGrad } = { noGrad: (fn: () => Tensor) => scope(() => fn().detach()) }
      const constant = func.grad((x: Tensor) => x.mul(noGrad(() => x.mul(2))).sum())(tensor([3.5]))
      expect(constant.item()).toBe(7)
    }))
})

describe('vmap', () => {
  test('draws random numbers only as it is told', () =>
    scope(() => {
      const layer = new Dropout(0.5)
      const drop = (row: Tensor) => layer.forward(row)
      const input = ones([4, 64])
      expect(() => func.vmap(drop)(input)).toThrow(/randomness/)
      manualSeed(0)
      const same = func.vmap(drop, { randomness: 'same' })(input)
      expect(same.at(0).equal(same.at(1))).toBe(true)
      const different = func.vmap(drop, { randomness: 'different' })(input)
      expect(different.at(0).equal(different.at(1))).toBe(false)
    }))

  test('passes null dimensions, and names what is wrong', () =>
    scope(() => {
      const { vmap } = func
      const id = (a: Tensor) => a.mul(1)
      const input = ones([2, 3])
      expect(
        vmap((a: Tensor, n: number) => a.mul(n), { inDims: [0, null] })(input, 2)
          .sum()
          .item(),
      ).toBe(12)
      expect(vmap(() => ones([2]), { inDims: 0 })(input).shape).toEqual([2, 2])
      expect(vmap(() => ones([3]), { inDims: 0, outDims: 1 })(input).shape).toEqual([3, 2])
      expect(() => vmap(id, { inDims: null })(input)).toThrow(/at least one argument, got none/)
      expect(() => vmap(id, { inDims: 2 })(input)).toThrow(
        /one of the 2 dimensions of a tensor of shape \[2,3\], got 2/,
      )
      expect(() => vmap(id, { outDims: 5 })(input)).toThrow(/outDims: expected a dimension/)
      expect(() => vmap(id)(3)).toThrow(/expected tensors where inDims has a dimension, got a number/)
      expect(() => vmap((a: Tensor, b: Tensor) => a.add(b))(input, ones([3, 3]))).toThrow(ShapeError)
      expect(() => vmap(id, { randomness: 'none' as 'error' })).toThrow(ConfigError)
      expect(() => vmap(id, { chunkSize: 0 })).toThrow(ConfigError)
      expect(() => vmap(() => 3)(input)).toThrow(/the result of the function to be a tensor/)
      expect(() => vmap((a: Tensor) => (a.sum().item() > 0 ? a : a.neg()))(input)).toThrow(/vmap/)
    }))
})

describe('arguments', () => {
  test('that cannot be differentiated are named', () =>
    scope(() => {
      const { grad, jvp, vjp } = func
      expect(() => grad(f)(tensor([1, 2]))).toThrow(/a differentiated argument to be floating point.*got int64/)
      expect(() => grad((x: Tensor) => x.mul(2))(ones([3]))).toThrow(/without dimensions, got shape \[3\]/)
      expect(() => grad(() => 3)(ones([3]))).toThrow(/got a number/)
      expect(() => grad(f, { argnums: 1 })(ones([3]))).toThrow(/argnums to be in \[-1, 0\]/)
      expect(() => grad(f)(3)).toThrow(/a differentiated argument to be a tensor.*got a number/)
      expect(() => grad(null as unknown as typeof f)).toThrow(ConfigError)
      expect(() => vjp(f, ones([3]) as unknown as Tensor[])).toThrow(/primals to be an array/)
      expect(() => jvp(f, [ones([3])], [ones([2])])).toThrow(/tangent of its primal's shape \[3\], got \[2\]/)
      expect(() => jvp(f, [ones([3])], [])).toThrow(ConfigError)
      const [, pull] = vjp(f, [ones([3])])
      expect(() => pull(ones([3]))).toThrow(/gradients of shapes \[\], like the result, got \[3\]/)
    }))

  test('aux values come back as they are', () =>
    scope(() => {
      const withAux = (x: Tensor) => [x.pow(2).sum(), { double: x.mul(2), note: 'kept' }]
      const input = tensor([1.5, 2])
      const [gradient, aux] = func.grad(withAux, { hasAux: true })(input)
      expect([gradient.toArray(), aux.double.toArray(), aux.note]).toEqual([[3, 4], [3, 4], 'kept'])
      const [, [value]] = func.gradAndValue(withAux, { hasAux: true })(input)
      expect(value.item()).toBe(6.25)
      const pair = (x: Tensor) => [x.sin(), x.mul(2)]
      const [, tangent, third] = func.jvp(pair, [input], [ones([2])], { hasAux: true })
      expectClose(tangent, input.cos())
      expect(third.toArray()).toEqual([3, 4])
      for (const jacobian of [func.jacrev, func.jacfwd]) {
        const [matrix, double] = jacobian(pair, { hasAux: true })(input)
        expectClose(matrix, input.cos().diag())
        expect(double.toArray()).toEqual([3, 4])
      }
      expect(() => func.grad(f, { hasAux: true })(input)).toThrow(/\[output, aux\]/)
    }))
})

describe('functionalCall', () => {
  test('puts back what it replaced, also after an error', () => {
    const model = network(0)
    const weights = model.parameters()
    scope(() => {
      const doubled = Object.fromEntries(Object.entries(detached(model)).map(([name, value]) => [name, value.mul(2)]))
      const plain = model.forward(inputs)
      expect(ops.allclose(func.functionalCall(model, doubled, [inputs]) as Tensor, plain)).toBe(false)
      expect(() => func.functionalCall(model, { '0.weight': zeros([1, 1]) }, inputs)).toThrow()
      expect(model.parameters()).toEqual(weights)
      expect(model.forward(inputs).equal(plain)).toBe(true)
    })
    model.dispose()
  })

  test('writes to the buffers that it is given, and knows both names of a tied weight', () => {
    scope(() => {
      const norm = new BatchNorm1d(3)
      const buffers = { running_mean: zeros([3]), running_var: ones([3]), num_batches_tracked: tensor(0) }
      func.functionalCall(norm, [Object.fromEntries(norm.namedParameters()), buffers], ones([4, 3]))
      expect(buffers.running_mean.toArray()).not.toEqual([0, 0, 0])
      expect(norm.running_mean!.toArray()).toEqual([0, 0, 0])
      const [a, b] = [new Linear(2, 2, { bias: false }), new Linear(2, 2, { bias: false })]
      b.weight = a.weight
      const tied = new Sequential(a, b)
      const weight = tensor([
        [2, 0],
        [0, 2],
      ]).float()
      const call = (options: object) =>
        func.functionalCall(tied, { '0.weight': weight }, ones([1, 2]), options) as Tensor
      expect(call({}).toArray()).toEqual([[4, 4]])
      expectClose(call({ tieWeights: false }), functional.linear(ones([1, 2]).mul(2), a.weight))
      expect(() => call({ strict: true })).not.toThrow()
      for (const module of [norm, tied]) module.dispose()
    })
  })

  test('names wrong and missing names', () => {
    const layer = new Linear(2, 2)
    scope(() => {
      expect(() => func.functionalCall(layer, { wieght: ones([2, 2]) }, ones([1, 2]))).toThrow(/did you mean 'weight'/)
      expect(() => func.functionalCall(layer, { weight: ones([2, 2]) }, ones([1, 2]), { strict: true })).toThrow(/bias/)
      expect(() => func.stackModuleState([])).toThrow(ConfigError)
      expect(() => func.stackModuleState([layer, new Dropout()])).toThrow(/one class/)
      expect(() => func.stackModuleState([1 as never])).toThrow(
        /stackModuleState: expected a module to be a Module, got 1/,
      )
      expect(() => func.stackModuleState(layer as never)).toThrow(/expected modules to be an iterable of modules/)
    })
    layer.dispose()
  })
})
