/** Fuzz targets, and the messages between parent and child. */
import { ops, Tensor } from '../../lib/index.js'
import { targets as publicTargets } from './define.js'
import { namespaceTargets } from './namespaces.js'
import { type Call, operatorTargets } from './operators.js'
import './tensors.js'
import './files.js'
import './layers.js'
import './more-layers.js'
import './functional.js'
import './hooks.js'
import './transforms.js'
import './distributions.js'
import './process-settings.js'
import './training.js'
import './schedulers.js'
import './systems.js'
import './usdm.js'
import './audio-lm.js'
import './internvl.js'
import './audio.js'
import './vision.js'
import './clip.js'
import type { Random } from './random.js'

export interface Job {
  seed: number
  /** Calls for each target. */
  calls: number
  /** Number of attempts at a correct call. */
  attempts: number
  /** Number of different correct calls to keep. */
  samples: number
  /** Indices into the list of targets. */
  targets: number[]
  /** File of one line: target, call. */
  progress: string
  /** File of one JSON line for each finished target. */
  results: string
  /** Describe this call before making it. */
  explain?: number
}

export interface Finding {
  target: string
  kind: 'crash' | 'hang' | 'untyped' | 'unread option' | 'leak' | 'valid failed' | 'noise' | 'memory' | 'harness'
  call: number
  text: string
  message: string
}

export interface Result {
  name: string
  index: number
  calls: number
  succeeded: number
  validCalls: number
  samples: number
  /** Number of calls that threw, by class. */
  errors: Record<string, number>
  findings: Finding[]
  milliseconds: number
  slowest: number
}

export interface Target {
  name: string
  /** Whether an object after other arguments is an options object, in which an additional key is refused. */
  optionsLast?: boolean
  plausible(random: Random, attempt: number): Call
  hostile(random: Random, valid: Call | null): Call
  invoke(form: Call['form'], args: unknown[]): unknown
  /** Values that `invoke` creates in addition to its result, and keeps. */
  kept?: number
}

export function allTargets(): Target[] {
  const functions = ops as unknown as Record<string, (...args: unknown[]) => unknown>
  const queued = ops.async as unknown as Record<string, (...args: unknown[]) => unknown>
  const fromSchemas = operatorTargets()
  const operators = fromSchemas.map(
    (target): Target => ({
      name: target.operator,
      plausible: target.plausible,
      hostile: target.hostile,
      invoke(form, args) {
        if (form === 'method' && target.methodName !== null && args[0] instanceof Tensor) {
          const method = (args[0] as unknown as Record<string, (...args: unknown[]) => unknown>)[target.methodName]!
          return method.apply(args[0], args.slice(1))
        }
        return (form === 'queued' ? queued : functions)[target.functionName!]!(...args)
      },
    }),
  )
  return [...operators, ...namespaceTargets(fromSchemas), ...publicTargets]
}
