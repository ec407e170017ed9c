/** Describe hand-written functions of lib/ by correct calls, which the fuzzer then breaks. */
import { mixChannels } from '../../lib/audio/channels.js'
import * as files from '../../lib/files/index.js'
import * as voxtorch from '../../lib/index.js'
import * as salmonn from '../../lib/systems/salmonn/index.js'
import * as spectra from '../../lib/systems/spectra/index.js'
import type { Call } from './operators.js'
import { spoil } from './operators.js'
import type { Random } from './random.js'
import type { Target } from './targets.js'
import { dense, list, type Spec, value, wrongValues } from './values.js'

export type Args = Spec[]
// biome-ignore lint/suspicious/noExplicitAny: the point is to pass what the types forbid.
export type Loose = any

export const lib = { ...spectra, ...salmonn, ...voxtorch, ...files, mixChannels } as unknown as Record<string, Loose>
export const options = (entries: Record<string, unknown>): Spec => ({
  is: 'object',
  entries: Object.entries(entries).map(([name, it]) => [name, isSpec(it) ? it : value(it)]),
})
const isSpec = (it: unknown): it is Spec => typeof it === 'object' && it !== null && 'is' in it
export const of = (...items: unknown[]): Args =>
  items.map((it) => (isSpec(it) ? it : Array.isArray(it) ? list(it) : value(it)))
export const many = (...items: Spec[]): Spec => ({ is: 'list', items })
export const learnt = (shape: number[], dtype: 'float32' | 'float64' = 'float32'): Spec => ({
  ...dense(shape, 'normal', dtype),
  grad: true,
})

/** Functions whose last argument is a record of the user's, or an object of another class. */
export const DATA = new Set([
  'writeJson',
  'LSTM.forward 1',
  'LSTMCell.forward',
  'ProgressBar.tick',
  'dstScores',
  'trippyScores',
  'dstPredictionRecords',
])

export const targets: Target[] = []

/** A function and right calls of it. */
export function add(name: string, invoke: (...args: Loose[]) => unknown, ...right: Args[]): void {
  targets.push({
    name,
    optionsLast: !DATA.has(name),
    plausible(_random: Random, attempt: number): Call {
      return { form: 'function', args: right[attempt % right.length]!, options: [] }
    },
    hostile(random: Random, valid: Call | null): Call {
      const args = [...(valid?.args ?? random.pick(right))]
      const roll = random.next()
      if (roll < 0.1) args.push(random.pick(wrongValues))
      else if (roll < 0.15) args.pop()
      else if (roll < 0.25 && args.length > 0) args[random.below(args.length)] = random.pick(wrongValues)
      else if (args.length > 0) {
        const count = random.chance(0.7) ? 1 : 2
        for (let i = 0; i < count; i += 1) {
          const place = random.below(args.length)
          args[place] = spoil(random, args[place]!)
        }
      }
      return { form: 'function', args, options: [] }
    },
    invoke: (_form, args) => invoke(...args),
  })
}

/** Exports that take their arguments as they are. */
export function exported(name: string, ...right: Args[]): void {
  if (typeof lib[name] !== 'function') throw new Error(`test/fuzz: expected ${name} to be an exported function`)
  add(name, (...args) => lib[name](...args), ...right)
}
