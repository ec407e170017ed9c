import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it, vi } from 'vitest'
import * as vt from '../../../../lib/index.js'
import { runCommand } from '../../../../lib/kit/command.js'
import { pretrain } from '../../../../lib/systems/spectra/commands/pretrain.js'
import { SpectraForPreTraining } from '../../../../lib/systems/spectra/index.js'
import { smallSpectra } from '../network.js'
import { tinyTokenizer } from '../tiny.js'
import { sine, temporary, writeClip } from './helpers.js'

const folder = temporary()

it('`spectra pretrain` trains, saves the network once, and says the same when it is called again', async () => {
  await tinyTokenizer(join(folder, 'bare'))
  await tinyTokenizer(join(folder, 'tokenizer'))
  const tokenizerFile = join(folder, 'tokenizer/tokenizer.json')
  const form = JSON.parse(readFileSync(tokenizerFile, 'utf8'))
  form.added_tokens.push({ ...form.added_tokens[0], id: 10, content: '<mask>' })
  writeFileSync(tokenizerFile, JSON.stringify(form))
  writeFileSync(join(folder, 'tokenizer/tokenizer_config.json'), JSON.stringify({ mask_token: '<mask>' }))
  const tokenizer = await vt.Tokenizer.fromPretrained(join(folder, 'tokenizer'))
  writeFileSync(join(folder, 'small.json'), JSON.stringify(smallSpectra(tokenizer.vocabSize)))
  await writeClip(join(folder, 'talk.wav'), sine(12))
  const turns = Array.from({ length: 6 }, (_, turn) => ({
    ...{ dialog: 'd', turn, speaker: `${turn % 2}`, wav: 'talk.wav' },
    words: ['a', 'b', 'c'].map((word, i) => {
      return { word, start: 2 * turn + i / 2, end: 2 * turn + i / 2 + 0.4 }
    }),
  }))
  const file = join(folder, 'turns.jsonl')
  // One turn has no words, and is left out.
  writeFileSync(file, [...turns, { ...turns[0], turn: 6, words: [] }].map((turn) => JSON.stringify(turn)).join('\n'))
  const output = join(folder, 'run')
  const run = (...more: string[]) =>
    runCommand('voxtorch spectra pretrain', pretrain, [
      ...['--data', file, '--tokenizer', join(folder, 'tokenizer'), '--config', join(folder, 'small.json')],
      ...['--output', output, '--max-steps', '2', '--batch-size', '2', '--accumulation', '1', ...more],
    ])
  const said: string[] = []
  const log = vi.spyOn(console, 'log').mockImplementation((text) => void said.push(String(text)))
  try {
    expect(await run()).toBe(0)
    const last = said.at(-1) as string
    expect(last).toMatch(/^2 steps, mean loss \d+\.\d{4}; the model is in /)
    expect(said).toContainEqual(expect.stringMatching(/dropped: \{"noWords":1\}/))
    const saved = join(output, 'model/model.safetensors')
    const [before, written] = [readFileSync(saved), statSync(saved).mtimeMs]
    const results = JSON.parse(readFileSync(join(output, 'results.json'), 'utf8'))
    expect(results).toMatchObject({ globalStep: 2, valid: null, test: null, trainingLoss: expect.any(Number) })
    expect(await run()).toBe(0)
    expect(said.at(-1)).toBe(last)
    expect([readFileSync(saved).equals(before), statSync(saved).mtimeMs]).toEqual([true, written])
    using model = await SpectraForPreTraining.fromPretrained(join(output, 'model'))
    expect(model.config.textConfig.vocabSize).toBe(tokenizer.vocabSize)
    await expect(run('--on-bad-record', 'stop', '--output', join(folder, 'other'))).rejects.toThrow(
      /expected the option once/,
    )
    const other = ['--data', file, '--tokenizer', join(folder, 'tokenizer'), '--output', join(folder, 'other')]
    const stopped = runCommand('voxtorch spectra pretrain', pretrain, [...other, '--on-bad-record', 'stop'])
    await expect(stopped).rejects.toThrow(/expected words, got none/)
    const unmasked = ['--data', file, '--tokenizer', join(folder, 'bare'), '--output', join(folder, 'bare-run')]
    await expect(runCommand('voxtorch spectra pretrain', pretrain, unmasked)).rejects.toThrow(
      /expected a tokenizer with a mask token/,
    )
  } finally {
    log.mockRestore()
  }
})
