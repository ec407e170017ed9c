import { argumentError, shown } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { op } from '../native/call.js'
import { registerCallback } from '../native/callbacks.js'
import type { ModuleHandle } from '../native/objects.js'
import { setBlockHook } from '../nn/native-module.js'
import { Tensor, tensor } from '../tensor/index.js'
import { inCallback } from '../tensor/tensor.js'

/**
 * Change the scores of the next token. Receives the sequences so far, int64 [rows, time], and their scores, float32 [rows, vocabSize] on the
 * CPU, and returns new scores. Rows are prompts, answers or beams, in order; shorter ones are padded on the left, and after their end. With
 * beams scores are log probabilities. The function must not be async.
 */
export type LogitsProcessor = (inputIds: Tensor, scores: Tensor) => Tensor

/**
 * Stop sequences. Receives them, int64 [rows, time], with the newest token, and returns for all rows, or for each as a list or bool tensor
 * [rows], whether that token is the last. With beams it is called for one candidate at a time. The function must not be async.
 */
export type StoppingCriteria = (inputIds: Tensor) => boolean | readonly boolean[] | Tensor

export interface Callbacks {
  logitsProcessor?: LogitsProcessor | readonly LogitsProcessor[] | undefined
  stoppingCriteria?: StoppingCriteria | readonly StoppingCriteria[] | undefined
}

const childOf = op('voxtorch::module_child')

/** Register the user's functions in a session. */
export function attachCallbacks(session: ModuleHandle, callbacks: Callbacks): void {
  const processors = listOf('logitsProcessor', callbacks.logitsProcessor)
  const criteria = listOf('stoppingCriteria', callbacks.stoppingCriteria)
  if (processors.length > 0) {
    hook(session, 'logits_processor', (inputIds, scores) =>
      processors.reduce((changed, processor) => {
        const result: unknown = processor(inputIds, changed)
        if (result instanceof Tensor) return result
        throw refused('logitsProcessor', 'a tensor of scores', result)
      }, scores),
    )
  }
  if (criteria.length > 0) {
    hook(session, 'stopping_criteria', (inputIds) => {
      const rows = inputIds.size(0)
      const ends = criteria.map((criterion) => decided(criterion(inputIds), rows))
      return ends.reduce((some, one) => some.logicalOr(one))
    })
  }
}

function listOf<F>(key: string, given: F | readonly F[] | undefined): F[] {
  const list = given === undefined || given === null ? [] : ([given].flat() as F[])
  for (const one of list)
    if (typeof one !== 'function') throw argumentError('generate', key, 'a function or a list of them', one)
  return list
}

function hook(session: ModuleHandle, part: string, run: (inputIds: Tensor, values: Tensor) => Tensor): void {
  const callback = inCallback(([inputIds, values]) => [run(inputIds as Tensor, values as Tensor)])
  setBlockHook(childOf(session, part) as ModuleHandle, registerCallback(callback))
}

function decided(given: unknown, rows: number): Tensor {
  if (given instanceof Tensor) return given.to('bool').expand([rows])
  const list = typeof given === 'boolean' ? Array<boolean>(rows).fill(given) : given
  if (!Array.isArray(list) || list.length !== rows || list.some((one) => typeof one !== 'boolean')) {
    throw refused('stoppingCriteria', `true or false, or a list of ${rows} of them`, given)
  }
  return tensor(list as boolean[], { dtype: 'bool' })
}

function refused(where: string, expected: string, value: unknown): ConfigError {
  const isPromise = typeof (value as { then?: unknown } | null)?.then === 'function'
  const advice = isPromise ? ' Make the function synchronous.' : ''
  return new ConfigError(`${where}: expected a function that returns ${expected}, got ${shown(value)}.${advice}`, {})
}
