import { shown } from '../base/arguments.js'
import { requireFunction } from '../base/check.js'
import { ConfigError, NotImplementedError } from '../base/errors.js'
import { scope, type Tensor } from '../tensor/index.js'
import { Distribution } from './distribution.js'
import { requireDistribution } from './independent.js'

// biome-ignore lint/suspicious/noExplicitAny: constructors of distributions have different arguments.
type Family<D extends Distribution = Distribution> = abstract new (...args: any[]) => D
type Divergence = (p: never, q: never) => Tensor

const registry: { p: Family; q: Family; divergence: Divergence }[] = []

/**
 * Register the function that computes KL(p ‖ q) for two classes and those that extend them. A later registration of the same
 * classes replaces an earlier one.
 */
export function registerKl<P extends Distribution, Q extends Distribution>(
  typeP: Family<P>,
  typeQ: Family<Q>,
  divergence: (p: P, q: Q) => Tensor,
): void {
  for (const [name, type] of Object.entries({ typeP, typeQ })) {
    if (typeof type !== 'function' || !(type.prototype instanceof Distribution))
      throw new ConfigError(
        `registerKl: expected ${name} to be a class that extends Distribution, got ${shown(type)}`,
        {
          argument: name,
        },
      )
  }
  requireFunction('registerKl', 'divergence', divergence)
  const known = registry.findIndex(({ p, q }) => p === typeP && q === typeQ)
  if (known >= 0) registry.splice(known, 1)
  registry.push({ p: typeP, q: typeQ, divergence: divergence as Divergence })
}

/** Return the number of classes between an instance and one of its classes; Infinity if it is not an instance. */
function distance(instance: Distribution, family: Family): number {
  let steps = 0
  for (let type = Object.getPrototypeOf(instance); type !== null; type = Object.getPrototypeOf(type)) {
    if (type === family.prototype) return steps
    steps += 1
  }
  return Infinity
}

/**
 * Return the Kullback–Leibler divergence KL(p ‖ q), the expectation under p of log p - log q, for each distribution of the batch.
 * The function of the most derived classes computes it, p's first. Pairs are listed in docs/guide/distributions.md.
 * @throws NotImplementedError for a pair without a formula; see {@link registerKl}
 */
export function klDivergence(p: Distribution, q: Distribution): Tensor {
  requireDistribution('klDivergence', 'p', p)
  requireDistribution('klDivergence', 'q', q)
  let best: { divergence: Divergence; left: number; right: number } | undefined
  for (const { p: typeP, q: typeQ, divergence } of registry) {
    const [left, right] = [distance(p, typeP), distance(q, typeQ)]
    if (left === Infinity || right === Infinity) continue
    if (best === undefined || left < best.left || (left === best.left && right < best.right))
      best = { divergence, left, right }
  }
  if (best === undefined) throw missingKl(p, q)
  const { divergence } = best
  return scope(() => divergence(p as never, q as never))
}

/** Return the error for a pair of distributions without a formula. */
export const missingKl = (p: Distribution, q: Distribution, reason = ''): NotImplementedError =>
  new NotImplementedError(
    `klDivergence: expected a pair of distributions with a known divergence, got ${p.constructor.name} and ` +
      `${q.constructor.name}${reason}. Register a function with registerKl, or estimate it from samples of p`,
    { p: p.constructor.name, q: q.constructor.name },
  )
