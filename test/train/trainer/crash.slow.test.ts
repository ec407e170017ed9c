import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { beforeAll, describe, expect, it } from 'vitest'
import { Random } from '../../../lib/index.js'
import { start as startChild } from './child.js'
import { temporary } from './small.js'

const folder = temporary()
const script = fileURLToPath(new URL('./crash-run.mjs', import.meta.url))
const [whole, killed, ended] = [folder('whole'), folder('killed'), folder('ended')]

const start = (outputDir: string, ...more: string[]) => startChild([script, outputDir, ...more])

const metrics = (outputDir: string) =>
  readFileSync(join(outputDir, 'metrics.jsonl'), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => ({ ...JSON.parse(line), speed: undefined }))
const leftovers = (outputDir: string) =>
  existsSync(outputDir) ? readdirSync(outputDir).filter((name) => name.startsWith('.voxtorch')) : []

/** Weights, optimiser and log of a run that ended. */
function expectSame(outputDir: string): void {
  const files = ['model.safetensors', 'average.safetensors']
  const last = ['model.safetensors', 'optimizer.safetensors', 'optimizer.json', 'training.safetensors']
  for (const file of [...files, ...last.map((name) => join('checkpoint-150', name))]) {
    const same = readFileSync(join(outputDir, file)).equals(readFileSync(join(whole, file)))
    expect(same, `${file} is the same, byte for byte`).toBe(true)
  }
  expect(metrics(outputDir)).toEqual(metrics(whole))
  expect(leftovers(outputDir)).toEqual([])
  const checkpoints = (path: string) =>
    readdirSync(path)
      .filter((name) => name.startsWith('checkpoint-'))
      .sort()
  expect(checkpoints(outputDir)).toEqual(checkpoints(whole))
}

let done: string | undefined
beforeAll(async () => {
  const child = start(whole)
  expect(await child.exit, child.errors()).toEqual({ code: 0, signal: null })
  done = child.lines.at(-1)
  expect(done).toMatch(/^done 0\.\d+/)
  expect(metrics(whole).length).toBe(50 + 37)
})

describe('a training that is killed and started again', () => {
  it('ends with the same bytes after 20 SIGKILLs, one of them during a save', async () => {
    const random = new Random(Date.now() % 2 ** 31)
    let duringSave = 0
    let kills = 0
    let furthest = 0
    while (kills < 20) {
      const child = start(killed)
      const saving = kills >= 5 && duringSave === 0
      if (kills % 6 === 5 && !saving)
        await sleep(random.below(400)) // anywhere, start included
      else {
        for (let steps = 1 + random.below(8); steps > 0; steps--) await child.line(/^step/)
        if (saving) while (leftovers(killed).length === 0 && child.process.exitCode === null) await sleep(0)
        else await sleep(random.below(10))
      }
      child.process.kill('SIGKILL')
      const { signal, code } = await child.exit
      expect({ signal, code }, child.errors()).toEqual({ signal: 'SIGKILL', code: null })
      kills++
      if (leftovers(killed).length > 0) duringSave++
      for (const line of child.lines) furthest = Math.max(furthest, Number(/^step (\d+)/.exec(line)?.[1] ?? 0))
    }
    expect(duringSave).toBeGreaterThan(0)
    expect(furthest).toBeGreaterThan(8)
    // As a kill in the middle of a small file leaves it.
    writeFileSync(join(killed, '.voxtorch-999999999-k3.tmp'), 'half')
    const child = start(killed)
    expect(await child.exit, child.errors()).toEqual({ code: 0, signal: null })
    expect(child.lines.at(-1)).toBe(done)
    expect(child.lines.find((line) => line.startsWith('step'))).not.toBe('step 1')
    expect(child.errors()).toBe('')
    expectSame(killed)
  })

  it('saves first on SIGTERM and on SIGINT, then ends by it', async () => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      const child = start(ended)
      for (let steps = 0; steps < 6; steps++) await child.line(/^step/)
      child.process.kill(signal)
      expect(await child.exit, child.errors()).toEqual({ code: null, signal })
      const [last, before] = child.lines.slice().reverse()
      expect(last).toMatch(/^saved/)
      expect(Number(last!.split(' ')[1])).toBe(Number(before!.split(' ')[1]))
      expect(readdirSync(ended)).toContain(`checkpoint-${last!.split(' ')[1]}`)
      expect(JSON.parse(readFileSync(join(ended, 'run.json'), 'utf8')).status).toBe('interrupted')
    }
    const child = start(ended)
    expect(await child.exit, child.errors()).toEqual({ code: 0, signal: null })
    expect(child.lines.at(-1)).toBe(done)
    expectSame(ended)
  })

  it('does nothing when it had ended, and warns of another number of threads', async () => {
    const child = start(ended, '1')
    expect(await child.exit, child.errors()).toEqual({ code: 0, signal: null })
    expect(child.lines).toEqual([done])
    expect(child.errors()).toContain('expected 2 threads, as when it was written, got 1')
    expectSame(ended)
  })
})
