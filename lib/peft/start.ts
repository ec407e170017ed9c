import { ConfigError } from '../base/errors.js'
import { kaimingUniform_, normal_, zeros_ } from '../nn/init.js'
import { noGrad, ops, randn, scope, type Tensor } from '../tensor/index.js'
import type { Lora } from './layer.js'
import type { LayerKind } from './targets.js'

/** Names of initializations that move a part of the weight into the adapter. */
const ITERATIONS = /^pissa_niter_(\d{1,4})$/

export type LoraStart = boolean | 'gaussian' | 'pissa' | 'olora' | `pissa_niter_${number}`

export const isStart = (value: unknown): value is LoraStart =>
  typeof value === 'boolean' ||
  (typeof value === 'string' && (['gaussian', 'pissa', 'olora'].includes(value) || ITERATIONS.test(value)))

/** Return whether the initial adapter is subtracted from the layer's weight. */
export const takesFromWeight = (start: LoraStart, kind: LayerKind): boolean =>
  kind !== 'embedding' && typeof start === 'string' && start !== 'gaussian'

export function initialize({ A, B }: Lora, kind: LayerKind, r: number, start: LoraStart): void {
  if (kind === 'embedding') {
    if (start === false) normal_(A)
    else zeros_(A)
    normal_(B)
    return
  }
  if (start === 'gaussian') normal_(A, 0, 1 / r)
  else kaimingUniform_(A, { a: Math.sqrt(5) })
  if (start === false) kaimingUniform_(B, { a: Math.sqrt(5) })
  else zeros_(B)
}

/**
 * Return A and B that together are the principal part of a weight [out, in] over `scaling`: by its singular values (PiSSA,
 * https://arxiv.org/abs/2404.02948), exact or with a number of iterations from a random basis, or by its QR decomposition
 * (OLoRA, https://arxiv.org/abs/2406.01775), where only the product is scaled.
 * @throws ConfigError if the rank is above the weight's
 */
export function principal(
  weight: Tensor,
  r: number,
  scaling: number,
  start: LoraStart,
  path: string,
): [Tensor, Tensor] {
  const most = Math.min(...weight.shape)
  if (r > most) {
    throw new ConfigError(
      `LoraConfig.r: expected at most ${most}, the rank of '${path}', with initLoraWeights '${start}', got ${r}`,
      {
        path,
      },
    )
  }
  const exact = weight.dtype === 'float64' ? weight : weight.to({ dtype: 'float32' })
  if (start === 'olora') {
    const { Q, R } = ops.linalgQr(exact) as unknown as { Q: Tensor; R: Tensor }
    return [R.narrow(0, 0, r), Q.narrow(1, 0, r)]
  }
  const iterations = ITERATIONS.exec(String(start))?.[1]
  const [U, S, Vh] = iterations === undefined ? svd(exact, r) : approximateSvd(exact, r, Number(iterations))
  const root = S.div(scaling).sqrt()
  return [Vh.mul(root.unsqueeze(1)), U.mul(root)]
}

function svd(weight: Tensor, r: number): [Tensor, Tensor, Tensor] {
  const { U, S, Vh } = ops.linalgSvd(weight, false) as unknown as { U: Tensor; S: Tensor; Vh: Tensor }
  return [U.narrow(1, 0, r), S.narrow(0, 0, r), Vh.narrow(0, 0, r)]
}

/** Compute an approximate SVD like torch.svd_lowrank (Halko et al. 2009, https://arxiv.org/abs/0909.4061, algorithm 5.1). */
function approximateSvd(weight: Tensor, r: number, iterations: number): [Tensor, Tensor, Tensor] {
  const [rows, columns] = weight.shape as [number, number]
  if (rows < columns) {
    const [U, S, Vh] = approximateSvd(weight.t(), r, iterations)
    return [Vh.t(), S, U.t()]
  }
  const basis = (of: Tensor) => (ops.linalgQr(of) as unknown as { Q: Tensor }).Q
  let Q = basis(weight.matmul(randn([columns, r], { dtype: weight.dtype, device: weight.device })))
  for (let i = 0; i < iterations; i++) Q = basis(weight.matmul(basis(weight.t().matmul(Q))))
  const [U, S, Vh] = svd(Q.t().matmul(weight), r)
  return [Q.matmul(U), S, Vh]
}

/** Add `factor` times an adapter's product to a weight. */
export function addProduct(weight: Tensor, A: Tensor, B: Tensor, factor: number): void {
  noGrad(() =>
    scope(() => {
      const exact = weight.dtype === 'float64' ? 'float64' : 'float32'
      const sum = weight.to({ dtype: exact }).add(ops.mm(B, A).to({ dtype: exact }).mul(factor))
      weight.copy_(sum)
    }),
  )
}
