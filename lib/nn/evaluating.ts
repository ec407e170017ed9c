import { misuse, requireFunction } from '../base/check.js'
import { Module } from './module.js'

/** Of each module that something evaluates now: how many do, and the mode that the last of them puts back. */
const evaluated = new WeakMap<Module, { users: number; training: boolean }>()

/**
 * Runs something with a network in evaluation mode, and puts back the mode that each of its modules had. Where several do so
 * with one network at a time, the last puts back what was before the first. It does not turn gradients off; `noGrad` does.
 *
 * ```ts
 * const logits = await evaluating(model, () => noGrad(() => model.forward(batch)))
 * ```
 * @returns what `work` gives
 */
export async function evaluating<T>(model: Module, work: () => Promise<T> | T): Promise<T> {
  if (!(model instanceof Module)) throw misuse('evaluating', 'model', 'a Module', model)
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
