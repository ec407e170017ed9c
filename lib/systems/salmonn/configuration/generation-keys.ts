import { into, type Rule } from './sections.js'

const KEYS = [
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

/** Keys of a configuration's part on generation, in the original's spelling or in ours. */
export const generationKeys = (spelling: 'snake' | 'camel'): Record<string, Rule> =>
  Object.fromEntries(
    KEYS.map(([snake, camel, kind]) => [spelling === 'snake' ? snake : camel, into('generation', camel, kind)]),
  )
