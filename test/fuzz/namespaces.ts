/** The functions of `fft`, `linalg` and `special`, called as the operators behind them. */
import { fft, linalg, special } from '../../lib/index.js'
import { camel } from '../../scripts/schemas.js'
import { add, of } from './define.js'
import type { OperatorTarget } from './operators.js'
import { Random } from './random.js'
import type { Target } from './targets.js'
import { dense as f } from './values.js'

// The polynomials, which check their degree first, are no operators of `ops`.
for (const name of Object.keys(special).filter((name) => /Polynomial/.test(name))) {
  const call = (special as unknown as Record<string, (...args: unknown[]) => unknown>)[name]!
  add(
    `special.${name}`,
    (...args) => call(...args),
    of(f([3]), 2),
    of(1.5, f([3], 'small')),
    of(f([2]), f([2], 'small')),
  )
}

/** Return a target for each function of each namespace, which calls it with the arguments of its operator. */
export function namespaceTargets(operators: readonly OperatorTarget[]): Target[] {
  const byName = new Map(operators.map((target) => [camel(target.operator.slice('aten::'.length)), target]))
  return Object.entries({ fft, linalg, special }).flatMap(([namespace, functions]) =>
    Object.entries(functions as unknown as Record<string, (...args: unknown[]) => unknown>).flatMap(
      ([name, run]): Target[] => {
        const operator = byName.get(`${namespace}${name[0]!.toUpperCase()}${name.slice(1)}`)
        if (operator === undefined) return []
        const { hostile } = operator
        // The attempts of the operator's own target, which finds a right call of nearly all.
        const plausible = (_random: Random, attempt: number) =>
          operator.plausible(new Random(1, operator.operator, 'plausible', attempt), attempt)
        return [{ name: `${namespace}.${name}`, plausible, hostile, invoke: (_form, args) => run(...args) }]
      },
    ),
  )
}
