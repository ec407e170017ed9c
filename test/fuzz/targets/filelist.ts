import { parseVoiceboxLine } from '../../../lib/systems/usdm/voicebox/filelist.js'
import type { FuzzTarget } from './target.js'

export const target: FuzzTarget = {
  name: 'filelist',
  words: ['|', '||', ' ', '1', '0', '-1', '9999', '999999999', '1e9', '\r'],
  seeds: () => ['a.wav|5884 2411 5280|1 1 1', 'b|c.flac|7|12', '/d e.mp3|0 1|2 0\r'].map((text) => Buffer.from(text)),
  run: (bytes) => void parseVoiceboxLine(Buffer.from(bytes).toString('utf8'), 'fuzz', 1),
}
