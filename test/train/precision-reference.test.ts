import { describe, expect, it } from 'vitest'
import * as vt from '../../lib/index.js'
import { fixture, numbers, ROUNDING, relativeError, tensorsOf } from '../helpers.js'

// What test/reference/train_precision.py computed in each dtype by PyTorch's default path, which its fused kernels only
// replace where they are asked for.

const STEPS = 50
const DTYPES = ['float64', 'float32', 'bfloat16', 'float16'] as const
type Options = Record<string, unknown>
// biome-ignore lint/suspicious/noExplicitAny: constructors with different options.
type AnyClass = new (...args: any[]) => any

const camel = (options: Options): Options =>
  Object.fromEntries(
    Object.entries(options).map(([key, value]) => [
      key.replace(/^T_/, 't_').replace(/_(.)/g, (_, letter: string) => letter.toUpperCase()),
      value,
    ]),
  )
const typed = (tensor: vt.Tensor, dtype: vt.DType) => tensor.to({ dtype }).clone()
/** Other gradients in each step, all from one tensor. */
const rolled = (values: vt.Tensor, step: number) =>
  values
    .reshape([-1])
    .roll([7 * step])
    .view(values.shape)

const rootMeanSquare = (a: vt.Tensor, b: vt.Tensor) => {
  const [left, right] = [numbers(a.double()), numbers(b.double())].map((list) => list.map(Number))
  const sum = (left as number[]).reduce((total, value, i) => total + (value - (right as number[])[i]!) ** 2, 0)
  return Math.sqrt(sum / (left as number[]).length)
}

/**
 * In float64 the same numbers. In others as near to float64 as PyTorch's default path: half again as far off at most, or
 * half a rounding of the largest number where PyTorch happens to round nothing.
 */
function expectAsAccurate(ours: vt.Tensor, theirs: vt.Tensor, exact: vt.Tensor, label: string): void {
  expect([ours.shape, ours.dtype], label).toEqual([theirs.shape, theirs.dtype])
  if (ours.dtype === 'float64') {
    expect(relativeError(numbers(ours), numbers(exact)), label).toBeLessThan(STEPS * 4 * ROUNDING.float64)
    return
  }
  const largest = Number(exact.abs().max().item())
  const once = (ROUNDING[ours.dtype as keyof typeof ROUNDING] * largest) / 2
  const [mine, reference] = [rootMeanSquare(ours, exact), rootMeanSquare(theirs, exact)]
  expect(reference, label).toBeLessThan(Number.POSITIVE_INFINITY)
  expect(mine, label).toBeLessThanOrEqual(Math.max(1.5 * reference, once))
}

describe('optimizers over 50 steps against PyTorch', async () => {
  const KINDS: Record<string, AnyClass> = {
    ...{ Adadelta: vt.Adadelta, Adafactor: vt.Adafactor, Adagrad: vt.Adagrad, Adam: vt.Adam, Adamax: vt.Adamax },
    ...{ AdamW: vt.AdamW, ASGD: vt.ASGD, LBFGS: vt.LBFGS, Lion: vt.Lion, NAdam: vt.NAdam, RAdam: vt.RAdam },
    ...{ RMSprop: vt.RMSprop, Rprop: vt.Rprop, SGD: vt.SGD, TransformersAdafactor: vt.TransformersAdafactor },
  }
  interface Case {
    name: string
    kind: string
    options: Options
  }
  const file = await fixture<Case>('train/precision-optimizers')
  const keys = ['weight', 'bias', 'scalar']
  const initial = tensorsOf(file, 'given', 'param')
  const gradients = tensorsOf(file, 'given', 'in')
  const cases = file.cases.slice(1).flatMap((one) => DTYPES.map((dtype) => [one.name, dtype, one] as const))

  it.each(cases)('%s in %s', async (name, dtype, { kind, options }) => {
    const params = keys.map((key) => new vt.Parameter(typed(initial[key] as vt.Tensor, dtype)))
    const given = keys.map((key) => typed(gradients[key] as vt.Tensor, dtype))
    using optimizer = new (KINDS[kind] as AnyClass)(params, camel(options))
    const bowl = async () => {
      optimizer.zeroGrad()
      const losses = params.map((param, i) => {
        const target = given[i] as vt.Tensor
        return param.sub(target).square().mul(target.abs()).sum()
      })
      const loss = losses.reduce((sum, one) => sum.add(one))
      await loss.backward()
      return loss.item() as number
    }
    for (let step = 0; step < STEPS; step++) {
      await vt.scope(async () => {
        if (kind === 'LBFGS') return void (await optimizer.step(bowl))
        params.forEach((param, i) => {
          param.grad = rolled(given[i] as vt.Tensor, step)
        })
        await optimizer.step()
      })
    }
    const { [dtype]: theirs, float64: exact } = tensorsOf(file, name, 'out')
    const ours = vt.cat(params.map((param) => param.detach().reshape([-1])))
    expectAsAccurate(ours, theirs as vt.Tensor, exact as vt.Tensor, `${name} in ${dtype}`)
  })
})

