import { NonFiniteError } from '../../base/errors.js'
import { opAsync } from '../../native/call.js'
import type { Module } from '../../nn/index.js'
import { noGrad, scope, stack, type Tensor } from '../../tensor/index.js'
import { readNumbers } from '../pending.js'
import type { ResolvedArguments } from './arguments.js'
import { warn } from './rng.js'

const largest = opAsync('aten::_foreach_norm')
const SHOWN = 3

/** Return the floating-point tensors with NaN or infinite elements, by name with the largest absolute value: NaN or Infinity. */
export async function nonFinite(named: Iterable<readonly [string, Tensor]>): Promise<Map<string, number>> {
  const kinds = new Map<string, [string, Tensor][]>()
  for (const [name, tensor] of named) {
    if (!/^b?float(16|32|64)$/.test(tensor.dtype) || tensor.numel() === 0) continue
    const kind = `${tensor.device} ${tensor.dtype}`
    kinds.set(kind, [...(kinds.get(kind) ?? []), [name, tensor]])
  }
  return scope(() =>
    noGrad(async () => {
      const found = new Map<string, number>()
      for (const list of kinds.values()) {
        // The infinity norm is the largest absolute value: it is exact and cannot overflow.
        const norms = (await largest(
          list.map(([, tensor]) => tensor),
          Number.POSITIVE_INFINITY,
        )) as Tensor[]
        const values = await readNumbers(stack(norms).to({ dtype: 'float64' }))
        list.forEach(([name], i) => {
          if (!Number.isFinite(values[i])) found.set(name, values[i] as number)
        })
      }
      return found
    }),
  )
}

/** Return the trainable parameters of a model with NaN or infinite elements, by name. */
export const nonFiniteWeights = (model: Module): Promise<Map<string, number>> =>
  nonFinite([...model.namedParameters()].filter(([, param]) => param.requiresGrad))

const listed = (found: ReadonlyMap<string, number>): string => {
  const names = [...found].slice(0, SHOWN).map(([name, value]) => `${value} in ${name}`)
  return names.join(', ') + (found.size > SHOWN ? ` and in ${found.size - SHOWN} more` : '')
}

/** Report non-finite numbers as `onNonFinite` says: throw an error that ends training, or warn. */
export function reportNonFinite(
  { onNonFinite }: Pick<ResolvedArguments, 'onNonFinite'>,
  message: string,
  fields: { step: number; tensor: string | null },
): void {
  if (onNonFinite === 'warn') return warn(message)
  throw new NonFiniteError(`${message} Set onNonFinite: 'warn' to continue anyway.`, fields)
}

/** Checks each step of a training for NaN and infinities, before the step changes a weight. */
export class FiniteGuard {
  readonly #args: ResolvedArguments
  readonly #model: Module
  /** Whether a warning was already emitted for the current series of non-finite steps. */
  #isWarned = false

  constructor(args: ResolvedArguments, model: Module) {
    this.#args = args
    this.#model = model
  }

  /** Record that the numbers of a step are finite. */
  passed(): void {
    this.#isWarned = false
  }

  /**
   * Report a step whose loss or gradient norm is not finite, while the gradients are still there.
   * @throws NonFiniteError that names step and tensors, unless `onNonFinite` is 'warn'
   */
  async failed(step: number, loss: number, norm: number): Promise<void> {
    if (this.#isWarned) return
    this.#isWarned = this.#args.onNonFinite === 'warn'
    const gradients = await nonFinite(
      [...this.#model.namedParameters()].flatMap(([name, { grad }]) => (grad ? [[name, grad] as const] : [])),
    )
    const weights = await nonFiniteWeights(this.#model)
    const parts = [
      ...(Number.isFinite(loss) ? [] : [`a loss of ${loss}`]),
      ...(gradients.size > 0 ? [`gradients with ${listed(gradients)}`] : []),
      ...(weights.size > 0 ? [`weights with ${listed(weights)}`] : []),
    ]
    // The sum of squares of finite float16 gradients may overflow.
    if (parts.length === 0) parts.push(`gradients whose norm is ${norm}, though each is finite`)
    const [tensor = null] = [...weights.keys(), ...gradients.keys()]
    reportNonFinite(
      this.#args,
      `Trainer, step ${step}: expected finite numbers, got ${parts.join(', ')}. ${
        weights.size > 0 ? 'Load other weights' : "Look for the cause with detectAnomaly(), or lower 'learningRate'"
      }.`,
      { step, tensor },
    )
  }

  /**
   * Report a non-finite sum of losses over several processes.
   * @throws NonFiniteError as `failed`
   */
  lossSum(step: number, sum: number): void {
    if (Number.isFinite(sum) || this.#isWarned) return
    this.#isWarned = this.#args.onNonFinite === 'warn'
    const message = `Trainer, step ${step}: expected a finite loss in each process, got a sum of ${sum} since the last log.`
    reportNonFinite(this.#args, message, { step, tensor: null })
  }

  /**
   * Check the weights before they are saved.
   * @throws NonFiniteError that names step and tensors, unless `onNonFinite` is 'warn'
   */
  async beforeSave(step: number, what: string): Promise<void> {
    const weights = await nonFiniteWeights(this.#model)
    if (weights.size === 0) return
    const [tensor = null] = weights.keys()
    const outcome = this.#args.onNonFinite === 'warn' ? `${what} holds them` : `${what} was not written`
    reportNonFinite(
      this.#args,
      `Trainer, step ${step}: expected finite weights to save, got ${listed(weights)}. ${outcome}.`,
      { step, tensor },
    )
  }
}
