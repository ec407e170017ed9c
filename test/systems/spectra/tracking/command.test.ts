import { mkdtempSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it, vi } from 'vitest'
import * as vt from '../../../../lib/index.js'
import { runCommand } from '../../../../lib/kit/command.js'
import { track } from '../../../../lib/systems/spectra/commands/track.js'
import { smallSpectra } from '../network.js'
import { config, makeDialogs, makeTokenizer } from './maker.js'

const home = mkdtempSync(join(tmpdir(), 'voxtorch-dst-command-'))
afterAll(() => rmSync(home, { recursive: true, force: true }))

it('`spectra track` trains, measures once on the validation data, scores, and follows turns', async () => {
  const [data, model, output] = ['data', 'model', 'run'].map((name) => join(home, name)) as [string, string, string]
  const tokenizer = await makeTokenizer(model)
  vt.manualSeed(3)
  using encoder = vt.Spectra.fromConfig(smallSpectra(tokenizer.vocabSize))
  await encoder.save(model)
  await makeDialogs(data, 3)
  for (const split of ['val', 'test'])
    writeFileSync(join(data, `${split}.jsonl`), readFileSync(join(data, 'train.jsonl')))
  const { classTypes, slots, labelMaps } = config
  writeFileSync(join(data, 'config.json'), JSON.stringify({ class_types: classTypes, slots, label_maps: labelMaps }))
  const said: string[] = []
  const log = vi.spyOn(console, 'log').mockImplementation((text) => void said.push(String(text)))
  const run = (...more: string[]) =>
    runCommand('voxtorch spectra track', track, [
      ...['--data', data, '--config', join(data, 'config.json'), '--model', model, '--output', output, ...more],
    ])
  try {
    const training = ['--max-steps', '2', '--batch-size', '3', '--accumulation', '1']
    expect(await run(...training)).toBe(0)
    const last = said.at(-1) as string
    expect(last).toMatch(/joint goal accuracy +[01]\.\d{4}\n[\s\S]*slot accuracy +0\.\d{4}$/)
    const results = JSON.parse(readFileSync(join(output, 'results.json'), 'utf8'))
    expect(results).toMatchObject({ globalStep: 2, test: null, samples: { train: 9, valid: 9, test: 0 } })
    expect(last).toContain(results.valid.slotAccuracy.toFixed(4))
    const written = statSync(join(output, 'val-predictions.json')).mtimeMs
    expect(await run(...training)).toBe(0)
    expect([said.at(-1), statSync(join(output, 'val-predictions.json')).mtimeMs]).toEqual([last, written])
    // The same dialogs: the same figures, from what was saved.
    expect(await run('--evaluate', '--split', 'test')).toBe(0)
    expect(said.at(-1)).toBe(last)
    const turns = join(home, 'turns.jsonl')
    renameSync(join(data, 'test.jsonl'), join(home, 'kept.jsonl'))
    writeFileSync(turns, `${JSON.stringify({ user: { text: 'i want a cheap hotel' } })}\n`)
    expect(await run('--track', turns)).toBe(0)
    expect(JSON.parse(said.at(-1) as string)).toBeTypeOf('object')
    await expect(run('--evaluate', '--split', 'test')).rejects.toThrow(/expected dialogs of the split 'test'/)
  } finally {
    log.mockRestore()
  }
})
