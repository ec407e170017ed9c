import { describe, expect, it } from 'vitest'
import { gradcheck, manualSeed, noGrad, ops, randn, type Tensor, tensor } from '../../lib/index.js'
import { op } from '../../lib/native/call.js'
import { expectClose } from '../helpers.js'

const loss = op('voxtorch::transducer_loss')

interface Sizes {
  batch: number
  frames: number
  labels: number
  vocabulary: number
  durations?: number[]
  bias?: boolean
}
const DIM = 4

function inputs({ batch, frames, labels, vocabulary, durations = [], bias = true }: Sizes) {
  manualSeed(7)
  const outputs = vocabulary + durations.length
  const float64 = { dtype: 'float64' } as const
  return {
    encoder: randn([batch, frames, DIM], float64),
    predictor: randn([batch, labels + 1, DIM], float64),
    weight: randn([outputs, DIM], float64),
    bias: bias ? randn([outputs], float64) : null,
    targets: tensor(
      Array.from({ length: batch }, (_, b) =>
        Array.from({ length: labels }, (_, u) => BigInt((b + 2 * u) % (vocabulary - 1))),
      ),
      { dtype: 'int64' },
    ),
  }
}

/** Sum the probabilities of all alignments of a row, one by one. */
function bruteForce(
  logits: Tensor,
  targets: readonly number[],
  {
    frames,
    vocabulary,
    durations = [],
    sigma = 0,
  }: { frames: number; vocabulary: number; durations?: number[]; sigma?: number },
): number {
  const blank = vocabulary - 1
  const tokens = logits.narrow(2, 0, vocabulary).logSoftmax(-1).sub(sigma).toArray() as number[][][]
  const spans =
    durations.length > 0
      ? (logits.narrow(2, vocabulary, durations.length).logSoftmax(-1).toArray() as number[][][])
      : undefined
  let total = 0
  const walk = (t: number, u: number, logProbability: number): void => {
    if (t === frames) {
      if (u === targets.length) total += Math.exp(logProbability)
      return
    }
    if (t > frames) return
    const steps = (kind: 'blank' | 'label'): [number, number][] =>
      spans === undefined
        ? [[kind === 'blank' ? 1 : 0, 0]]
        : durations.map((duration, i) => [duration, spans[t]![u]![i] as number] as [number, number])
    for (const [duration, score] of steps('blank')) {
      if (duration > 0) walk(t + duration, u, logProbability + tokens[t]![u]![blank]! + score)
    }
    if (u === targets.length) return
    for (const [duration, score] of steps('label')) {
      // As in the reference, an alignment ends with a blank.
      if (t + duration < frames) walk(t + duration, u + 1, logProbability + tokens[t]![u]![targets[u]!]! + score)
    }
  }
  walk(0, 0, 0)
  return -Math.log(total)
}

const CASES: (Sizes & { name: string; sigma?: number; activation?: string })[] = [
  { name: 'RNN-T', batch: 2, frames: 4, labels: 3, vocabulary: 5 },
  { name: 'RNN-T, one frame', batch: 1, frames: 1, labels: 2, vocabulary: 3 },
  {
    name: 'RNN-T, no labels, no bias, tanh',
    batch: 1,
    frames: 3,
    labels: 0,
    vocabulary: 3,
    bias: false,
    activation: 'tanh',
  },
  { name: 'TDT', batch: 2, frames: 5, labels: 3, vocabulary: 4, durations: [0, 1, 2] },
  {
    name: 'TDT with sigma, sigmoid',
    batch: 1,
    frames: 4,
    labels: 2,
    vocabulary: 4,
    durations: [0, 1, 2, 3, 4],
    sigma: 0.05,
    activation: 'sigmoid',
  },
  { name: 'TDT without 0 and 1', batch: 1, frames: 7, labels: 2, vocabulary: 4, durations: [2, 3] },
]

