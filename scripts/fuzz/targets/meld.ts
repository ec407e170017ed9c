import { readMeld } from '../../../lib/kit/emotion/meld.js'
import { fromFile, odd } from './ecf.js'
import type { FuzzTarget } from './target.js'

const HEAD = 'Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime'
const ROW = ['1', '"so, it is \x92"', 'Ann', 'joy', 'positive', '0', '0', '8', '21', '"00:16:16,059"', '"00:16:21,731"']

export const target: FuzzTarget = {
  name: 'meld',
  words: ['Dialogue_ID', 'Utterance_ID', 'Emotion', '"00:16:16,059"', '\xef\xbb\xbf', '\x92', ',"",', '\r\n'],
  seeds: () => {
    const second = ROW.with(6, '3').with(3, 'anger')
    return [`${HEAD}\n${ROW}\n${second}\n`, `\xef\xbb\xbf${HEAD}\r\n${second}\r\n`].map((text) =>
      Buffer.from(text, 'latin1'),
    )
  },
  generate(random) {
    const rows = Array.from({ length: 1 + random.below(4) }, (_, i) => {
      const row = ROW.with(6, String(i))
      return random.chance(0.4) ? row.with(random.below(row.length), String(odd(random))) : row
    })
    const head = random.chance(0.1) ? HEAD.replace(random.pick(HEAD.split(',')), 'x') : HEAD
    return Buffer.from(`${head}\n${rows.join('\n')}${random.pick([' ', '\n', '\t'])}`, 'latin1')
  },
  run: (bytes) => fromFile('x.csv', bytes, readMeld),
}
