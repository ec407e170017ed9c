import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { readEcf } from '../../../lib/kit/emotion/ecf.js'
import type { Random } from '../random.js'
import type { FuzzTarget } from './target.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-fuzz-emotion-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))

/** Gives a reader of paths its bytes. The last byte says what becomes of bad records. */
export async function fromFile(
  name: string,
  bytes: Uint8Array,
  read: (path: string, options: { onBadRecord: 'stop' | 'skip' }) => Promise<unknown>,
): Promise<void> {
  const path = join(folder, name)
  writeFileSync(path, bytes)
  await read(path, { onBadRecord: (bytes.at(-1) ?? 0) % 2 === 0 ? 'skip' : 'stop' })
}

/** Values of wrong types. */
export const odd = (random: Random): unknown =>
  random.pick([null, -1, 0, 2, 1.5, '1', 'U2', '', 'joy', 'love', [], [[]], {}, true, 1e300, '__proto__'])

export const target: FuzzTarget = {
  name: 'ecf',
  words: ['"conversation_ID"', '"emotion-cause_pairs"', '"utterance_ID"', '3_surprise', 'U1', '_0_4', '\\ud800'],
  seeds: () =>
    [
      ['1_joy', '1'],
      ['2_anger', '1_so it is'],
      ['U2_anger', 'U1_0_2'],
    ].map((pair) => Buffer.from(JSON.stringify([conversation([pair]), { ...conversation([]), conversation_ID: 2 }]))),
  generate(random) {
    const pair = () => [`${odd(random)}_${odd(random)}`, random.chance(0.5) ? '1' : `1_${odd(random)}`]
    const made = conversation(random.chance(0.5) ? [pair()] : [['2_anger', '1']])
    const record = random.pick<Record<string, unknown>>([made, random.pick(made.conversation)])
    if (random.chance(0.7)) record[random.pick(Object.keys(record))] = odd(random)
    return Buffer.from(`${JSON.stringify([made])}${random.pick([' ', '\n', '\t'])}`)
  },
  run: (bytes) => fromFile('x.json', bytes, readEcf),
}

function conversation(pairs: unknown[]) {
  const said = (utterance_ID: number, emotion: string) => ({
    ...{ utterance_ID, text: 'so it is .', speaker: 'Ann', emotion, video_name: 'dia1utt1.mp4' },
    video_source: ['S01E01', '00:07:40.335', '00:07:44.880'],
  })
  return { conversation_ID: 1, conversation: [said(1, 'joy'), said(2, 'anger')], 'emotion-cause_pairs': pairs }
}
