import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  functional,
  getNumThreads,
  manualSeed,
  noGrad,
  ops,
  randn,
  setNumThreads,
  type Tensor,
  zeros,
} from '../../lib/index.js'
import { op } from '../../lib/native/call.js'
import { expectAsExact, here, relativeError } from '../helpers.js'

// float32 products of this library (native/core/kernels/float_product), which processors of AMD use by default.

const ownProducts = op('voxtorch::own_products')
const addmm = op('aten::addmm')
const mm = op('aten::mm')
const bmm = op('aten::bmm')
const before = { own: ownProducts() as boolean, threads: getNumThreads() }
const values = (one: Tensor) => one.flatten().toArray() as number[]

describe.skipIf(here() === 'cuda' || ownProducts(true) === false)('a float32 product', () => {
  beforeAll(() => void ownProducts(true))
  afterAll(() => {
    ownProducts(before.own)
    setNumThreads(before.threads)
  })

  // Around the sizes of panels, blocks and the least that is computed here, and where depth or columns take several blocks.
  const sizes: [number, number, number][] = [
    [96, 64, 96],
    [97, 33, 121],
    [128, 256, 144],
    [131, 257, 145],
    [259, 513, 97],
    [100, 1030, 4104],
    [1025, 19, 98],
  ]
  const layouts: Record<string, (rows: number, columns: number) => Tensor> = {
    contiguous: (rows, columns) => randn([rows, columns]),
    transposed: (rows, columns) => randn([columns, rows]).t(),
    'with room between rows': (rows, columns) => randn([rows, columns + 3]).narrow(1, 2, columns),
    'with room between all': (rows, columns) => randn([rows, columns, 2]).select(2, 1),
    'of one row': (rows, columns) => randn([1, columns]).expand([rows, columns]),
  }
  const names = Object.keys(layouts)
  const pairs = names.map((name, i): [string, string] => [name, names[(i * 2 + 1) % names.length] as string])

  it.each(pairs)('is that of float64 within rounding: %s times %s', (left, right) => {
    for (const [m, k, n] of sizes) {
      const [a, b] = [layouts[left]?.(m, k), layouts[right]?.(k, n)] as [Tensor, Tensor]
      const exact = a.double().matmul(b.double())
      const bound = relativeError(values(ownly(false, () => a.matmul(b))), values(exact))
      expect(relativeError(values(a.matmul(b)), values(exact))).toBeLessThan(4 * bound + 1e-6)
    }
  })

  it('adds a bias of every shape that broadcasts, and writes into a result', () => {
    const [m, k, n] = [131, 257, 145]
    const [a, b] = [randn([m, k]), randn([k, n])]
    const product = a.double().matmul(b.double())
    const isClose = (found: Tensor, expected: Tensor) =>
      expect(relativeError(values(found), values(expected))).toBeLessThan(1e-5)
    for (const shape of [[m, n], [1, n], [m, 1], [n], [1], []]) {
      const bias = randn(shape)
      isClose(ops.addmm(bias, a, b), product.add(bias.double()))
      const out = zeros([m, n])
      expect(addmm(bias, a, b, { out })).toBe(out)
      isClose(out, product.add(bias.double()))
      isClose(ops.addmm(bias, a, b, { beta: 0.5, alpha: 2 }), product.mul(2).add(bias.double().mul(0.5)))
    }
    const sum = randn([m, n])
    const expected = product.add(sum.double())
    addmm(sum, a, b, { out: sum })
    isClose(sum, expected)
    const inPlace = randn([m, n])
    const expectedInPlace = product.add(inPlace.double())
    isClose(inPlace.addmm_(a, b), expectedInPlace)
    const out = zeros([m, n])
    expect(mm(a, b, { out })).toBe(out)
    isClose(out, product)
    // A result that cannot be written in rows.
    const turned = zeros([n, m]).t()
    isClose(mm(a, b, { out: turned }), product)
  })

  it.each([1, 2, 5])('of a batch of %i is that of each', (batch) => {
    const [m, k, n] = [131, 65, 145]
    const [a, b, c] = [randn([batch, m, k]), randn([batch, n, k]).transpose(1, 2), randn([batch, 1, n])]
    const exact = a.double().matmul(b.double())
    const isClose = (found: Tensor, expected: Tensor) =>
      expect(relativeError(values(found), values(expected))).toBeLessThan(1e-5)
    isClose(ops.bmm(a, b), exact)
    isClose(bmm(a, b, { out: zeros([batch, m, n]) }), exact)
    isClose(ops.baddbmm(c, a, b), exact.add(c.double()))
    for (let i = 0; i < batch; i += 1) {
      expect(values(ops.bmm(a, b).select(0, i))).toEqual(values(a.select(0, i).matmul(b.select(0, i))))
    }
  })

  it('has the same bits on 1, 2, 3, 4 and 8 threads', () => {
    for (const [m, k, n] of sizes) {
      manualSeed(1)
      const [a, b] = [randn([m, k]), randn([k, n])]
      const found = [1, 2, 3, 4, 8].map((threads) => {
        setNumThreads(threads)
        return values(a.matmul(b))
      })
      for (const other of found.slice(1)) expect(other).toEqual(found[0])
    }
    setNumThreads(before.threads)
  })

  it('carries NaN and infinity to their rows and columns only', () => {
    const [a, b] = [randn([100, 100]), randn([100, 100])]
    noGrad(() => a.at(3).at(5).fill_(Number.NaN))
    noGrad(() => b.at(7).at(9).fill_(Number.POSITIVE_INFINITY))
    const product = a.matmul(b)
    expect(product.isnan().sum([1]).toArray()).toEqual(Array.from({ length: 100 }, (_, i) => (i === 3 ? 100 : 0)))
    const infinite = product.isinf().sum([0]).toArray() as number[]
    expect(infinite.map((count, i) => (i === 9 ? count >= 98 : count === 0)).every(Boolean)).toBe(true)
  })

  // Rows and outputs on both sides of panels, of the last half panel, and of where thin products begin and end.
  const thin: [number, number, number][] = [
    ...[5, 8, 9, 16, 17, 33, 95, 100, 191, 192, 193].map((rows): [number, number, number] => [rows, 1630, 131]),
    ...([
      [24, 64, 1030],
      [40, 2050, 49],
      [17, 4096, 96],
    ] as [number, number, number][]),
  ]

  it.each(['float32', 'bfloat16', 'float16'] as const)(
    'of few rows and a weight is that of float64 within rounding: %s',
    (dtype) => {
      for (const [rows, width, outputs] of thin) {
        // Apart from each other in memory, too.
        const weight = randn([outputs, width + 5])
          .to(dtype)
          .narrow(1, 3, width)
        const [x, bias] = [randn([rows, width]).to(dtype), randn([outputs]).to(dtype)]
        const exact = x.double().matmul(weight.double().t()).add(bias.double())
        const [ours, theirs] = [true, false].map((own) =>
          ownly(own, () => functional.linear(x.clone().requiresGrad_(), weight, bias)),
        )
        expectAsExact(ours as Tensor, theirs as Tensor, exact, width, `${rows} × ${width} × ${outputs}`)
      }
    },
  )

  it('of few rows has the same bits for a row on 1, 2, 3, 4 and 8 threads, whatever comes with it', () => {
    const [all, weight] = [randn([192, 1030]), randn([131, 1030])]
    const rowsOf = (rows: number, threads: number) => {
      setNumThreads(threads)
      return functional.linear(all.narrow(0, 0, rows).requiresGrad_(), weight).detach()
    }
    const whole = rowsOf(192, 1)
    for (const threads of [1, 2, 3, 4, 8]) {
      for (const rows of [9, 17, 40, 192]) {
        expect(rowsOf(rows, threads).equal(whole.narrow(0, 0, rows)), `${rows} rows, ${threads} threads`).toBe(true)
      }
    }
    setNumThreads(before.threads)
  })

  it('has the gradients of a product, and refuses what does not fit', async () => {
    const [a, b] = [randn([100, 200]).requiresGrad_(), randn([200, 150]).requiresGrad_()]
    const g = randn([100, 150])
    await a.matmul(b).backward({ gradient: g })
    const exact = [g.double().matmul(b.detach().double().t()), a.detach().double().t().matmul(g.double())]
    for (const [i, one] of [a, b].entries()) {
      expect(relativeError(values(one.grad as Tensor), values(exact[i] as Tensor))).toBeLessThan(1e-5)
    }
    expect(() => randn([100, 200]).matmul(randn([201, 150]))).toThrow(/100x200 and 201x150/)
    expect(() => ops.addmm(randn([7]), randn([100, 200]), randn([200, 150]))).toThrow(/expand|size|shape/i)
  })
})

function ownly<T>(own: boolean, compute: () => T): T {
  ownProducts(own)
  try {
    return compute()
  } finally {
    ownProducts(true)
  }
}