describe('transducer_loss', () => {
  it.each(CASES)('$name: the sum over all alignments', (sizes) => {
    const { batch, frames, labels, vocabulary, durations = [], sigma = 0, activation = 'relu' } = sizes
    const { encoder, predictor, weight, bias, targets } = inputs(sizes)
    // The last row is shorter.
    const lengths = Array.from({ length: batch }, (_, b) => (b > 0 ? [frames - 1, labels - 1] : [frames, labels]))
    const ofFrames = tensor(lengths.map(([t]) => BigInt(t as number)))
    const ofLabels = tensor(lengths.map(([, u]) => BigInt(u as number)))
    const options = { blank: vocabulary - 1, durations, sigma, activation }
    const joined = ops[activation as 'relu'](encoder.unsqueeze(2).add(predictor.unsqueeze(1))).matmul(weight.t())
    const logits = bias ? joined.add(bias) : joined
    const expected = lengths.map(([t, u], b) =>
      bruteForce(
        logits
          .select(0, b)
          .narrow(0, 0, t as number)
          .narrow(1, 0, (u as number) + 1),
        (targets.toArray() as bigint[][])[b]!.slice(0, u).map(Number),
        { frames: t as number, vocabulary, durations, sigma },
      ),
    )
    for (const chunk of [0, 1, 5]) {
      const found = loss(encoder, predictor, weight, bias, targets, ofFrames, ofLabels, { ...options, chunk }) as Tensor
      expect(found.dtype).toBe('float64')
      expectClose(found, tensor(expected, { dtype: 'float64' }), 1e-12, `chunk ${chunk}`)
    }
    const half = [encoder, predictor, weight].map((one) => one.float()) as [Tensor, Tensor, Tensor]
    const single = loss(...half, bias?.float() ?? null, targets, ofFrames, ofLabels, options) as Tensor
    expect(single.dtype).toBe('float32')
    expectClose(single, tensor(expected), 1e-5, 'float32')
  })

  it.each(CASES)('$name: gradients', async (sizes) => {
    const { batch, frames, labels, vocabulary, durations = [], sigma = 0, activation = 'relu' } = sizes
    const { encoder, predictor, weight, bias, targets } = inputs(sizes)
    const ofFrames = tensor(Array.from({ length: batch }, (_, b) => BigInt(b > 0 ? frames - 1 : frames)))
    const ofLabels = tensor(Array.from({ length: batch }, () => BigInt(labels)))
    const options = { blank: vocabulary - 1, durations, sigma, activation, chunk: 5 }
    const leaves = [encoder, predictor, weight, ...(bias ? [bias] : [])]
    for (const leaf of leaves) leaf.requiresGrad = true
    const run = (e: Tensor, p: Tensor, w: Tensor, b?: Tensor) =>
      loss(e, p, w, b ?? null, targets, ofFrames, ofLabels, options) as Tensor
    expect(await gradcheck(run as never, leaves as never)).toBe(true)
  })

  it('is infinite without gradients where there is no alignment', async () => {
    const { encoder, predictor, weight, bias, targets } = inputs({
      batch: 1,
      frames: 3,
      labels: 1,
      vocabulary: 4,
      durations: [2, 4],
    })
    for (const leaf of [encoder, weight]) leaf.requiresGrad = true
    const one = tensor([1n])
    const found = loss(encoder, predictor, weight, bias, targets, tensor([3n]), one, {
      blank: 3,
      durations: [2, 4],
    }) as Tensor
    expect(found.toArray()).toEqual([Number.POSITIVE_INFINITY])
    await found.sum().backward()
    expect(encoder.grad?.abs().max().item()).toBe(0)
    expect(weight.grad?.abs().max().item()).toBe(0)
  })

  it('refuses what does not fit', () => {
    const { encoder, predictor, weight, bias, targets } = inputs({ batch: 2, frames: 3, labels: 2, vocabulary: 4 })
    const [three, two] = [tensor([3n, 3n]), tensor([2n, 2n])]
    const run = (changes: object = {}, frames = three, labels = two, ids = targets) =>
      noGrad(() => loss(encoder, predictor, weight, bias, ids, frames, labels, { blank: 3, ...changes }))
    expect(() => run({ blank: 4 })).toThrow(/blank must be one of 4 tokens, got 4/)
    expect(() => run({ blank: 2, durations: [0] })).toThrow(/durations must have one above 0/)
    expect(() => run({ blank: 1, durations: [-1, 1] })).toThrow(/durations must not be negative/)
    expect(() => run({ blank: 1, durations: [1, 2 ** 40] })).toThrow(/above 2\^30/)
    expect(() => run({ activation: 'gelu' })).toThrow(/activation must be 'relu'.*'gelu'/)
    expect(() => run({}, tensor([4n, 3n]))).toThrow(/encoder_lengths must be from 1 to 3, got 4/)
    expect(() => run({}, three, tensor([3n, 2n]))).toThrow(/target_lengths must be from 0 to 2, got 3/)
    expect(() =>
      run(
        {},
        three,
        two,
        tensor([
          [0n, 3n],
          [0n, 1n],
        ]),
      ),
    ).toThrow(/target 3 of row 0/)
    expect(() => run({}, three, two, tensor([[0n], [1n]]))).toThrow(/targets must be int64 \[2, 2\]/)
  })
})
