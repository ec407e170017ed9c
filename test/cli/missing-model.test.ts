// A model that is not there is told at once, by every command, with what was probably meant.
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { COMMANDS, SYSTEMS } from '../../lib/cli/commands.js'
import { writeWav, zeros } from '../../lib/index.js'
import { runCommand } from '../../lib/kit/command.js'

const root = mkdtempSync(join(tmpdir(), 'voxtorch-missing-model-'))
const at = (name: string) => join(root, name)

beforeAll(async () => {
  // Nobody is asked, and what commands say beside their errors is not of interest.
  vi.stubEnv('HF_HUB_OFFLINE', '1')
  vi.stubEnv('XDG_CACHE_HOME', at('cache'))
  for (const name of ['log', 'error'] as const) vi.spyOn(console, name).mockImplementation(() => {})
  await writeWav(at('a.wav'), zeros([16_000]), { sampleRate: 16_000 })
  const turns = Array.from({ length: 16 }, (_, i) => {
    return {
      dialog: i >> 1,
      text: 'hi',
      speaker: 'A',
      emotion: i % 2 ? 'joy' : 'anger',
      audio: at('a.wav'),
      video: at('a.wav'),
    }
  })
  writeFileSync(at('dialogs.jsonl'), turns.map((turn) => `${JSON.stringify(turn)}\n`).join(''))
  writeFileSync(at('swift.json'), JSON.stringify([{ query: '<emotion> hi', response: 'Joy.' }]))
  const annotation = [1, 2, 3, 4].map((i) => {
    copyFileSync(at('a.wav'), at(`${i}.wav`))
    return { path: at(`${i}.wav`), text: `${i}`, task: 'asr' }
  })
  writeFileSync(at('annotations.json'), JSON.stringify({ annotation }))
  writeFileSync(at('salmonn.yaml'), `data: { train: ${at('annotations.json')} }\n`)
  writeFileSync(at('parts.yaml'), `model: { whisper: MODEL, beats: none, llm: MODEL }\n`)
})
afterAll(() => {
  vi.restoreAllMocks()
  vi.unstubAllEnvs()
  rmSync(root, { recursive: true })
})

const LINES = [
  'transcribe a.wav --model MODEL',
  'serve text --model MODEL',
  'serve salmonn --model MODEL',
  'serve usdm --model MODEL',
  'serve emoverse --model MODEL',
  'salmonn chat --model MODEL',
  'salmonn chat --config parts.yaml --options model.whisper=MODEL model.llm=MODEL',
  'salmonn trajectory --model MODEL x=a.wav',
  'salmonn train --config salmonn.yaml --model MODEL',
  'spectra predict dialogs.jsonl --model MODEL',
  'usdm respond --model MODEL a.wav',
  'usdm train --model MODEL --data dialogs.jsonl --output out',
  'emotion train --text MODEL --data dialogs.jsonl',
  'emotion train --text none --audio MODEL --data dialogs.jsonl',
  'emotion train --text none --video MODEL --data dialogs.jsonl',
  'emotion label --model MODEL dialogs.jsonl',
  'emoverse infer --model MODEL --dataset swift.json --output out',
  'emoverse train --model MODEL --dataset swift.json --output out',
]

async function failure(line: string, model: string): Promise<string> {
  const [name = '', ...words] = line
    .split(' ')
    .map((word) => word.replaceAll('MODEL', model))
    .map((word) => word.replace(/^(x=)?(\w+\.(?:wav|jsonl|json|yaml)|out)$/, (_, x = '', name) => x + at(name)))
  const room = SYSTEMS[name]
  const rule = room ? room.find((one) => one.name === words[0]) : COMMANDS.find((one) => one.name === name)
  const run = runCommand(`voxtorch ${name}`, rule!, room ? words.slice(1) : words)
  return run.then(
    (code) => `ended with ${code}`,
    (error: Error) => error.message,
  )
}

/** Models of a folder alone, which no weights by name are. */
const OWN_FOLDERS = /^(serve (salmonn|usdm)|salmonn (chat|trajectory|train).* --model|emotion label|spectra predict)/

describe('a model that is not there', () => {
  it.each(LINES)('%s', async (line) => {
    if (OWN_FOLDERS.test(line)) {
      expect(await failure(line, 'nix')).toMatch(/^nix: expected a folder that save\(\) of \w+/)
    } else {
      const meant = await failure(line, 'whisper-bse')
      expect(meant).toContain("whisper-bse: there is no such folder and no such weights. Did you mean 'whisper-base'?")
      const nothing = await failure(line, 'nix')
      expect(nothing).toContain('nix: there is no such folder and no such weights (there are whisper-base, ')
    }
    expect(await failure(line, './nix')).toMatch(/nix: (there is no such folder|expected a folder that save)/)
  })
})
