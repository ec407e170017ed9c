import { argumentError, requireFunction } from '../base/check.js'
import { Module } from './module.js'

/** For each module in evaluation, the number of users and the mode that the last one restores. */
const evaluated = new WeakMap<Module, { users: number; training: boolean }>()

/**
 * Run a function with a network in evaluation mode, and restore the mode of each module afterwards. If several calls overlap on
 * one network, the last one restores the mode. Gradients stay enabled; use `noGrad` to disable them.
 *
 * ```ts
 * const logits = await withEvalMode(model, () => noGrad(() => model.forward(batch)))
 * ```
 * @returns the result of `work`
 */
export async function withEvalMode<T>(model: Module, work: () => Promise<T> | T): Promise<T> {
  if (!(model instanceof Module)) throw argumentError('evaluating', 'model', 'a Module', model)
  requireFunction('evaluating', 'work', work)
  const parts = model.modules()
  const modes = parts.map((part) => evaluated.get(part) ?? { users: 0, training: part.training })
  for (const [i, part] of parts.entries()) {
    const mode = modes[i] as { users: number; training: boolean }
    mode.users += 1
    evaluated.set(part, mode)
  }
  try {
    model.eval()
    return await work()
  } finally {
    for (const [i, part] of parts.entries()) {
      const mode = modes[i] as { users: number; training: boolean }
      mode.users -= 1
      if (mode.users > 0) continue
      evaluated.delete(part)
      part.training = mode.training
    }
  }
}
