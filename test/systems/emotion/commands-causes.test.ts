import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, it, vi } from 'vitest'
import { DataError } from '../../../lib/base/errors.js'
import { MemorySource, Place } from '../../../lib/files/byte-source.js'
import { ZipArchive } from '../../../lib/files/zip/zip.js'
import { runCommand } from '../../../lib/kit/command.js'
import { label } from '../../../lib/systems/emotion/commands/label.js'
import { train } from '../../../lib/systems/emotion/commands/train.js'
import { PATIENCE } from '../../patience.js'
import { tinyBert } from './tiny.js'

afterEach(() => vi.restoreAllMocks())

const WORD = { joy: 'glad', anger: 'angry', neutral: 'so' } as const
const EMOTIONS = ['joy', 'anger', 'neutral'] as const

/** Whoever is angry is so because of what was said just before, whoever is glad, because of what they say. */
function lines(count: number, split: string, first: number): string[] {
  return Array.from({ length: count }, (_, d) =>
    Array.from({ length: 4 }, (_, u) => {
      const emotion = EMOTIONS[(d * (u + 2) + u * u) % 3] as (typeof EMOTIONS)[number]
      const cause = emotion === 'joy' ? u + 1 : u
      return JSON.stringify({
        ...{ dialog: String(first + d), speaker: 'AB'[u % 2], text: `${WORD[emotion]} it is .`, emotion, split },
        ...(emotion !== 'neutral' && cause > 0 && { causes: [{ utterance: cause, words: [0, 2] }] }),
      })
    }),
  ).flat()
}

it(
  '--causes learns them from the encoders as they were trained, draws arrows, and writes the submission',
  async () => {
    const dir = mkdtempSync(join(tmpdir(), 'voxtorch-emotion-causes-'))
    const data = join(dir, 'x.jsonl')
    const all = [...lines(24, 'train', 1), ...lines(6, 'valid', 101), ...lines(6, 'test', 201)]
    writeFileSync(data, `${all.join('\n')}\n`)
    const output = join(dir, 'run')
    const said = vi.spyOn(console, 'log').mockImplementation(() => {})
    const words = ['glad', 'angry', 'so', 'it', 'is', '.']
    await runCommand('voxtorch emotion train', train, [
      ...['--data', data, '--text', await tinyBert(words), '--tune', 'full', '--causes', '--output', output],
      ...['--context-layers', '0', '--epochs', '8', '--learning-rate', '0.01', '--encoder-learning-rate', '0.01'],
      '--no-progress',
    ])
    const told = said.mock.calls.flat().join('\n')
    // Of zeros the scorer would know nothing but the emotions; the words of causes come from the encoder too.
    expect(told).toMatch(/causes: weighted F1 of pairs (0\.9\d+|1\.0000) on validation data/)
    expect(told).toMatch(/cause spans: exact match [\d.]+ on validation data, 0\.0000 with whole utterances/)
    const zip = await ZipArchive.open(
      new MemorySource(readFileSync(join(output, 'causes/submission.zip')), new Place('zip', DataError)),
    )
    expect([...zip.entries.keys()].sort()).toEqual(['Subtask_1_pred.json', 'Subtask_2_pred.json'])
    const arrows = (page: string) => readFileSync(page, 'utf8').match(/<path class="cause"/g)?.length ?? 0
    const report = join(output, 'report.html')
    expect(told).toContain(report)
    expect(arrows(report)).toBeGreaterThan(0)
    const [page, labeled] = [join(dir, 'page.html'), join(dir, 'out.jsonl')]
    const asked = ['--model', join(output, 'best'), '--output', labeled, '--report', page]
    await runCommand('voxtorch emotion label', label, [data, ...asked])
    expect(arrows(page)).toBeGreaterThan(0)
    const rows = readFileSync(labeled, 'utf8').trim().split('\n').map((line) => JSON.parse(line)) // biome-ignore format: one line
    const effects = rows.filter(({ causes }) => causes.length > 0)
    expect(effects.length).toBeGreaterThan(20)
    const right = effects.filter(({ utterance, causes, emotion }) =>
      causes.includes(emotion === 'joy' ? utterance : utterance - 1),
    )
    expect(right.length / effects.length).toBeGreaterThan(0.9)
    // Without causes beside the model there are no arrows.
    const bare = join(dir, 'bare.html')
    await runCommand('voxtorch emotion train', train, [
      ...['--data', data, '--text', await tinyBert(words), '--output', join(dir, 'plain')],
      ...['--context-layers', '0', '--epochs', '1', '--no-progress'],
    ])
    await runCommand('voxtorch emotion label', label, [
      ...[data, '--model', join(dir, 'plain/best'), '--output', labeled, '--report', bare],
    ])
    expect(arrows(bare)).toBe(0)
  },
  2 * PATIENCE,
)
