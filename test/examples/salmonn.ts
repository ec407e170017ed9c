import { execFile } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect } from 'vitest'
import * as vt from 'voxtorch'
import * as sl from 'voxtorch/salmonn'
import { tinySalmonn } from '../systems/salmonn/network/tiny.js'

export const root = fileURLToPath(new URL('../..', import.meta.url))
/** Where everything lies, for one file of tests. */
const home = mkdtempSync(join(tmpdir(), 'voxtorch-salmonn-examples-'))
export const at = (...path: string[]) => join(home, ...path)
export const env = { ...process.env, OMP_NUM_THREADS: '1' }
afterAll(() => rmSync(home, { recursive: true, force: true }))

export interface Ran {
  code: number
  out: string
  err: string
}

/** Runs a command to its end; what is typed is given to it as it is, and then nothing more. */
export function node(args: string[], typed = ''): Promise<Ran> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, args, { cwd: root, env }, (error, out, err) =>
      resolve({ code: error ? Number(error.code ?? 1) : 0, out, err }),
    )
    child.stdin?.end(typed)
  })
}
const WITHOUT_MODEL = ['score', 'convert']
/** The command line of a verb, which runs in float32. */
export const salmonn = (verb: string, ...rest: string[]) => [
  ...['dist/cli/main.js', 'salmonn', verb, ...rest],
  ...(WITHOUT_MODEL.includes(verb) || rest.includes('--dtype') ? [] : ['--dtype', 'float32']),
]
export async function run(verb: string, ...rest: string[]): Promise<Ran> {
  const ran = await node(salmonn(verb, ...rest))
  expect(ran.code, ran.err).toBe(0)
  return ran
}
export const voxtorch = (...args: string[]) => node(['dist/cli/main.js', ...args])
export const json = (...path: string[]) => JSON.parse(readFileSync(at(...path), 'utf8'))
export const lines = (...path: string[]) =>
  readFileSync(at(...path), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
export const write = (name: string, text: string): string => {
  writeFileSync(at(name), text)
  return at(name)
}

const EMOTIONS = ['neutral', 'happy', 'sad', 'anger']
/** Dialogs of two and three turns; the first two begin with the same clip. */
export const dialogs = Array.from({ length: 8 }, (_, d) => ({
  dialogue_id: `en_${d}`,
  turns: Array.from({ length: 2 + (d % 2) }, (_, t) => ({
    turn_id: t + 1,
    text: `say ${d} ${t}`,
    emotion: EMOTIONS[(d + t) % 4],
    split_audio_file: d < 2 && t === 0 ? 'wav/both.wav' : `wav/${d}_${t}.wav`,
    response_txt: 'so it is',
  })),
}))
export const clips = [...new Set(dialogs.flatMap(({ turns }) => turns.map((turn) => turn.split_audio_file)))]

/** Dialogs with their clips in the challenge's form and converted, whole and divided, and a tiny model in `tiny`. */
export const prepare = () =>
  beforeAll(async () => {
    mkdirSync(at('wav'))
    await vt.scope(async () => {
      for (const [i, path] of clips.entries()) {
        const sound = Float32Array.from({ length: 4000 }, (_, t) => 0.3 * Math.sin(t * (0.02 + 0.01 * i)))
        await vt.writeWav(at(path), vt.tensor(sound), { sampleRate: 16_000 })
      }
    })
    const input = write('challenge.jsonl', `${dialogs.map((dialog) => JSON.stringify(dialog)).join('\n')}\n`)
    await sl.convertHumDialFile(input, at('whole.json'))
    await sl.convertHumDialFile(input, at('made.json'), { valid: 0.25, test: 0.25 })
    const model = await tinySalmonn()
    await model.save(at('tiny'), { whole: true })
    model.dispose()
  })
