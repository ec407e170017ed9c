import { existsSync, mkdirSync, readdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import * as vt from '../../../lib/index.js'
import { start } from './child.js'
import { newTrainer, temporary } from './small.js'

const folder = temporary()
const script = fileURLToPath(new URL('./crash-run.mjs', import.meta.url))
const lockOf = (outputDir: string) => join(outputDir, '.voxtorch-lock')

/** A folder with a lock of somebody's. */
function locked(name: string, holder: object): string {
  const outputDir = folder(name)
  mkdirSync(outputDir, { recursive: true })
  writeFileSync(lockOf(outputDir), typeof holder === 'string' ? holder : JSON.stringify(holder))
  return outputDir
}

describe('two trainings in one outputDir', () => {
  it('the second process is refused by name and process, until the first is gone, however it went', async () => {
    const outputDir = folder('two')
    const first = start([script, outputDir])
    await first.line(/^step 2$/)
    const second = start([script, outputDir])
    expect((await second.exit).code).toBe(1)
    expect(second.errors()).toContain(
      `ConfigError: TrainingArguments.outputDir: expected a folder that no other process trains in, got one where process ${first.process.pid} is training 'two': ${outputDir}. Wait until it has ended`,
    )
    // It has changed nothing.
    await first.line(/^step 4$/)
    const { pid } = JSON.parse(readFileSync(join(outputDir, 'run.json'), 'utf8'))
    expect(pid).toBe(first.process.pid)
    first.process.kill('SIGKILL')
    await first.exit
    expect(existsSync(lockOf(outputDir))).toBe(true)
    const third = start([script, outputDir])
    expect(await third.line(/^step/)).toBeDefined()
    third.process.kill('SIGTERM')
    await third.exit
    expect(readdirSync(outputDir).filter((name) => name.startsWith('.'))).toEqual([])
  })

  it('so is the second of one process', async () => {
    const outputDir = folder('same')
    const second = newTrainer({ outputDir, saveStrategy: 'no', reportTo: ['jsonl'] })
    let refused: unknown
    const first = newTrainer(
      { outputDir, runName: 'first', saveStrategy: 'no', reportTo: ['jsonl'] },
      {
        callbacks: [
          {
            onTrainBegin: async () => {
              refused = await second.train().catch((error: unknown) => error)
            },
          },
        ],
      },
    )
    await first.train()
    expect(refused).toBeInstanceOf(vt.ConfigError)
    expect(refused).toMatchObject({ argument: 'outputDir', pid: process.pid, runName: 'first' })
    await second.train()
    expect(existsSync(lockOf(outputDir))).toBe(false)
  })

  it('a training that fails, and one that writes nothing, leave no lock', async () => {
    const outputDir = folder('fails')
    const onStepEnd = () => {
      throw new Error('mine')
    }
    await expect(newTrainer({ outputDir }, { callbacks: [{ onStepEnd }] }).train()).rejects.toThrow('mine')
    expect(existsSync(lockOf(outputDir))).toBe(false)
    const nothing = folder('nothing')
    await newTrainer({ outputDir: nothing, saveStrategy: 'no' }).train()
    expect(existsSync(nothing)).toBe(false)
  })

  it('a process that has the number of one that is gone holds nothing', async () => {
    const began = '1'
    const mine = { host: hostname(), pid: process.pid, name: 'old', namespace: '', began, id: 'x' }
    const namespace = process.platform === 'linux' ? (await import('node:fs')).readlinkSync('/proc/self/ns/pid') : ''
    await newTrainer({ outputDir: locked('reused', { ...mine, namespace }) }).train()
    await newTrainer({ outputDir: locked('gone', { ...mine, namespace, pid: 2 ** 22 + 1 }) }).train()
  })

  it('one of another machine, or that cannot be read, holds for a minute after its last sign of life', async () => {
    for (const [name, holder] of [
      ['machine', { host: 'elsewhere', pid: process.pid, name: 'far', namespace: '', began: '1', id: 'x' }],
      ['half', '{"host": "els'],
      ['empty', ''],
    ] as const) {
      const outputDir = locked(name, holder as object)
      await expect(newTrainer({ outputDir }).train()).rejects.toThrow(vt.ConfigError)
      if (name === 'machine') {
        await expect(newTrainer({ outputDir }).train()).rejects.toThrow(/process \d+ on elsewhere is training 'far'/)
      }
      const old = new Date(Date.now() - 61_000)
      utimesSync(lockOf(outputDir), old, old)
      await newTrainer({ outputDir }).train()
    }
  })
})
