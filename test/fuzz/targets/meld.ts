import { readMeld } from '../../../lib/kit/emotion/meld.js'
import { fromFile, odd } from './ecf.js'
import type { FuzzTarget } from './target.js'

const HEAD = 'Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime'
const ROW = ['1', '"so, it is \x92"', 'Ann', 'joy', 'positive', '0', '0', '8', '21', '"00:16:16,059"', '"00:16:21,731"']

/** A row with other cells at these places. */
const rowWith = (cells: Readonly<Record<number, string>>): string[] => Object.assign([...ROW], cells)

export const target: FuzzTarget = {
  name: 'meld',
  words: ['Dialogue_ID', 'Utterance_ID', 'Emotion', '"00:16:16,059"', '\xef\xbb\xbf', '\x92', ',"",', '\r\n'],
  seeds: () => {
    const second = rowWith({ 6: '3', 3: 'anger' })
    return [`${HEAD}\n${ROW}\n${second}\n`, `\xef\xbb\xbf${HEAD}\r\n${second}\r\n`].map((text) =>
      Buffer.from(text, 'latin1'),
    )
  },
  generate(random) {
    const rows = Array.from({ length: 1 + random.below(4) }, (_, i) => {
      const odds = random.chance(0.4) ? { [random.below(ROW.length)]: String(odd(random)) } : {}
      return rowWith({ 6: String(i), ...odds })
    })
    const head = random.chance(0.1) ? HEAD.replace(random.pick(HEAD.split(',')), 'x') : HEAD
    return Buffer.from(`${head}\n${rows.join('\n')}${random.pick([' ', '\n', '\t'])}`, 'latin1')
  },
  run: (bytes) => fromFile('x.csv', bytes, readMeld),
}
