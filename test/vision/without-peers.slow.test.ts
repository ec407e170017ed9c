import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { arange, scope, writeWav } from '../../lib/index.js'
import { PATIENCE } from '../patience.js'
import { frameFolder, tinyLanguageBind } from '../systems/emotion/tiny.js'

const here = (name: string) => fileURLToPath(new URL(name, import.meta.url))

test(
  'without sharp and node-av everything else is read, and what is not says how',
  async () => {
    const folder = mkdtempSync(join(tmpdir(), 'voxtorch-peers-'))
    try {
      for (const name of ['frame10.ppm', 'frame2.ppm']) {
        writeFileSync(join(folder, name), `P3 2 1 255 ${name.length} 2 3 4 5 6\n`)
      }
      writeFileSync(join(folder, 'notes.txt'), 'not a picture')
      writeFileSync(join(folder, 'talk.mp4'), 'whatever it is')
      const script = `
        import { openVideo, preprocessImage, readImage } from ${JSON.stringify(here('../../dist/index.js'))}
        const failure = (work) => work.then(() => 'nothing', ({ name, message }) => name + ': ' + message)
        const png = Buffer.from('\\x89PNG\\r\\n\\x1a\\n', 'latin1')
        const video = await openVideo(${JSON.stringify(folder)}, { rate: 5 })
        console.log(JSON.stringify({
          png: await failure(readImage(png)),
          ppm: (await readImage(Buffer.from('P3 1 1 9 1 2 9'))).toArray(),
          prepared: (await preprocessImage({ data: new Uint8Array(12), width: 2, height: 2 }, { size: 4 })).shape,
          video: [video.width, video.height, video.rate, video.frameCount],
          frames: (await video.frames([1, 0])).toArray(),
          film: await failure(openVideo(${JSON.stringify(join(folder, 'talk.mp4'))})),
        }))`
      const { stdout } = await promisify(execFile)(
        process.execPath,
        ['--import', here('without-peers.mjs'), '--input-type=module', '-e', script],
        { timeout: PATIENCE },
      )
      const told = JSON.parse(stdout)
      expect(told.png).toMatch(
        /^DataError: the image in memory: .*read by npm's sharp, which is not installed: npm install sharp/,
      )
      expect(told.film).toMatch(/talk\.mp4: .*npm's node-av, which is not installed: npm install node-av\. .*GPL-3\.0/)
      expect(told.ppm).toEqual([[[28, 57, 255]]])
      expect(told.prepared).toEqual([3, 4, 4])
      expect(told.video).toEqual([2, 1, 5, 2])
      expect(told.frames.map((frame: number[][][]) => frame[0]![0]![0])).toEqual([11, 10])
    } finally {
      rmSync(folder, { recursive: true })
    }
  },
  PATIENCE,
)

test(
  'without sharp and node-av emotions are learnt and told from sounds and folders of frames',
  async () => {
    const folder = mkdtempSync(join(tmpdir(), 'voxtorch-peers-emotion-'))
    try {
      for (const [i, pace] of [0.2, 0.5].entries()) {
        await scope(() => writeWav(join(folder, `${i}.wav`), arange(6000).mul(pace).sin(), { sampleRate: 16000 }))
        frameFolder(folder, `frames${i}`, i)
      }
      const lines = Array.from({ length: 12 }, (_, d) => {
        const files = { audio: `${d % 2}.wav`, frames: `frames${d % 2}` }
        const split = d < 8 ? 'train' : d < 10 ? 'valid' : 'test'
        return JSON.stringify({ dialog: d, text: 'so', emotion: ['joy', 'anger'][d % 2], ...files, split })
      })
      const data = join(folder, 'x.jsonl')
      writeFileSync(data, `${lines.join('\n')}\n`)
      const run = (...words: string[]) =>
        promisify(execFile)(
          process.execPath,
          ['--import', here('without-peers.mjs'), here('../../dist/cli/main.js'), 'emotion', ...words],
          { timeout: PATIENCE },
        )
      const output = join(folder, 'run')
      const encoders = ['--text', 'none', '--audio', 'fbank', '--video', await tinyLanguageBind('video')]
      const recipe = ['--context-layers', '0', '--epochs', '4', '--learning-rate', '0.01', '--no-progress']
      const { stdout } = await run('train', '--data', data, ...encoders, ...recipe, '--output', output)
      expect(stdout).toMatch(/8 dialogs for training, 2 for validation, 2 for test/)
      const [labeled, page] = [join(folder, 'out.jsonl'), join(folder, 'page.html')]
      await run('label', data, '--model', join(output, 'best'), '--output', labeled, '--report', page)
      const rows = readFileSync(labeled, 'utf8').trim().split('\n').map((line) => JSON.parse(line)) // biome-ignore format: one line
      // Two sounds and two films: what is alike is told alike.
      expect(rows.map(({ emotion }) => emotion)).toEqual(rows.map((_, i) => rows[i % 2].emotion))
      const html = readFileSync(page, 'utf8')
      expect(html.match(/<image href="data:image\/png/g)?.length).toBe(12)
      expect(html).toContain('data-audio="data:audio/wav;base64,')
    } finally {
      rmSync(folder, { recursive: true })
    }
  },
  PATIENCE,
)