describe('SGD under every schedule over 50 steps against PyTorch', async () => {
  interface Case {
    name: string
    from: 'torch' | 'transformers'
    kind: string
    options: Options
    steps?: { warmup: number; steps?: number }
    count: number
    metrics?: number[]
  }
  const file = await fixture<Case>('train/precision-schedules')
  const metrics = file.cases[0]?.metrics as number[]
  const initial = tensorsOf(file, 'given', 'param').weight as vt.Tensor
  const gradient = tensorsOf(file, 'given', 'in').weight as vt.Tensor
  const cases = file.cases.slice(1).flatMap((one) => DTYPES.map((dtype) => [one.name, dtype, one] as const))

  const make = ({ from, kind, options, steps }: Case, optimizer: vt.SGD) => {
    if (from === 'torch') return new ((vt as Options)[kind] as AnyClass)(optimizer, camel(options))
    return vt.getScheduler(kind as vt.SchedulerType, optimizer, {
      numWarmupSteps: steps?.warmup as number,
      numTrainingSteps: steps?.steps as number,
      schedulerSpecificOptions: camel(options),
    })
  }

  it.each(cases)('%s in %s', async (name, dtype, one) => {
    const param = new vt.Parameter(typed(initial, dtype))
    const given = typed(gradient, dtype)
    using optimizer = new vt.SGD([param], { lr: 0.1, momentum: 0.5 })
    const schedule = make(one, optimizer)
    const rates: number[] = []
    for (let step = 0; step < one.count; step++) {
      rates.push(optimizer.groups[0]?.lr as number)
      await vt.scope(async () => {
        param.grad = rolled(given, step)
        await optimizer.step()
      })
      if (one.kind === 'ReduceLROnPlateau') schedule.step(metrics[step % metrics.length])
      else if (step + 1 < one.count) schedule.step()
    }
    const { lr, [dtype]: theirs, float64: exact } = tensorsOf(file, name, 'out')
    expect(relativeError(rates, numbers(lr as vt.Tensor))).toBeLessThan(1e-12)
    expectAsAccurate(param.detach(), theirs as vt.Tensor, exact as vt.Tensor, `${name} in ${dtype}`)
  })
})

