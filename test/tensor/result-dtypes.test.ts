import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import * as vt from '../../lib/index.js'
import { fixturePath } from '../helpers.js'

// What test/reference/tensor_dtypes.py found of PyTorch, for functions that lib composes of operators.

const { functional: F, ops } = vt
type Tensor = vt.Tensor
const signs = () => vt.tensor([1, -1])
const FUNCTIONS: Record<string, (x: Tensor, y: Tensor) => Tensor | Tensor[]> = {
  softmin: (x) => F.softmin(x, -1),
  softsign: (x) => F.softsign(x),
  tanhshrink: (x) => F.tanhshrink(x),
  normalize: (x) => F.normalize(x),
  localResponseNorm: (x) => F.localResponseNorm(x.unsqueeze(1), 3),
  'norm fro': (x) => x.norm('fro'),
  'norm fro of dim': (x) => x.norm('fro', { dim: 0 } as never),
  'norm nuc': (x) => x.norm('nuc'),
  'nonzero asTuple': (x) => x.nonzero({ asTuple: true } as never) as unknown as Tensor[],
  unravelIndex: (x) => vt.unravelIndex(x, [2, 2]),
  unique: (x) => vt.unique(x),
  'unique of dim': (x) => vt.unique(x, { dim: 0 }),
  oneHot: (x) => F.oneHot(x, 2),
  layerNorm: (x) => F.layerNorm(x, [2]),
  rmsNorm: (x) => F.rmsNorm(x, [2]),
  'pad constant': (x) => F.pad(x, [1, 1]),
  'pad reflect': (x) => F.pad(x, [1, 1], { mode: 'reflect' }),
  'pad circular': (x) => F.pad(x, [1, 1], { mode: 'circular' }),
  fullLike: (x) => vt.fullLike(x, 1),
  embeddingBag: (x) => F.embeddingBag(vt.tensor([[0, 1]]), x, { mode: 'mean' }),
  'interpolate nearest': (x) => F.interpolate(x.unsqueeze(0), { scaleFactor: 2, mode: 'nearest' }),
  'interpolate linear': (x) => F.interpolate(x.unsqueeze(0), { scaleFactor: 2, mode: 'linear' }),
  mseLoss: (x, y) => F.mseLoss(x, y),
  l1Loss: (x, y) => F.l1Loss(x, y),
  smoothL1Loss: (x, y) => F.smoothL1Loss(x, y),
  'smoothL1Loss of beta 0': (x, y) => F.smoothL1Loss(x, y, { beta: 0 }),
  huberLoss: (x, y) => F.huberLoss(x, y),
  binaryCrossEntropy: (x, y) => F.binaryCrossEntropy(x, y),
  binaryCrossEntropyWithLogits: (x, y) => F.binaryCrossEntropyWithLogits(x, y),
  multilabelSoftMarginLoss: (x, y) => F.multilabelSoftMarginLoss(x, y),
  klDiv: (x, y) => F.klDiv(x, y),
  'klDiv batchmean': (x, y) => F.klDiv(x, y, { reduction: 'batchmean' }),
  'klDiv of logarithms': (x, y) => F.klDiv(x, y, { reduction: 'batchmean', logTarget: true }),
  cosineEmbeddingLoss: (x, y) => F.cosineEmbeddingLoss(x, y, signs()),
  tripletMarginLoss: (x, y) => F.tripletMarginLoss(x, y, x),
  cosineSimilarity: (x, y) => F.cosineSimilarity(x, y),
  cdist: (x, y) => ops.cdist(x, y, 2, 'donot_use_mm_for_euclid_dist' as never),
  tensordot: (x, y) => ops.tensordot(x, y, 1 as never),
  'tensordot of none': (x, y) => ops.tensordot(x, y, 0 as never),
  where: (x, y) => ops.where(vt.tensor([true, false]), x, y),
}

describe('result dtypes of composed functions against PyTorch', () => {
  const found: Record<string, Record<string, string | null>> = JSON.parse(
    readFileSync(fixturePath('tensor/result-dtypes.json'), 'utf8'),
  )

  it.each(Object.entries(found))('%s', (name, results) => {
    const ours = Object.fromEntries(
      Object.entries(results).map(([dtypes, expected]) => {
        const inputs = dtypes.split(' ').map((dtype) =>
          vt.tensor(
            [
              [1, 0],
              [0, 1],
            ],
            { dtype: dtype as vt.DType },
          ),
        )
        try {
          const made = (FUNCTIONS[name] as (...inputs: Tensor[]) => Tensor | Tensor[])(...inputs)
          // Where PyTorch refuses, more may be done here.
          return [dtypes, expected === null ? null : (Array.isArray(made) ? (made[0] as Tensor) : made).dtype]
        } catch (error) {
          expect(error, `${name} of ${dtypes}`).toBeInstanceOf(vt.VoxtorchError)
          return [dtypes, null]
        }
      }),
    )
    expect(ours).toEqual(results)
  })
})
