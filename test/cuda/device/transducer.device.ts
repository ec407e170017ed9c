import { describe, expect, it } from 'vitest'
import { Generator, ParakeetForRNNT, ParakeetForTDT, randn, type Tensor, tensor } from '../../../lib/index.js'
import { op } from '../../../lib/native/call.js'
import { expectClose } from '../../helpers.js'
import { counted } from './counts.js'

// The losses of transducers: values and gradients of the CPU's operator, launches that do not grow with the batch.

const loss = op('voxtorch::transducer_loss')
const host = { device: 'cpu' } as const
const BATCH = 3
const [FRAMES, LABELS, DIM, VOCABULARY] = [9, 4, 24, 31]

interface Case {
  name: string
  dtype: 'float32' | 'bfloat16' | 'float64'
  durations: number[]
  activation: string
  sigma?: number
  chunk?: number
  hasBias?: boolean
}
const CASES: Case[] = [
  { name: 'RNN-T', dtype: 'float32', durations: [], activation: 'relu' },
  {
    name: 'RNN-T in chunks, without bias',
    dtype: 'float32',
    durations: [],
    activation: 'tanh',
    chunk: 7,
    hasBias: false,
  },
  { name: 'TDT', dtype: 'float32', durations: [0, 1, 2, 3, 4], activation: 'relu', sigma: 0.05, chunk: 11 },
  { name: 'TDT in float64', dtype: 'float64', durations: [0, 1, 3], activation: 'sigmoid', chunk: 64 },
  { name: 'TDT in bfloat16', dtype: 'bfloat16', durations: [0, 1, 2], activation: 'relu' },
]
// The second clip has one frame, the third no targets.
const lengths = { frames: tensor([9n, 1n, 6n], host), labels: tensor([4n, 2n, 0n], host) }
const ids = Array.from({ length: BATCH }, (_, b) =>
  Array.from({ length: LABELS }, (_, u) => BigInt((3 * b + 7 * u) % 30)),
)

function inputs({ dtype, durations, hasBias = true }: Case) {
  const generator = new Generator(11)
  const drawn = (shape: number[]) =>
    randn(shape, { ...host, generator })
      .mul(0.5)
      .to(dtype)
  const leaves = [
    drawn([BATCH, FRAMES, DIM]),
    drawn([BATCH, LABELS + 1, DIM]),
    drawn([VOCABULARY + durations.length, DIM]),
  ]
  return hasBias ? [...leaves, drawn([VOCABULARY + durations.length])] : leaves
}

/** Compute the losses and gradients of leaves, with another weight for each row. */
async function compute(
  leaves: Tensor[],
  device: 'cpu' | 'cuda',
  { durations, activation, sigma = 0, chunk = 0 }: Case,
) {
  const own = leaves.map((leaf) => leaf.detach().to(device))
  for (const leaf of own) leaf.requiresGrad = true
  const [encoder, predictor, weight, bias = null] = own
  const sizes = [tensor(ids, host), lengths.frames, lengths.labels].map((one) => one.to(device))
  const options = { blank: VOCABULARY - 1, durations, activation, sigma, chunk }
  const losses = loss(encoder, predictor, weight, bias, ...sizes, options) as Tensor
  await losses
    .mul(tensor([1, 0.5, 2], { device }))
    .sum()
    .backward()
  return [losses, ...own.map(({ grad }) => grad as Tensor)].map((one) => one.detach().to('cpu'))
}

