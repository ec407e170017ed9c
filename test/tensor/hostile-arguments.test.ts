import { describe, expect, it } from 'vitest'
import * as vt from '../../lib/index.js'

// Arguments that refuse to be read. Whatever they throw must come as an error of ours, with it as the cause.

const revoked = (target: object) => {
  const { proxy, revoke } = Proxy.revocable(target, {})
  revoke()
  return proxy
}
class Refusal extends Error {}
const refuse = () => {
  throw new Refusal('no')
}
const throwing = (target: object) =>
  new Proxy(target, {
    ...{ get: refuse, has: refuse, ownKeys: refuse, getPrototypeOf: refuse, getOwnPropertyDescriptor: refuse },
  })
let deep: unknown = []
for (let i = 0; i < 100_000; i++) deep = [deep]

const VALUES: Record<string, unknown> = {
  'a revoked proxy of an array': revoked([]),
  'a revoked proxy of an object': revoked({}),
  'a revoked proxy of a function': revoked(() => 1),
  'a throwing proxy of an array': throwing([1]),
  'a throwing proxy of an object': throwing({}),
  'a getter that throws': {
    get dtype() {
      return refuse()
    },
    get length() {
      return refuse()
    },
    get requiresGrad() {
      return refuse()
    },
  },
  'a proxy that throws another': new Proxy([], {
    get() {
      throw revoked({})
    },
  }),
  'an array that is 100,000 deep': deep,
  'an array of a billion holes': Object.assign([], { length: 1e9 }),
}
// biome-ignore lint/suspicious/noExplicitAny: the point is that types do not protect.
type Any = any

/** Calls with the value in each place; what comes is no matter, unless it is an error that is not ours. */
const CALLS: Record<string, (value: Any, x: vt.Tensor) => unknown> = {
  tensor: (value) => vt.tensor(value),
  'tensor in a list': (value) => vt.tensor([value]),
  'tensor options': (value) => vt.tensor([1], value),
  'tensor shape': (value) => vt.tensor(new Float32Array(1), { shape: value }),
  'tensor dtype': (value) => vt.tensor([1], { dtype: value }),
  zeros: (value) => vt.zeros(value),
  'zeros options': (value) => vt.zeros([1], value),
  full: (value) => vt.full([1], value),
  arange: (value) => vt.arange(value),
  eye: (value) => vt.eye(2, value),
  zerosLike: (value) => vt.zerosLike(value),
  cat: (value) => vt.cat(value),
  'cat in a list': (value, x) => vt.cat([x, value]),
  stack: (value) => vt.stack(value),
  unique: (value) => vt.unique(value),
  'unique options': (value, x) => vt.unique(x, value),
  unravelIndex: (value) => vt.unravelIndex(value, [2]),
  'unravelIndex shape': (value) => vt.unravelIndex(vt.tensor([1]), value),
  add: (value, x) => x.add(value),
  'add options': (value, x) => x.add(1, value),
  mul_: (value, x) => x.mul_(value),
  'ops.add': (value, x) => vt.ops.add(value, x),
  'ops.async.add': (value, x) => vt.ops.async.add(x, value),
  norm: (value, x) => x.norm(value),
  'norm options': (value, x) => x.norm('fro', value),
  nonzero: (value, x) => x.nonzero(value),
  tensordot: (value, x) => vt.ops.tensordot(x, x, value),
  cdist: (value, x) => vt.ops.cdist(value, x, 2, 'use_mm_for_euclid_dist' as Any),
  at: (value, x) => x.at(value),
  setAt: (value, x) => x.setAt(value, 1),
  'setAt value': (value, x) => x.setAt([0], value),
  to: (value, x) => x.to(value),
  'to options': (value, x) => x.to('float32', value),
  reshape: (value, x) => x.reshape(value),
  backward: (value) => vt.ones([1], { requiresGrad: true }).backward(value),
  grad: (value, x) => {
    x.grad = value
  },
  'autograd.grad': (value, x) => vt.autograd.grad(value, [x]),
  manualSeed: (value) => vt.manualSeed(value),
  isTensor: (value) => vt.isTensor(value),
  softmax: (value) => vt.functional.softmax(value, 0),
  crossEntropy: (value, x) => vt.functional.crossEntropy(x, x, value),
}

describe.each(Object.entries(CALLS))('%s', (_, call) => {
  it.each(Object.entries(VALUES))('of %s gives a result or an error of ours', async (_, value) => {
    const x = vt.ones([1])
    let thrown: unknown
    try {
      await call(value, x)
    } catch (error) {
      thrown = error
    }
    if (thrown !== undefined) expect(thrown).toBeInstanceOf(vt.VoxtorchError)
  })
})

describe('errors made of arguments that refuse to be read', () => {
  const classes = Object.values(vt).filter(
    (value): value is typeof vt.VoxtorchError =>
      typeof value === 'function' && (value === vt.VoxtorchError || value.prototype instanceof vt.VoxtorchError),
  )

  it('covers every class', () => expect(classes.length).toBeGreaterThan(15))

  it.each(classes.map((one) => [one.name, one] as const))('%s', (name, Class) => {
    for (const value of Object.values(VALUES) as Any[]) {
      for (const error of [
        new Class(value),
        new Class('message', value),
        new Class('message', { value, cause: value }),
      ]) {
        expect(error).toBeInstanceOf(vt.VoxtorchError)
        expect(error.name).toBe(name)
        expect(typeof error.message).toBe('string')
        expect(typeof error.stack).toBe('string')
      }
    }
  })
})

describe('mul_ by a number in half precision', () => {
  // Python's x.mul_(0.9) of torch 2.13 multiplies by 0.9 and rounds once; ATen's mul_.Scalar rounds 0.9 first.
  it.each([
    ['bfloat16', [0.8984375, 2.703125, 90, 6.75]],
    ['float16', [0.89990234375, 2.69921875, 90, 6.75]],
  ] as const)('%s rounds once', (dtype, expected) => {
    const x = () => vt.tensor([1, 3, 100, 7.5], { dtype })
    expect(x().mul_(0.9).toArray()).toEqual(expected)
    expect(x().multiply_(0.9).toArray()).toEqual(expected)
    expect(vt.ops.mul_(x(), 0.9).toArray()).toEqual(expected)
  })
})
