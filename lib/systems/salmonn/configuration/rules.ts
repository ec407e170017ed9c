import type { Check, SettingType } from '../../../base/settings.js'
import type { SalmonnConfiguration } from './configuration.js'

export type Kind = Exclude<SettingType, Check> | 'any'

/** Type and effect of a key; a key without effect has a reason instead. */
export type Rule = { type: Kind; set: (to: SalmonnConfiguration, value: never) => void } | { ignored: string }

export type Sections = Readonly<Record<string, Readonly<Record<string, Rule | Readonly<Record<string, Rule>>>> | Rule>>

/** Return a rule that stores the value under a name of a part of the configuration. */
export const into = <P extends 'model' | 'data' | 'recipe' | 'generation' | 'args'>(
  part: P,
  name: string & keyof SalmonnConfiguration[P],
  type: Kind,
): Rule => ({
  type,
  set: (to, value) => {
    ;(to[part] as Record<string, unknown>)[name] = value
  },
})

const GENERATION = [
  ['max_new_tokens', 'maxNewTokens', 'integer'],
  ['num_beams', 'numBeams', 'integer'],
  ['do_sample', 'doSample', 'boolean'],
  ['min_length', 'minLength', 'integer'],
  ['temperature', 'temperature', 'number'],
  ['top_p', 'topP', 'number'],
  ['top_k', 'topK', 'integer'],
  ['repetition_penalty', 'repetitionPenalty', 'number'],
  ['length_penalty', 'lengthPenalty', 'number'],
  ['no_repeat_ngram_size', 'noRepeatNgramSize', 'integer'],
] as const

/** Return the keys of generation settings, in the original's spelling (snake case) or voxtorch's (camel case). */
export const generationKeys = (spelling: 'snake' | 'camel'): Record<string, Rule> =>
  Object.fromEntries(
    GENERATION.map(([snake, camel, type]) => [spelling === 'snake' ? snake : camel, into('generation', camel, type)]),
  )