describe('transducer_loss on the device', () => {
  it.each(CASES)('$name: values and gradients', async (one) => {
    const leaves = inputs(one)
    const names = ['losses', 'encoder', 'predictor', 'weight', 'bias']
    const exact = await compute(
      leaves.map((leaf) => leaf.double()),
      'cpu',
      one,
    )
    const here = await compute(leaves, 'cpu', one)
    const there = await compute(leaves, 'cuda', one)
    for (const [i, found] of there.entries()) {
      expect(found.dtype).toBe(here[i]?.dtype)
      const reference = exact[i] as Tensor
      const error = (of: Tensor) => of.double().sub(reference).abs().max().item() / reference.abs().max().item()
      const rounding = { float32: 1e-6, bfloat16: 2 ** -8, float64: 1e-14 }[one.dtype]
      expect(error(found), names[i]).toBeLessThanOrEqual(2 * error(here[i] as Tensor) + rounding)
    }
  })

  it('waits for lengths and targets alone, and launches as much for a batch as for a row', async () => {
    const [one] = CASES as [Case]
    const prepared = (rows: number) => {
      const [encoder, predictor, ...head] = inputs(one) as [Tensor, Tensor, Tensor, Tensor]
      const leaves = [encoder.narrow(0, 0, rows), predictor.narrow(0, 0, rows), ...head].map((leaf) => leaf.to('cuda'))
      for (const leaf of leaves) leaf.requiresGrad = true
      const sizes = [tensor(ids, host), lengths.frames, lengths.labels].map((each) =>
        each.narrow(0, 0, rows).to('cuda'),
      )
      const run = async () => {
        for (const leaf of leaves) leaf.grad = null
        await (loss(...leaves, ...sizes, { blank: VOCABULARY - 1 }) as Tensor).sum().backward()
      }
      return run
    }
    const [whole, single] = [prepared(BATCH), prepared(1)]
    await whole()
    const { launches, waitsBy } = await counted(whole)
    // A copy of a row that is contiguous already is left out.
    expect(launches - (await counted(single)).launches).toBeLessThanOrEqual(1)
    expect(launches).toBeLessThanOrEqual(LAUNCHES)
    expect(waitsBy).toEqual({ synchronizeEvent: 1 })
  })

  it.each([
    { name: 'RNN-T', network: ParakeetForRNNT, durations: {} },
    { name: 'TDT', network: ParakeetForTDT, durations: { durations: [0, 1, 2] } },
  ])('trains $name as the CPU does', async ({ network, durations }) => {
    const config = {
      ...{ vocabSize: 17, blankTokenId: 16, padTokenId: 16, decoderHiddenSize: 12, numDecoderLayers: 1, ...durations },
      encoderConfig: {
        ...{ hiddenSize: 16, intermediateSize: 24, numHiddenLayers: 1, numAttentionHeads: 2, numMelBins: 16 },
        ...{ subsamplingConvChannels: 8, convKernelSize: 5 },
      },
    }
    const [there, here] = (['cuda', 'cpu'] as const).map((device) =>
      network.fromConfig(config, { device, seed: 3 }),
    ) as [ParakeetForTDT, ParakeetForTDT]
    here
      .eval()
      .loadStateDict(
        Object.fromEntries(Object.entries(there.eval().stateDict()).map(([name, one]) => [name, one.to('cpu')])),
      )
    const inputFeatures = randn([2, 50, 16], { ...host, generator: new Generator(2) })
    const labels = tensor(
      [
        [3n, 4n],
        [5n, -100n],
      ],
      host,
    )
    const own = await here.forward({ inputFeatures, labels })
    const out = await there.forward({ inputFeatures: inputFeatures.to('cuda'), labels: labels.to('cuda') })
    expectClose((out.loss as Tensor).to('cpu'), own.loss as Tensor, 1e-5)
    await (own.loss as Tensor).backward()
    await (out.loss as Tensor).backward()
    const wanted = new Map(here.namedParameters())
    for (const [name, { grad }] of there.namedParameters()) {
      const mine = wanted.get(name)?.grad
      if (grad && mine && !name.endsWith('k_proj.bias')) expectClose(grad.to('cpu'), mine, 1e-4, name)
    }
    for (const beams of [{}, { numBeams: 3 }]) {
      const wanted = await here.generate({ inputFeatures }, beams)
      const found = await there.generate({ inputFeatures: inputFeatures.to('cuda') }, beams)
      expect(found.map(({ tokens, starts }) => [tokens, starts])).toEqual(
        wanted.map(({ tokens, starts }) => [tokens, starts]),
      )
    }
  })
})

/** Limit with a tenth more than was counted. */
const LAUNCHES = 26
