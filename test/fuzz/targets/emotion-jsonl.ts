import { readEmotionJsonl } from '../../../lib/kit/emotion/jsonl.js'
import { fromFile, odd } from './ecf.js'
import type { FuzzTarget } from './target.js'

const line = { dialog: '1', speaker: 'Ann', text: 'so it is .', emotion: 'joy', causes: [1], split: 'train' }
const other = { ...line, emotion: 'anger', causes: [{ utterance: 1, words: [0, 2] }, 2], meta: {} }

export const target: FuzzTarget = {
  name: 'emotion-jsonl',
  words: ['"dialog"', '"causes"', '"words"', '"utterance"', '"audio"', '"frames"', '"start"', '"split"', '\n{'],
  seeds: () => [Buffer.from(`${JSON.stringify(line)}\n${JSON.stringify(other)}\n{"dialog": 2, "text": "no"}\n`)],
  generate(random) {
    const lines = Array.from({ length: 1 + random.below(5) }, () => {
      const made: Record<string, unknown> = structuredClone(random.pick([line, other]))
      if (random.chance(0.5)) made.dialog = random.pick(['1', 2, '__proto__'])
      const names = [...Object.keys(made), 'video', 'audio', 'frames', 'start', 'end', 'x']
      if (random.chance(0.3)) made[random.pick(names)] = odd(random)
      const text = JSON.stringify(made)
      return random.chance(0.1) ? text.slice(0, random.below(text.length)) : text
    })
    return Buffer.from(`${lines.join('\n')}${random.pick([' ', '\n', '\t'])}`)
  },
  run: (bytes) => fromFile('x.jsonl', bytes, readEmotionJsonl),
}
