import type { SalmonnConfiguration } from './configuration.js'

export type Kind = 'text' | 'texts' | 'number' | 'whole' | 'flag' | 'any' | readonly (string | number | boolean)[]

/** Type and effect of a key; a key without effect has a reason instead. */
export type Rule = { kind: Kind; set: (to: SalmonnConfiguration, value: never) => void } | { ignored: string }

export type Sections = Readonly<Record<string, Readonly<Record<string, Rule | Readonly<Record<string, Rule>>>> | Rule>>

/** Return a rule that stores the value under a name of a part of the configuration. */
export const into = <P extends 'model' | 'data' | 'recipe' | 'generation' | 'args'>(
  part: P,
  name: string & keyof SalmonnConfiguration[P],
  kind: Kind,
): Rule => ({
  kind,
  set: (to, value) => {
    ;(to[part] as Record<string, unknown>)[name] = value
  },
})

const GENERATION = [
  ['max_new_tokens', 'maxNewTokens', 'whole'],
  ['num_beams', 'numBeams', 'whole'],
  ['do_sample', 'doSample', 'flag'],
  ['min_length', 'minLength', 'whole'],
  ['temperature', 'temperature', 'number'],
  ['top_p', 'topP', 'number'],
  ['top_k', 'topK', 'whole'],
  ['repetition_penalty', 'repetitionPenalty', 'number'],
  ['length_penalty', 'lengthPenalty', 'number'],
  ['no_repeat_ngram_size', 'noRepeatNgramSize', 'whole'],
] as const

/** Return the keys of generation settings, in the original's spelling (snake case) or voxtorch's (camel case). */
export const generationKeys = (spelling: 'snake' | 'camel'): Record<string, Rule> =>
  Object.fromEntries(
    GENERATION.map(([snake, camel, kind]) => [spelling === 'snake' ? snake : camel, into('generation', camel, kind)]),
  )
