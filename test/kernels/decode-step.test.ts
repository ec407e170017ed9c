import { describe, expect, it, test } from 'vitest'
import {
  cat,
  empty,
  functional,
  manualSeed,
  noGrad,
  ops,
  randn,
  scope,
  type Tensor,
  tensor,
  VoxtorchError,
} from '../../lib/index.js'
import { op } from '../../lib/native/call.js'
import { expectAsExact, expectClose } from '../helpers.js'

// What a token of a decoder is made of, on the CPU: the twins of the CUDA kernels, against plain formulas in float64.

type Maybe = Tensor | null
const joined = op('voxtorch::few_rows_joined') as unknown as (
  input: Tensor,
  weights: Tensor[],
  scales: Maybe[],
  outs: number[],
  blocks: number[],
  biases: Maybe[],
  loraA: Maybe[],
  loraB: Maybe[],
  loraScaling: number[],
  activation?: string,
) => Tensor
const rotaryAppend = op('voxtorch::rotary_append_') as unknown as (
  qkv: Tensor,
  cos: Tensor,
  sin: Tensor,
  keys: Tensor,
  values: Tensor,
  position: Tensor,
  heads: number,
) => Tensor
const decodeAttention = op('voxtorch::decode_attention') as unknown as (
  query: Tensor,
  keys: Tensor,
  values: Tensor,
  position: Tensor,
  mask?: Maybe,
  window?: number,
  scale?: number | null,
) => Tensor
const nf4 = op('voxtorch::quantize_nf4') as unknown as (input: Tensor) => { codes: Tensor; absmax: Tensor }
const int8 = op('voxtorch::quantize_int8') as unknown as (weight: Tensor) => { codes: Tensor; absmax: Tensor }
const fromNf4 = op('voxtorch::dequantize_nf4') as unknown as (codes: Tensor, absmax: Tensor, shape: number[]) => Tensor
const fromInt8 = op('voxtorch::dequantize_int8') as unknown as (codes: Tensor, absmax: Tensor) => Tensor

const at = (position: number) => tensor([position], { dtype: 'int64' })
const call = (step: () => void) => noGrad(() => scope(step))