describe('losses over 50 steps against PyTorch', async () => {
  interface Case {
    name: string
    start: string
    rate: number
  }
  const file = await fixture<Case>('train/precision-losses')
  const given = tensorsOf(file, 'given', 'in')
  const cases = file.cases
    .slice(1)
    .flatMap((one) => DTYPES.map((dtype) => [one.name, dtype, one] as const))
    .filter(([name, dtype]) => `${name}/out/${dtype}.loss` in file.tensors)
  const { functional: F } = vt
  type Given = Record<string, vt.Tensor>
  const LOSSES: Record<string, (x: vt.Tensor, g: Given) => vt.Tensor> = {
    crossEntropy: (x, g) => F.crossEntropy(x, g.classes!),
    'crossEntropy weighted and smoothed': (x, g) =>
      F.crossEntropy(x, g.classes!, { weight: g.classWeight!, labelSmoothing: 0.1 }),
    'crossEntropy of probabilities': (x, g) => F.crossEntropy(x, g.spread!),
    nllLoss: (x, g) => F.nllLoss(x, g.classes!),
    'nllLoss weighted': (x, g) => F.nllLoss(x, g.classes!, { weight: g.classWeight! }),
    mseLoss: (x, g) => F.mseLoss(x, g.other!),
    l1Loss: (x, g) => F.l1Loss(x, g.other!),
    smoothL1Loss: (x, g) => F.smoothL1Loss(x, g.other!, { beta: 0.5 }),
    huberLoss: (x, g) => F.huberLoss(x, g.other!, { delta: 0.75 }),
    binaryCrossEntropy: (x, g) => F.binaryCrossEntropy(x, g.spread!),
    binaryCrossEntropyWithLogits: (x, g) => F.binaryCrossEntropyWithLogits(x, g.binary!, { posWeight: g.classWeight! }),
    multilabelSoftMarginLoss: (x, g) => F.multilabelSoftMarginLoss(x, g.binary!, { weight: g.classWeight! }),
    klDiv: (x, g) => F.klDiv(x, g.spread!),
    'klDiv batchmean': (x, g) => F.klDiv(x, g.spread!, { reduction: 'batchmean' }),
    'klDiv of logarithms': (x, g) => F.klDiv(x, g.other!, { logTarget: true }),
    cosineEmbeddingLoss: (x, g) => F.cosineEmbeddingLoss(x, g.other!, g.signs!, { margin: -0.5 }),
    tripletMarginLoss: (x, g) => F.tripletMarginLoss(x, g.other!, g.third!),
    'tripletMarginLoss swapped': (x, g) => F.tripletMarginLoss(x, g.other!, g.third!, { margin: 2, p: 1, swap: true }),
    linearCrossEntropy: (x, g) => F.linearCrossEntropy(x, g.head!, g.tokens!),
    ctcLoss: (x, g) => F.ctcLoss(F.logSoftmax(x, -1), g.labels!, [36, 31], [7, 5]),
  }

  it('has every loss', () => {
    // Composed of plain operators; the operator database compares their values and gradients.
    const composed = [
      ...['gaussianNllLoss', 'hingeEmbeddingLoss', 'marginRankingLoss', 'multiMarginLoss', 'multilabelMarginLoss'],
      ...['poissonNllLoss', 'softMarginLoss', 'tripletMarginWithDistanceLoss'],
    ]
    const losses = Object.keys(F).filter((name) => /Loss$|CrossEntropy|^klDiv$/.test(name))
    const names = losses.filter((name) => !composed.includes(name))
    const covered = new Set(Object.keys(LOSSES).map((name) => name.split(' ')[0] as string))
    // The same operators in another module, or on the executor.
    for (const name of names) expect(covered.has(name.replace(/Async$/, '')), name).toBe(true)
  })

  it.each(cases)('%s in %s', async (name, dtype, { start, rate }) => {
    const own = Object.fromEntries(
      Object.entries(given).map(([key, value]) => [key, value.dtype === 'float32' ? typed(value, dtype) : value]),
    )
    const x = new vt.Parameter((own[start] as vt.Tensor).clone())
    using optimizer = new vt.SGD([x], { lr: rate })
    const losses: vt.Tensor[] = []
    for (let step = 0; step < STEPS; step++) {
      const loss = await vt.scope(async () => {
        optimizer.zeroGrad()
        const value = (LOSSES[name] as (typeof LOSSES)[string])(x, own)
        await value.backward()
        await optimizer.step()
        return value.detach().to({ dtype })
      })
      losses.push(loss)
    }
    const out = tensorsOf(file, name, 'out')
    const compare = (ours: vt.Tensor, what: string) =>
      expectAsAccurate(
        ours,
        out[`${dtype}.${what}`] as vt.Tensor,
        out[`float64.${what}`] as vt.Tensor,
        `${what} of ${name} in ${dtype}`,
      )
    compare(vt.stack(losses), 'loss')
    compare(x.detach().reshape([-1]), 'input')
  })
})
