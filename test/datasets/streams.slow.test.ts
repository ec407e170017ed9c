import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { describe, expect, it } from 'vitest'
import { expectResumes, folder, ids, library, mixed } from './streams.js'

const root = pathToFileURL(resolve('dist/index.js')).href

describe('a StreamingDataset in a DataLoader', () => {
  // A resumed loop starts threads, so a few positions are tried. datasets.test.ts has the other buffers.
  it.each([
    [1, 500, [0, 16, 33]],
    [2, 0, [0, 16, 33]],
    [4, 20, [0, 16, 33]],
  ])('goes on after each batch without loss or repetition: %i workers, buffer %i, 2 ranks', expectResumes)

  it.each([
    [1, 0],
    [2, 15],
    [4, 15],
  ])('survives a kill in the middle: %i workers, buffer %i, 2 ranks', async (workers, shuffleBuffer) => {
    const source = mixed()
    const base = folder({ none: '' })
    const run = (rank: number, killAfter?: number) => {
      const log = join(base, `${rank}.jsonl`)
      const settings = { library, root, log, source, workers, rank, worldSize: 2, shuffleBuffer }
      const script = fileURLToPath(new URL('./modules/killed.mjs', import.meta.url))
      const child = spawn(process.execPath, [script, JSON.stringify(settings)], {
        stdio: ['ignore', 'ignore', 'inherit'],
      })
      const ended = once(child, 'exit') as Promise<[number | null, string | null]>
      const lineCount = () => (existsSync(log) ? readFileSync(log, 'utf8').split('\n').length - 1 : 0)
      const watch = async () => {
        while (child.exitCode === null && lineCount() < (killAfter as number)) await sleep(5)
        child.kill('SIGKILL')
      }
      return { log, ended, watched: killAfter === undefined ? undefined : watch() }
    }
    const first = [run(0, 5), run(1, 12)]
    for (const { ended, watched } of first) {
      await watched
      expect(await ended).toEqual([null, 'SIGKILL'])
    }
    const second = [run(0), run(1)]
    for (const { ended } of second) expect(await ended).toEqual([0, null])
    const logged = second.flatMap(({ log }) =>
      readFileSync(log, 'utf8')
        .trimEnd()
        .split('\n')
        .flatMap((line) => (JSON.parse(line) as { ids: number[] }).ids),
    )
    expect(logged.sort((a, b) => a - b)).toEqual(ids(0, 137))
  })
})