describe('few_rows_joined', () => {
  const kinds = {
    values: (weight: Tensor) => ({ weight, scale: null, block: 0, exact: weight.double() }),
    int8: (weight: Tensor) => {
      const { codes, absmax } = int8(weight)
      return { weight: codes, scale: absmax, block: 0, exact: fromInt8(codes, absmax).double() }
    },
    nf4: (weight: Tensor) => {
      const { codes, absmax } = nf4(weight)
      return { weight: codes, scale: absmax, block: 64, exact: fromNf4(codes, absmax, weight.shape).double() }
    },
  }

  it.each([
    ['values', 1, 'float32'],
    ['values', 8, 'bfloat16'],
    ['int8', 3, 'float32'],
    ['nf4', 2, 'float32'],
    ['nf4', 33, 'float32'],
  ] as const)('multiplies with three weights as %s, %i rows of %s, with biases and adapters', (kind, rows, dtype) => {
    manualSeed(1)
    call(() => {
      const outs = [70, 33, 33]
      const input = randn([rows, 192]).to({ dtype })
      const weights = outs.map((out) => kinds[kind](randn([out, 192]).to({ dtype })))
      const biases = [randn([70]).to({ dtype }), null, randn([33]).to({ dtype })]
      const loraA = [randn([4, 192]).to({ dtype }), null, randn([7, 192]).to({ dtype })]
      const loraB = [randn([70, 4]).to({ dtype }), null, randn([33, 7]).to({ dtype })]
      const part = (i: number, as: (x: Tensor) => Tensor) => {
        const x = as(input)
        let result = ops.linear(x, as(weights[i]!.exact), biases[i] ? as(biases[i]) : null)
        if (loraA[i]) result = result.add(ops.linear(ops.linear(x, as(loraA[i])), as(loraB[i]!)).mul(0.5))
        return result
      }
      const whole = (as: (x: Tensor) => Tensor) => cat([part(0, as), part(1, as), part(2, as)], -1)
      const found = joined(
        input,
        weights.map((one) => one.weight),
        weights.map((one) => one.scale),
        outs,
        weights.map((one) => one.block),
        biases,
        loraA,
        loraB,
        [0.5, 1, 0.5],
      )
      expectAsExact(
        found,
        whole((x) => x.to({ dtype })),
        whole((x) => x.double()),
        192,
        kind,
      )
    })
  })

  it('computes what follows one projection, or a gate and what it multiplies', () => {
    manualSeed(2)
    call(() => {
      const input = randn([2, 1, 40])
      const weights = [randn([24, 40]), randn([24, 40])]
      const of = (given: Tensor[], activation?: string) =>
        joined(
          input,
          given,
          [],
          given.map(() => 24),
          [],
          [],
          [],
          [],
          [],
          activation,
        )
      const [gate, up] = weights.map((weight) => ops.linear(input, weight)) as [Tensor, Tensor]
      const functions = {
        silu: functional.silu(gate),
        gelu: functional.gelu(gate),
        gelu_pytorch_tanh: functional.gelu(gate, { approximate: 'tanh' }),
        relu: functional.relu(gate),
        quick_gelu: gate.mul(gate.mul(1.702).sigmoid()),
        tanh: gate.tanh(),
      }
      for (const [name, expected] of Object.entries(functions)) {
        expectClose(of([weights[0]!], name), expected, 1e-5, name)
        expectClose(of(weights, `${name}_mul`), expected.mul(up), 1e-5, `${name}_mul`)
      }
      expectClose(of(weights, 'none_mul'), gate.mul(up), 1e-5, 'none_mul')
    })
  })

  test('arguments that do not fit are refused by name', () => {
    const x = randn([2, 8])
    const w = randn([4, 8])
    const given = (change: Partial<Record<number, unknown>>) => () => {
      const values: unknown[] = [x, [w], [], [4], [], [], [], [], [], 'none']
      for (const [i, value] of Object.entries(change)) values[Number(i)] = value
      return (joined as unknown as (...all: unknown[]) => Tensor)(...values)
    }
    const refused: [Partial<Record<number, unknown>>, RegExp][] = [
      [{ 0: randn([9, 8]) }, /take 8 rows at most, got 9/],
      [{ 0: randn([2, 7]) }, /weights\[0\] must have shape \[4, 7\]/],
      [{ 1: [], 3: [] }, /one to three projections, got 0/],
      [{ 3: [5] }, /weights\[0\] must have shape \[5, 8\]/],
      [{ 3: [] }, /1 weights and 0 outs/],
      [{ 1: [w.to({ dtype: 'int8' })] }, /need scales\[0\], float32 of shape \[4\]/],
      [{ 1: [w.to({ dtype: 'uint8' })] }, /blocks\[0\] must be an even number/],
      [{ 2: [randn([4])] }, /scales\[0\] and blocks\[0\] are for codes/],
      [{ 5: [randn([5])] }, /biases\[0\] must have shape \[4\]/],
      [{ 6: [randn([2, 8])] }, /one of lora_a and lora_b/],
      [{ 6: [randn([2, 8])], 7: [randn([4, 3])] }, /lora_b\[0\] must have shape \[4, 2\]/],
      [{ 9: 'silu_mul' }, /of two projections/],
      [{ 9: 'softplus' }, /no activation 'softplus'/],
      [{ 1: [w, w], 3: [4, 4], 9: 'silu' }, /of one projection, got 2/],
      [{ 1: [w, randn([3, 8])], 3: [4, 3], 9: 'silu_mul' }, /as many rows, got 4 and 3/],
    ]
    for (const [change, message] of refused) {
      expect(given(change)).toThrow(message)
      expect(given(change)).toThrow(VoxtorchError)
    }
  })
})

describe('rotary_append_', () => {
  it.each([
    ['float32', 6],
    ['bfloat16', 6],
    ['float32', 4],
    ['bfloat16', 2],
  ] as const)('rotates query and key by halves and writes the cache, %s, %d dimensions of 6', (dtype, rotated) => {
    manualSeed(3)
    call(() => {
      const [rows, heads, groups, dim, capacity] = [3, 4, 2, 6, 5]
      const qkv = randn([rows, (heads + 2 * groups) * dim]).to({ dtype })
      const half = rotated / 2
      const angle = randn([rows, 1, 1, half])
      const cos = angle.cos().to({ dtype })
      const sin = angle.sin().to({ dtype })
      // A cache whose places are not where a contiguous one has them.
      const keys = randn([rows, capacity, groups, dim]).to({ dtype }).transpose(1, 2)
      const values = randn([rows, groups, capacity, dim]).to({ dtype })
      const before = [keys.clone(), values.clone()] as const
      const query = rotaryAppend(qkv, cos, sin, keys, values, at(2), heads)
      const parts = qkv.double().view([rows, -1, dim])
      const turn = (x: Tensor) => {
        const [first, second] = [x.narrow(-1, 0, half), x.narrow(-1, half, half)]
        const [c, s] = [cos.double().view([rows, 1, -1]), sin.double().view([rows, 1, -1])]
        const rest = x.narrow(-1, rotated, dim - rotated)
        return cat([first.mul(c).sub(second.mul(s)), second.mul(c).add(first.mul(s)), rest], -1)
      }
      const tolerance = dtype === 'float32' ? 1e-6 : 1 / 64
      expectClose(query.double(), turn(parts.narrow(1, 0, heads)), tolerance, 'query')
      expectClose(keys.select(2, 2).double(), turn(parts.narrow(1, heads, groups)), tolerance, 'key')
      expect(
        values
          .select(2, 2)
          .double()
          .equal(parts.narrow(1, heads + groups, groups)),
      ).toBe(true)
      for (const other of [0, 1, 3, 4]) {
        expect(keys.select(2, other).equal(before[0].select(2, other))).toBe(true)
        expect(values.select(2, other).equal(before[1].select(2, other))).toBe(true)
      }
    })
  })

  test('arguments that do not fit are refused by name', () => {
    const cache = () => randn([2, 1, 3, 4])
    const angle = randn([1, 2])
    const of = (position: Tensor, width = 16, heads = 2, table = angle) =>
      rotaryAppend(randn([2, width]), table, table, cache(), cache(), position, heads)
    expect(of(at(0)).shape).toEqual([2, 2, 4])
    expect(() => of(at(0), 12)).toThrow(/qkv must have shape \[2, \(2 \+ 2 \* 1\) \* 4\]/)
    expect(() => of(at(0), 16, 2, randn([3, 2]))).toThrow(/cos must have shape/)
    expect(() => of(tensor([0, 1], { dtype: 'int64' }))).toThrow(/position must be one int64 number/)
  })

  test('positions that the cache does not have are refused', () => {
    const of = (position: Tensor) =>
      rotaryAppend(randn([2, 16]), randn([1, 2]), randn([1, 2]), randn([2, 1, 3, 4]), randn([2, 1, 3, 4]), position, 2)
    expect(() => of(at(3))).toThrow(/has 3 places, none for position 3/)
    expect(() => of(at(-1))).toThrow(/none for position -1/)
  })
})

