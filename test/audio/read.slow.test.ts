import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { readAudioStream } from '../../lib/index.js'
import { PATIENCE } from '../patience.js'
import { writeSilence } from './wav-bytes.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-audio-'))
afterAll(() => rmSync(folder, { recursive: true }))

describe('a long file', () => {
  const seconds = 3600
  const path = join(folder, 'long.wav')
  test('an hour streams in bounded memory, and the event loop turns', async () => {
    writeSilence(path, seconds)
    const rss = process.memoryUsage().rss
    let most = 0
    let turns = 0
    const timer = setInterval(() => {
      turns += 1
    }, 5)
    const begin = performance.now()
    let read = 0
    for await (const { samples } of readAudioStream(path, { chunkSeconds: 30, sampleRate: 8000 })) {
      read += samples.size(0)
      most = Math.max(most, process.memoryUsage().rss - rss)
    }
    clearInterval(timer)
    expect(read).toBe(seconds * 8000)
    expect(most).toBeLessThan(150e6)
    expect((performance.now() - begin) / turns, 'milliseconds a turn').toBeLessThan(PATIENCE / 30)
  })
})
