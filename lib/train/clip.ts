import { argumentError, listOf, requireNumber, requireOptions } from '../base/check.js'
import { GradientError } from '../base/errors.js'
import { opAsync } from '../native/call.js'
import { noGrad, scope, stack, Tensor } from '../tensor/index.js'
import { dense } from './gradients.js'
import { readNumbers } from './pending.js'

export interface ClipOptions {
  /** Order p of the norm, or Infinity. Default 2. */
  normType?: number
  /** Throw, without scaling, if the norm is NaN or infinite. Default false: NaN spreads to all gradients. */
  errorIfNonfinite?: boolean
}

/**
 * Scale all gradients by min(1, maxNorm / (norm + 1e-6)), where norm is that of all gradients as one vector, and return the
 * norm before clipping: `torch.nn.utils.clip_grad_norm_`. Runs on the executor.
 * @throws GradientError if the norm is not finite and `errorIfNonfinite` is set
 */
export async function clipGradNorm(
  params: Iterable<Tensor>,
  maxNorm: number,
  options: ClipOptions = {},
): Promise<number> {
  requireOptions('clipGradNorm', options, ['normType', 'errorIfNonfinite'])
  const { normType = 2, errorIfNonfinite = false } = options
  requireNumber('clipGradNorm', 'maxNorm', maxNorm, { least: 0 })
  requireNumber('clipGradNorm', 'normType', normType)
  return scope(async () =>
    noGrad(async () => {
      const groups = gradientsByKind('clipGradNorm', params)
      if (groups.length === 0) return 0
      const norms = await Promise.all(
        groups.map((grads) => opAsync('aten::_foreach_norm')(grads, normType) as Promise<Tensor[]>),
      )
      const first = (groups[0] as Tensor[])[0] as Tensor
      const total = stack(norms.flat().map((norm) => norm.to({ device: first.device }))).linalgVectorNorm(normType)
      const factor = total.add(1e-6).reciprocal().mul(maxNorm).clamp(null, 1)
      const both = stack([total, factor])
      const [norm, scale] = await readNumbers(both)
      if (errorIfNonfinite && !Number.isFinite(norm)) {
        throw new GradientError(
          `clipGradNorm: expected gradients with a finite norm of order ${normType}, got ${norm}. Find the first non-finite step with ` +
            'detectAnomaly, lower the learning rate, or set errorIfNonfinite to false',
          { norm },
        )
      }
      if (scale === 1) return norm as number
      await Promise.all(
        groups.map((grads) =>
          opAsync('aten::_foreach_mul_')(grads, factor.to({ device: (grads[0] as Tensor).device })),
        ),
      )
      return norm as number
    }),
  )
}

/** Clamp every gradient to [-value, value], on the executor: `torch.nn.utils.clip_grad_value_`. */
export async function clipGradValue(params: Iterable<Tensor>, value: number): Promise<void> {
  requireNumber('clipGradValue', 'value', value, { least: 0 })
  const jobs: Promise<unknown>[] = []
  noGrad(() =>
    scope(() => {
      for (const grads of gradientsByKind('clipGradValue', params)) {
        jobs.push(
          opAsync('aten::_foreach_clamp_min_')(grads, -value),
          opAsync('aten::_foreach_clamp_max_')(grads, value),
        )
      }
    }),
  )
  await Promise.all(jobs)
}

function gradientsByKind(where: string, params: Iterable<Tensor>): Tensor[][] {
  const kinds = new Map<string, Tensor[]>()
  for (const param of params instanceof Tensor ? [params] : listOf(where, 'params', params, 'tensors')) {
    if (!(param instanceof Tensor)) throw argumentError(where, 'a parameter', 'a Tensor', param)
    if (!param.grad) continue
    const grad = dense(param.grad)
    const kind = `${grad.device} ${grad.dtype}`
    const same = kinds.get(kind)
    if (same) same.push(grad)
    else kinds.set(kind, [grad])
  }
  return [...kinds.values()]
}