describe('decode_attention', () => {
  it.each([
    { position: 0, window: 0, masked: false },
    { position: 6, window: 0, masked: true },
    { position: 8, window: 3, masked: false },
    { position: 5, window: 4, masked: true },
    { position: 5, window: 90, masked: false },
  ])('sees what it may, position $position, window $window, masked $masked', ({ position, window, masked }) => {
    manualSeed(4)
    call(() => {
      const [rows, heads, groups, capacity, dim] = [2, 6, 2, 9, 5]
      const query = randn([rows, heads, dim])
      const [keys, values] = [0, 1].map(() => randn([rows, groups, capacity, dim])) as [Tensor, Tensor]
      const sees = (row: number, place: number) =>
        place <= position &&
        (window === 0 || place > position - window) &&
        (place === position || !masked || (place + row) % 3 !== 0)
      const mask = masked
        ? tensor(
            Array.from({ length: rows }, (_, r) => Array.from({ length: position + 1 }, (_, p) => (p + r) % 3 !== 0)),
          )
        : null
      const expected = empty([rows, heads, dim], { dtype: 'float64' })
      for (let row = 0; row < rows; ++row) {
        const places = Array.from({ length: capacity }, (_, p) => p).filter((p) => sees(row, p))
        for (let head = 0; head < heads; ++head) {
          const group = Math.floor(head / (heads / groups))
          const of = (from: Tensor) => from.double().select(0, row).select(0, group)
          const [k, v] = [keys, values].map((from) => cat(places.map((p) => of(from).narrow(0, p, 1)))) as [
            Tensor,
            Tensor,
          ]
          const scores = k.matmul(query.double().select(0, row).select(0, head)).div(Math.sqrt(dim))
          expected.select(0, row).select(0, head).copy_(scores.softmax(0).matmul(v))
        }
        for (let place = 0; place < capacity; ++place) {
          if (sees(row, place)) continue
          keys.select(0, row).select(1, place).fill_(Number.NaN)
          values.select(0, row).select(1, place).fill_(Number.POSITIVE_INFINITY)
        }
      }
      const found = decodeAttention(query, keys, values, at(position), mask, window)
      expectClose(found, expected.view([rows, heads * dim]).float(), 1e-5)
    })
  })

  test('arguments that do not fit are refused by name', () => {
    const cache = randn([2, 2, 3, 4])
    const of = (position: Tensor, mask: Maybe = null, query = randn([2, 4, 4]), window = 0) =>
      decodeAttention(query, cache, cache, position, mask, window)
    expect(of(at(2)).shape).toEqual([2, 16])
    expect(() => of(at(1), randn([2, 3]))).toThrow(/mask must be bool/)
    expect(() => of(at(1), null, randn([2, 3, 4]))).toThrow(/a multiple of 2, 4\]/)
    expect(() => of(at(1), null, randn([2, 4, 4]), -1)).toThrow(/window must be above 0/)
  })

  test('positions that the cache or the mask does not have are refused', () => {
    const cache = randn([2, 2, 3, 4])
    const of = (position: Tensor, mask: Maybe = null) =>
      decodeAttention(randn([2, 4, 4]), cache, cache, position, mask, 0)
    expect(() => of(at(3))).toThrow(/none for position 3/)
    expect(() => of(at(1), tensor([[true], [true]]))).toThrow(/a column for each of the 2 places/)
  })
})
